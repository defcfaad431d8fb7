import assert from 'node:assert/strict'
import { rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import type { Connection, Database } from '../src/foundation/store/database.ts'
import { failureKind } from '../src/foundation/store/failures.ts'
import { lastStored } from '../src/foundation/store/last-stored.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createAuditedMarket } from './support/audited-market.ts'
import { column } from './support/columns.ts'
import { createTestDatabase, databaseKinds, type TestDatabase } from './support/database.ts'
import { ended } from './support/ended.ts'
import { startNativeTimescale } from './support/native-timescaledb.ts'
import { startTapeline } from './support/processes.ts'
import { runStatements } from './support/statements.ts'
import { failureOf } from './support/wait-for.ts'

const [native] = databaseKinds()
const open = (url: string) => openPostgres({ url, poolMin: 0, poolMax: 1, applicationName: 'test' })

/** Settings that an operator may have made for other programs. */
const SETTINGS: Readonly<Record<string, string>> = {
  datestyle: "'SQL, DMY'",
  timezone: "'America/St_Johns'",
  intervalstyle: 'sql_standard',
  bytea_output: 'escape',
  extra_float_digits: '0',
  array_nulls: 'off',
  standard_conforming_strings: 'off',
  default_transaction_isolation: 'serializable',
  default_transaction_read_only: 'on',
  statement_timeout: '200',
  lock_timeout: '200',
  idle_in_transaction_session_timeout: '200',
  transaction_timeout: '200',
}

async function setOn(server: Pick<TestDatabase, 'url'>): Promise<void> {
  const name = new URL(server.url).pathname.slice(1)
  await runStatements(
    server.url,
    'SET default_transaction_read_only = off',
    ...Object.entries(SETTINGS).map(([setting, value]) => `ALTER DATABASE ${name} SET ${setting} = ${value}`),
  )
}

const backendPid = async (on: Pick<Connection, 'query'>) =>
  (await on.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid

describe('sessions', { skip: native?.skip ?? false }, () => {
  let server: TestDatabase
  let database: Database
  before(async () => {
    server = await createTestDatabase('native')
    database = open(server.url)
    await database.query('CREATE TABLE notes (note text)')
  })
  after(async () => {
    await database.close()
    await server.drop()
  })

  test('a session opened while the database was read-only can write later', async () => {
    const name = new URL(server.url).pathname.slice(1)
    await runStatements(server.url, `ALTER DATABASE ${name} SET default_transaction_read_only = on`)
    await using stale = ended(open(server.url), 'close')
    const pid = await backendPid(stale)
    await runStatements(
      server.url,
      'SET default_transaction_read_only = off',
      `ALTER DATABASE ${name} RESET default_transaction_read_only`,
    )
    const writing = await stale.transaction(async (connection) => {
      await connection.query("INSERT INTO notes VALUES ('written')")
      return backendPid(connection)
    })
    assert.equal(writing, pid, 'in the same session')
  })

  for (const code of ['25006', '57P01', '08006']) {
    test(`a session that failed with ${code} is not reused`, async () => {
      const pid = await backendPid(database)
      const raised = database.transaction((connection) =>
        connection.query(`DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '${code}'; END $$`),
      )
      await assert.rejects(raised, { code })
      assert.notEqual(await backendPid(database), pid)
    })
  }

  test('a session that failed with another code is reused', async () => {
    const pid = await backendPid(database)
    await assert.rejects(database.query('SELECT 1 / 0'), { code: '22012' })
    assert.equal(await backendPid(database), pid)
  })

  test('no setting of the database ends or changes a transaction', async () => {
    await setOn(server)
    await using strict = ended(open(server.url), 'close')
    const seen = await strict.transaction(async (connection) => {
      await connection.query('SELECT pg_sleep(0.5)')
      await connection.query("INSERT INTO notes VALUES ('written')")
      await sleep(500)
      const { rows } = await connection.query(
        `SELECT timestamptz '2026-01-31 12:00+00' AS at, '\\x00ff'::bytea AS bytes, '{NULL}'::text[] AS nothing,
           interval '1 day' AS day, 0.1::float8 + 0.2 AS sum`,
      )
      return rows[0]
    })
    assert.deepEqual(seen?.['at'], new Date('2026-01-31T12:00:00Z'))
    assert.deepEqual(seen?.['bytes'], Buffer.from([0, 255]))
    assert.deepEqual(seen?.['nothing'], [null])
    assert.deepEqual(Object.entries(Object(seen?.['day'])), [['days', 1]])
    assert.equal(seen?.['sum'], 0.30000000000000004)
  })
})

test('commands and the consumer read a database with other settings', {
  skip: native?.skip ?? false,
}, async () => {
  const market = await createAuditedMarket('native')
  const database = open(market.url)
  const output = async (...args: string[]) => {
    await using running = startTapeline(args, {
      env: { DATABASE_URL: market.url, KAFKA_BROKERS: '127.0.0.1:1' },
    })
    await running.assertExit(0, 30_000)
    return running.output()
  }
  try {
    const name = new URL(market.url).pathname.slice(1)
    await market.database.query(
      `INSERT INTO dead_letters (topic, topic_id, partition, kafka_offset, origin, reason, failed_at)
       VALUES ('t', gen_random_uuid(), 0, 1, 'consumer', 'because', '2026-01-31 12:00+00')`,
    )
    await setOn(market)
    const last = await lastStored(database, [{ symbol: 'BTCUSDT', eventType: 'trade', timeMs: Date.now() }])
    assert.deepEqual(column(last, 'timeMs'), [Date.UTC(2026, 0, 5, 2)])
    assert.equal((await migrate(database)).notAllowed.length, 0)
    assert.match(await output('verify'), /Verdict: clean/)
    assert.match(await output('dead-letters', 'list'), /2026-01-31T12:00:00/)
    assert.match(await output('sql', 'SELECT min(trade_time) FROM trades'), /2026-01-01 00:00:00\+00/)
    const folder = join(tmpdir(), `export-${name}`)
    await output('export', 'BTCUSDT', '--day', '2026-01-01', '--out', folder)
    await rm(folder, { recursive: true })
  } finally {
    await database.close()
    await market.drop()
  }
})

test('a server in recovery is read-only: it can be read, and writes may be retried', {
  skip: native?.skip ?? false,
}, async () => {
  const server = await startNativeTimescale({ cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? tmpdir() })
  if ('skip' in server) assert.fail(server.skip)
  const database = open(server.url)
  try {
    await database.query('CREATE TABLE notes (note text)')
    await writeFile(join(dirname(server.logFile), 'data', 'standby.signal'), '')
    await server.restart()
    const write = () =>
      database.transaction((connection) => connection.query("INSERT INTO notes VALUES ('written')"))
    const refused = await failureOf(write())
    assert.match(String(refused), /read-only/)
    assert.equal(Reflect.get(Object(refused), 'code'), '25006')
    assert.equal(failureKind(refused), 'retry')
    assert.deepEqual((await database.query('SELECT count(*)::int AS n FROM notes')).rows, [{ n: 0 }])
    await using command = startTapeline(['migrate'], { env: { DATABASE_URL: server.url } })
    await command.assertExit(1, 30_000)
    assert.match(command.output(), /read-only[\s\S]*set DATABASE_URL to the primary/)
    await runStatements(server.url, 'SELECT pg_promote()')
    await write()
  } finally {
    await database.close()
    await server.stop()
  }
})
