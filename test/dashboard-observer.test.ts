import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { dashboardConfig, Observer } from '../src/tools/dashboard/observer.ts'
import type { Snapshot } from '../src/tools/dashboard/page/snapshot.ts'
import { startSilentProxy } from './support/loopback.ts'
import { until } from './support/wait-for.ts'

const NOTHING = { count: 0, p50: 0, p90: 0, p99: 0, max: 0 }

/** A server that answers at `/status` like a consumer. */
async function statusServer() {
  const consumer = {
    status: null as unknown,
    url: '',
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
    [Symbol.dispose]: () => server.close(),
  }
  const server = createServer((_request, response) => {
    if (consumer.status === null) response.destroy()
    else response.end(JSON.stringify(consumer.status))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(address !== null && typeof address === 'object')
  consumer.url = `http://127.0.0.1:${address.port}`
  return consumer
}

/** An observer of these consumers and a database that accepts connections but never answers. */
async function observed(...urls: readonly string[]) {
  const silent = await startSilentProxy('postgresql://a@127.0.0.1:1/b?sslmode=disable')
  silent.goSilent()
  const pool = { poolMin: 0, poolMax: 1, queryTimeoutMs: 5000, applicationName: 'test' }
  const database = openPostgres({ url: silent.url, ...pool })
  const environment = { CONSUMER_URLS: urls.join(), INGEST_URLS: 'http://127.0.0.1:1' }
  const config = dashboardConfig(loadSettings(environment, { cwd: '/' }))
  const defects: unknown[] = []
  const observer = new Observer(config, database, systemClock(), (error) => defects.push(error))
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
      await silent[Symbol.asyncDispose]()
      await observer.stop()
      await database.close()
    },
  }
}

test("shows the services' state while the database accepts queries but does not answer", async () => {
  using consumer = await statusServer()
  consumer.says(100)
  await using observer = await observed(consumer.url)
  const hung = await until('the database to be reported as unavailable', () =>
    observer.snapshots.find(({ problems }) =>
      problems.some((problem) => /^database: has not answered for \d s/.test(problem)),
    ),
  )
  assert.equal(hung.inserted, 100)
  // Several polls ran meanwhile: none waited for the answer.
  assert.ok(observer.snapshots.indexOf(hung) >= 2)
})

test('counts no row twice and hides no lag when a consumer does not answer for a while', async () => {
  using first = await statusServer()
  using second = await statusServer()
  first.says(1_000_000)
  second.says(2_000_000)
  await using observer = await observed(first.url, second.url)
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
})

test('survives an unparsable status, reports it once, and shows the service when it parses again', async () => {
  using consumer = await statusServer()
  consumer.status = { service: 'consumer', ready: true }
  await using observer = await observed(consumer.url)
  await until('the defect', () => observer.defects.length > 0)
  await sleep(2500)
  assert.equal(observer.defects.length, 1)
  consumer.says(5)
  assert.equal((await observer.next()).inserted, 5)
})
