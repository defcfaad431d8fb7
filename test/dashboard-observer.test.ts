import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type Server } from 'node:net'
import { test } from 'node:test'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { dashboardConfig, Observer } from '../src/tools/dashboard/observer.ts'
import type { Snapshot } from '../src/tools/dashboard/page/snapshot.ts'
import { until } from './support/wait-for.ts'

const NOTHING = { count: 0, p50: 0, p90: 0, p99: 0, max: 0 }

async function opened(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The server has no port')
  return address.port
}

/** A server that answers at `/status` like a consumer. */
async function statusServer() {
  const server = createHttpServer((_request, response) => {
    if (consumer.status === null) response.destroy()
    else response.end(JSON.stringify(consumer.status))
  })
  const consumer = {
    status: null as unknown,
    url: `http://127.0.0.1:${await opened(server)}`,
    says(inserted: number) {
      this.status = {
        service: 'consumer',
        ready: true,
        reason: '',
        uptimeMs: 1,
        partitions: [{ topic: 't', partition: 0, nextOffset: 0, endOffset: 7, lag: 7, lagAgeMs: 0 }],
        counters: { inserted },
        receiptToRowMs: NOTHING,
      }
    },
    close: () => server.close(),
  }
  return consumer
}

/** A database that accepts connections but never answers. */
async function observed(urls: readonly string[]) {
  const silent = createServer((socket) => sockets.push(socket))
  const sockets: Array<{ destroy(): unknown }> = []
  const database = openPostgres({
    url: `postgresql://a@127.0.0.1:${await opened(silent)}/b?sslmode=disable`,
    poolMin: 0,
    poolMax: 1,
    queryTimeoutMs: 5000,
    applicationName: 'test',
  })
  const settings = loadSettings(
    { CONSUMER_URLS: urls.join(), INGEST_URLS: 'http://127.0.0.1:1' },
    { cwd: '/' },
  )
  const defects: unknown[] = []
  const observer = new Observer(dashboardConfig(settings), database, systemClock(), (error) =>
    defects.push(error),
  )
  const snapshots: Snapshot[] = []
  observer.listen((snapshot) => snapshots.push(snapshot))
  observer.start()
  return {
    snapshots,
    defects,
    async next(): Promise<Snapshot> {
      const seen = snapshots.length
      await until('a poll', () => snapshots.length > seen)
      return snapshots.at(-1) ?? assert.fail()
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await observer.stop()
      await database.close()
      silent.close()
    },
  }
}

test("shows the services' state while the database accepts queries but does not answer", async () => {
  const consumer = await statusServer()
  consumer.says(100)
  try {
    await using observer = await observed([consumer.url])
    const hung = await until('the database to be reported as unavailable', () =>
      observer.snapshots.find(({ problems }) =>
        problems.some((problem) => /^database: has not answered for \d s/.test(problem)),
      ),
    )
    assert.equal(hung.inserted, 100)
    // Several polls ran meanwhile: none waited for the answer.
    assert.ok(observer.snapshots.indexOf(hung) >= 2)
  } finally {
    consumer.close()
  }
})

test('counts no row twice and hides no lag when a consumer does not answer for a while', async () => {
  const [first, second] = [await statusServer(), await statusServer()]
  first.says(1_000_000)
  second.says(2_000_000)
  try {
    await using observer = await observed([first.url, second.url])
    await observer.next()
    assert.equal((await observer.next()).inserted, 3_000_000)
    assert.equal(observer.snapshots.at(-1)?.moment.lag, 14)
    second.status = null
    await observer.next()
    const without = await observer.next()
    assert.deepEqual([without.inserted, without.moment.lag], [3_000_000, null])
    second.says(2_000_100)
    await observer.next()
    assert.equal((await observer.next()).inserted, 3_000_100)
    const rates = observer.snapshots.map(({ rowsPerSecond }) => rowsPerSecond ?? 0)
    assert.ok(Math.max(...rates) < 1000, `rows per second: ${rates}`)
    assert.ok(Math.max(...rates) > 0)
  } finally {
    first.close()
    second.close()
  }
})

test('survives an unparsable status, reports it once, and shows the service when it parses again', async () => {
  const consumer = await statusServer()
  consumer.status = { service: 'consumer', ready: true }
  try {
    await using observer = await observed([consumer.url])
    await until('the defect', () => observer.defects.length > 0)
    await sleep(2500)
    assert.equal(observer.defects.length, 1)
    consumer.says(5)
    assert.equal((await observer.next()).inserted, 5)
  } finally {
    consumer.close()
  }
})
