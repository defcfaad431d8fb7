import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { startChunkMaintenance } from '../src/consumer/chunk-maintenance.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { failureKind } from '../src/foundation/store/failures.ts'
import { checkSchema, MigrationUnderWayError, migrate } from '../src/foundation/store/migrate.ts'
import { LOCK_SQL } from '../src/foundation/store/migrations.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { createTestDatabase, databaseKinds, type TestDatabase } from './support/database.ts'
import { waitFor } from './support/wait-for.ts'

const [native] = databaseKinds()

/** Longer than the limit of the pools here, like a big table. */
const SLOW = `CREATE FUNCTION slowly() RETURNS LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURNVALUE; END $$`

describe("operations longer than the limit of a batch's statement", { skip: native?.skip ?? false }, () => {
  let server: TestDatabase
  let database: Database
  before(async () => {
    server = await createTestDatabase('native')
    database = openPostgres({
      url: server.url,
      poolMin: 0,
      poolMax: 4,
      queryTimeoutMs: 1000,
      applicationName: 'hurried',
    })
  })
  after(async () => {
    await database.close()
    await server.drop()
  })
  beforeEach(async () => {
    await database.query('DROP FUNCTION IF EXISTS slowly() CASCADE')
  })

  const definedAs = (returns: string, value: string) =>
    SLOW.replace('RETURNS', `RETURNS ${returns}`).replace('RETURNVALUE', `RETURN${value}`)

  test("a wait for the migration lock times out, names the lock's owner, and may be retried", async () => {
    const taken = Promise.withResolvers<void>()
    const held = Promise.withResolvers<void>()
    const holding = database.transaction(async (connection) => {
      await connection.query(LOCK_SQL)
      taken.resolve()
      await held.promise
    })
    await taken.promise
    const error = await migrate(database, { lockTimeoutMs: 300 }).then(
      () => assert.fail('it did not wait'),
      (reason: unknown) => reason,
    )
    held.resolve()
    await holding
    assert.ok(error instanceof MigrationUnderWayError)
    assert.match(
      error.message,
      /^Another process is migrating this database \(hurried, pid \d+\): its lock .* within 0\.3 s$/,
    )
    assert.equal(failureKind(error), 'retry')
  })

  test('a migration does not time out', async () => {
    await database.query(definedAs('event_trigger', ''))
    await database.query(
      `CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION slowly()`,
    )
    await migrate(database)
    await database.query('DROP EVENT TRIGGER slow')
    await checkSchema(database)
  })

  test('maintenance does not time out', async () => {
    await migrate(database)
    await database.query(
      `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
       SELECT now() - days * interval '1 day', 'BTCUSDT', 'trade', days, 1, 1, true, now() FROM generate_series(0, 9) AS days`,
    )
    await database.query(definedAs('trigger', ' NEW'))
    await database.query('CREATE TRIGGER slow BEFORE INSERT ON meta FOR EACH ROW EXECUTE FUNCTION slowly()')
    const maintenance = startChunkMaintenance(
      database,
      { retentionDays: 3, compressAfterDays: null },
      systemClock(),
      createLogger('test', 'silent'),
    )
    try {
      await waitFor(
        async () =>
          (await database.query("SELECT 1 FROM meta WHERE key = 'retention:trades'")).rowCount === 1,
        { timeoutMs: 30_000, what: 'the old chunks to be dropped' },
      )
    } finally {
      maintenance.stop()
    }
  })

  test('other statements still time out; otherwise a batch would wait indefinitely for a dead server', async () => {
    await assert.rejects(database.query('SELECT pg_sleep(20)'), /has not answered within 1 s/)
    await assert.rejects(
      database.transaction((connection) => connection.query('SELECT pg_sleep(20)')),
      /has not answered within 1 s/,
    )
  })
})
