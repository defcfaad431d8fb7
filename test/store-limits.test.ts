import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, describe, test } from 'node:test'
import { startChunkMaintenance } from '../src/consumer/chunk-maintenance.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { failureKind } from '../src/foundation/store/failures.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { TextReader } from '../src/foundation/store/text-reader.ts'
import { UnansweredError } from '../src/foundation/store/unanswered.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { verify } from '../src/tools/verify/verify.ts'
import { createTestDatabase, databaseKinds, type TestDatabase } from './support/database.ts'
import { startTapeline } from './support/processes.ts'
import { type SilentProxy, startSilentProxy } from './support/silent-proxy.ts'
import { waitFor } from './support/wait-for.ts'

const [native] = databaseKinds()
const LIMIT_MS = 500

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => assert.fail('it did not end in an error'),
    (error: unknown) => error,
  )
}

describe('limits of long operations', { skip: native?.skip ?? false }, () => {
  let server: TestDatabase
  let direct: Database
  before(async () => {
    server = await createTestDatabase('native')
    direct = openPostgres({ url: server.url, poolMin: 0, poolMax: 4, applicationName: 'direct' })
  })
  after(async () => {
    await direct.close()
    await server.drop()
  })

  /** Statements of other connections that sleep, or wait for a table lock. */
  const waiting = async (event: 'PgSleep' | 'relation') => {
    const { rowCount } = await direct.query(
      'SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = $1',
      [event],
    )
    return rowCount
  }
  const untilWaiting = (count: number, event: 'PgSleep' | 'relation' = 'PgSleep') =>
    waitFor(async () => (await waiting(event)) === count, {
      timeoutMs: 30_000,
      what: `${count} statements in ${event}`,
    })

  describe('a database that stops answering', () => {
    let proxy: SilentProxy
    let database: Database
    beforeEach(async () => {
      proxy = await startSilentProxy(server.url)
      database = openPostgres({
        url: proxy.url,
        poolMin: 0,
        poolMax: 2,
        queryTimeoutMs: LIMIT_MS,
        applicationName: 'cut off',
      })
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
      const error = await failureOf(
        database.transaction(
          async () => {
            proxy.goSilent()
          },
          { limitMs: 60_000 },
        ),
      )
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
      await direct.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cut off'`,
      )
    })

    test('an export times out while it reads', async () => {
      const reader = await TextReader.open({ url: proxy.url, timeoutMs: LIMIT_MS, applicationName: 'test' })
      proxy.goSilent()
      assert.ok((await failureOf(reader.query('SELECT 1'))) instanceof UnansweredError)
      await reader.close()
    })
  })

  test('the server ends a step that exceeds its limit, and the error names the step', async () => {
    await direct.query(
      `CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(30); END $$`,
    )
    await direct.query(
      `CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION slowly()`,
    )
    try {
      const error = await failureOf(migrate(direct, { limitMs: LIMIT_MS }))
      assert.ok(error instanceof UnansweredError)
      assert.match(error.message, /^Migration 1 \(.*\): the database has not answered within 0.5 s$/)
      assert.equal(await waiting('PgSleep'), 0)
    } finally {
      await direct.query('DROP EVENT TRIGGER slow')
      await direct.query('DROP FUNCTION slowly')
    }
  })

  test('an abort cancels a migration and maintenance on the server', async () => {
    const slow = `CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$`
    const stop = new AbortController()
    await direct.query(
      `CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); END $$`,
    )
    await direct.query(
      `CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION slowly()`,
    )
    const migration = failureOf(migrate(direct, { signal: stop.signal }))
    await untilWaiting(1)
    stop.abort(new Error('enough'))
    assert.match(String(await migration), /enough/)
    assert.equal(await waiting('PgSleep'), 0)
    await direct.query('DROP EVENT TRIGGER slow')
    await direct.query('DROP FUNCTION slowly')

    await migrate(direct)
    await direct.query(
      `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
       SELECT now() - days * interval '1 day', 'BTCUSDT', 'trade', days, 1, 1, true, now() FROM generate_series(0, 9) AS days`,
    )
    await direct.query(slow)
    await direct.query('CREATE TRIGGER slow BEFORE INSERT ON meta FOR EACH ROW EXECUTE FUNCTION slowly()')
    const upkeep = startChunkMaintenance(
      direct,
      { retentionDays: 3, compressAfterDays: null },
      systemClock(),
      createLogger('test', 'silent'),
    )
    await untilWaiting(1)
    upkeep.stop()
    await untilWaiting(0)
    await direct.query('DROP TRIGGER slow ON meta')
    await direct.query('DROP FUNCTION slowly')
  })

  test('an abort cancels verify on the server', async () => {
    const stop = new AbortController()
    const held = Promise.withResolvers<void>()
    const taken = Promise.withResolvers<void>()
    const holding = direct.transaction(async (connection) => {
      await connection.query('LOCK TABLE trades IN ACCESS EXCLUSIVE MODE')
      taken.resolve()
      await held.promise
    })
    await taken.promise
    try {
      const audit = failureOf(
        verify(direct, {
          scope: { symbols: null, fromMs: null, toMs: null },
          limit: 5,
          readEnds: async () => [],
          signal: stop.signal,
        }),
      )
      await untilWaiting(1, 'relation')
      stop.abort(new Error('enough'))
      assert.match(String(await audit), /enough/)
    } finally {
      held.resolve()
      await holding
    }
  })

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
