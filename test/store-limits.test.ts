import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, describe, test } from 'node:test'
import { startChunkMaintenance } from '../src/consumer/chunk-maintenance.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { failureKind } from '../src/foundation/store/failures.ts'
import { checkSchema, MigrationUnderWayError, migrate } from '../src/foundation/store/migrate.ts'
import { LOCK_SQL } from '../src/foundation/store/migrations.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { TextReader } from '../src/foundation/store/text-reader.ts'
import { UnansweredError } from '../src/foundation/store/unanswered.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { verify } from '../src/tools/verify/verify.ts'
import { databaseKinds, databaseOfSuite } from './support/database.ts'
import { type SilentProxy, startSilentProxy } from './support/loopback.ts'
import { startTapeline } from './support/processes.ts'
import { failureOf, until } from './support/wait-for.ts'

const [native] = databaseKinds()
const LIMIT_MS = 500

describe('limits of long operations', { skip: native?.skip ?? false }, () => {
  const server = databaseOfSuite('empty', 'native')
  /** Its statements have a limit of a second, if they have no other. */
  let hurried: Database
  const open = (url: string, queryTimeoutMs: number, applicationName: string) =>
    openPostgres({ url, poolMin: 0, poolMax: 4, queryTimeoutMs, applicationName })
  before(() => {
    hurried = open(server.url, 1000, 'hurried')
  })
  after(() => hurried.close())

  /** Statements of other connections that sleep, or wait for a table lock. */
  const waiting = async (event: 'PgSleep' | 'relation') => {
    const { rowCount } = await server.database.query(
      'SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = $1',
      [event],
    )
    return rowCount
  }
  const untilWaiting = (count: number, event: 'PgSleep' | 'relation' = 'PgSleep') =>
    until(`${count} statements in ${event}`, async () => (await waiting(event)) === count, 30_000)

  /** Runs the work while migrations, or maintenance of chunks, take so long, as with a big table. */
  const slowly = async (what: 'migration' | 'maintenance', seconds: number, work: () => Promise<void>) => {
    const [returns, value, trigger] = {
      migration: [
        'event_trigger',
        '',
        "EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX')",
      ],
      maintenance: ['trigger', ' NEW', 'TRIGGER slow BEFORE INSERT ON meta FOR EACH ROW'],
    }[what]
    await server.database.query(
      `CREATE FUNCTION slowly() RETURNS ${returns} LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(${seconds}); RETURN${value}; END $$`,
    )
    await server.database.query(`CREATE ${trigger} EXECUTE FUNCTION slowly()`)
    try {
      await work()
    } finally {
      await server.database.query('DROP FUNCTION slowly CASCADE')
    }
  }
  const startMaintenance = () =>
    startChunkMaintenance(
      hurried,
      { retentionDays: 3, compressAfterDays: null },
      systemClock(),
      createLogger('test', 'silent'),
    )

  describe('a database that stops answering', () => {
    let proxy: SilentProxy
    let database: Database
    beforeEach(async () => {
      proxy = await startSilentProxy(server.url)
      database = open(proxy.url, LIMIT_MS, 'cut off')
      await database.query('SELECT 1')
    })
    afterEach(async () => {
      await database.close()
      await proxy[Symbol.asyncDispose]()
    })

    test('a statement times out with a retryable error', async () => {
      proxy.goSilent()
      const error = await failureOf(database.query('SELECT 1'))
      assert.ok(error instanceof UnansweredError)
      assert.match(error.message, /has not answered within 0.5 s/)
      assert.equal(failureKind(error), 'retry')
    })

    test('a long step times out after its own limit, its commit after that of the pool', async () => {
      const inStep = database.transaction(
        async (connection) => {
          proxy.goSilent()
          await connection.query('SELECT 1')
        },
        { limitMs: 1000 },
      )
      const error = await failureOf(inStep)
      assert.ok(error instanceof UnansweredError && error.limitMs === 1000)
    })

    test('a commit times out', async () => {
      const commit = database.transaction(async () => proxy.goSilent(), { limitMs: 60_000 })
      const error = await failureOf(commit)
      assert.ok(error instanceof UnansweredError && error.limitMs === LIMIT_MS)
    })

    test('an abort ends a waiting operation', async () => {
      const stop = new AbortController()
      const work = database.transaction(
        async (connection) => {
          const statement = connection.query('SELECT pg_sleep(50)')
          await untilWaiting(1)
          proxy.goSilent()
          stop.abort(new Error('enough'))
          await statement
        },
        { limitMs: 600_000, signal: stop.signal },
      )
      assert.match(String(await failureOf(work)), /enough/)
      await server.database.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cut off'`,
      )
    })

    test('an export times out while it reads', async () => {
      const reader = await TextReader.open({ url: proxy.url, timeoutMs: LIMIT_MS, applicationName: 'test' })
      proxy.goSilent()
      assert.ok((await failureOf(reader.query('SELECT 1'))) instanceof UnansweredError)
      await reader.close()
    })

    test('an export times out while it copies', async () => {
      const reader = await TextReader.open({ url: proxy.url, timeoutMs: LIMIT_MS, applicationName: 'test' })
      const copy = reader.copyOut('COPY (SELECT generate_series(1, 10000000)) TO STDOUT')
      await copy.next()
      proxy.goSilent()
      const rest = async () => {
        for await (const bytes of copy) assert.ok(bytes.length > 0)
      }
      assert.ok((await failureOf(rest())) instanceof UnansweredError)
      await reader.close()
    })
  })

  test('a statement without another limit times out; a batch would wait indefinitely for a dead server', async () => {
    const late = /has not answered within 1 s/
    await assert.rejects(hurried.query('SELECT pg_sleep(20)'), late)
    await assert.rejects(
      hurried.transaction((connection) => connection.query('SELECT pg_sleep(20)')),
      late,
    )
  })

  /** Runs the work while another transaction has executed this statement. */
  const during = async (statement: string, work: () => Promise<void>) => {
    const [held, taken] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const holding = hurried.transaction(async (connection) => {
      await connection.query(statement)
      taken.resolve()
      await held.promise
    })
    await taken.promise
    try {
      await work()
    } finally {
      held.resolve()
      await holding
    }
  }

  test("a wait for the migration lock times out, names the lock's owner, and may be retried", () =>
    during(LOCK_SQL, async () => {
      const error = await failureOf(migrate(server.database, { lockTimeoutMs: 300 }))
      assert.ok(error instanceof MigrationUnderWayError)
      assert.match(
        error.message,
        /^Another process is migrating this database \(hurried, pid \d+\): its lock .* within 0\.3 s$/,
      )
      assert.equal(failureKind(error), 'retry')
    }))

  test('the server ends a step that exceeds its limit, and the error names the step', () =>
    slowly('migration', 30, async () => {
      const error = await failureOf(migrate(server.database, { limitMs: LIMIT_MS }))
      assert.ok(error instanceof UnansweredError)
      assert.match(error.message, /^Migration 1 \(.*\): the database has not answered within 0.5 s$/)
      assert.equal(await waiting('PgSleep'), 0)
    }))

  test('an abort cancels a migration on the server; without one it does not time out', async () => {
    await slowly('migration', 60, async () => {
      const stop = new AbortController()
      const migration = failureOf(migrate(hurried, { signal: stop.signal }))
      await untilWaiting(1)
      stop.abort(new Error('enough'))
      assert.match(String(await migration), /enough/)
      assert.equal(await waiting('PgSleep'), 0)
    })
    await slowly('migration', 2, async () => {
      await migrate(hurried)
    })
    await checkSchema(hurried)
  })

  test('a stop cancels maintenance on the server; without one it does not time out', async () => {
    await server.database.query(
      `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
       SELECT now() - days * interval '1 day', 'BTCUSDT', 'trade', days, 1, 1, true, now() FROM generate_series(0, 9) AS days`,
    )
    await slowly('maintenance', 60, async () => {
      const maintenance = startMaintenance()
      await untilWaiting(1)
      maintenance.stop()
      await untilWaiting(0)
    })
    await slowly('maintenance', 2, async () => {
      const maintenance = startMaintenance()
      const marks = "SELECT FROM meta WHERE key = 'retention:trades'"
      await until(
        'the old chunks to be dropped',
        async () => (await server.database.query(marks)).rowCount === 1,
        30_000,
      )
      maintenance.stop()
    })
  })

  test('an abort cancels verify on the server', () =>
    during('LOCK TABLE trades IN ACCESS EXCLUSIVE MODE', async () => {
      const stop = new AbortController()
      const scope = { symbols: null, fromMs: null, toMs: null }
      const options = { scope, limit: 5, readEnds: async () => [], signal: stop.signal }
      const audit = failureOf(verify(server.database, options))
      await untilWaiting(1, 'relation')
      stop.abort(new Error('enough'))
      assert.match(String(await audit), /enough/)
    }))

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test(`${signal} ends a command and cancels its statement at the server`, async () => {
      await using command = startTapeline(['sql', '--timeout', '10m', 'SELECT pg_sleep(300)'], {
        env: { DATABASE_URL: server.url },
      })
      await untilWaiting(1)
      command.signal(signal)
      await command.assertExit(1, 10_000)
      assert.match(command.output(), new RegExp(`Interrupted by ${signal}`))
      await untilWaiting(0)
    })
  }
})
