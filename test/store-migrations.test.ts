import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, test } from 'node:test'
import type { Database } from '../src/foundation/store/database.ts'
import { checkSchema, migrate } from '../src/foundation/store/migrate.ts'
import { loadMigrations, renderMigrations } from '../src/foundation/store/migrations.ts'
import { applyRoles } from '../src/foundation/store/roles.ts'
import { type DatabaseKind, databaseKinds, type OpenDatabase, openTestDatabase } from './support/database.ts'
import { createTestTopics, type TestTopics } from './support/kafka.ts'
import { startTapeline } from './support/processes.ts'
import { startConsumerProcess } from './support/services.ts'

const NEWEST = loadMigrations().length

/** Two rows per table of version 1, with easily lost values: nulls, bytes, microseconds, digits. */
const ROWS_OF_VERSION_1 = `
INSERT INTO meta (key, value) VALUES ('source', 'binance'), ('other', '');
INSERT INTO trades VALUES
  ('2024-08-08 23:59:59.999', '2024-08-09 00:00:00.001', 'BTCUSDT', 'trade', 0, 9007199254740991, 0.00000001, 999999999999.99999999,
    NULL, NULL, true, '2024-08-08 23:54:15.400123', 'stream'),
  ('2024-08-10 00:00:00', NULL, 'BTCUSDT', 'aggTrade', 3, 7, 1, 2, 5, 6, false, '2024-08-10 00:00:01.000001', 'backfill');
INSERT INTO book_ticker VALUES
  ('2024-08-08 23:54:15.400123', 'BTCUSDT', 1, 1.5, 2, 1.6, 3), ('2024-08-10 00:00:00', 'ΩUSDT', 2, 0.00000001, 2, 1, 3);
INSERT INTO gaps VALUES
  ('g1', 2, 'BTCUSDT', 'trade', 0, 5, 9, NULL, NULL, 'reconnect', 'filled', NULL, '2024-08-08', '2024-08-09', '2024-08-09'),
  ('g2', 1, 'BTCUSDT', 'bookTicker', 1, NULL, NULL, '2024-08-08', '2024-08-09', 'restart', 'unrecoverable', 'no source', '2024-08-08', '2024-08-09', NULL);
INSERT INTO dead_letters (topic, topic_id, partition, kafka_offset, origin, reason, key, payload, failed_at, attempts, resolved_at) VALUES
  ('t', '0f0e0d0c-0b0a-0908-0706-050403020100', 0, 9, 'consumer', 'value is not UTF-8', NULL, '\\x00ff225c', '2024-08-08', 1, NULL),
  ('t', '0f0e0d0c-0b0a-0908-0706-050403020100', 1, 10, 'ingestion', 'not JSON', '\\x41', NULL, '2024-08-08', 4, '2024-08-09');
INSERT INTO consumer_offsets (topic, topic_id, partition, next_offset) VALUES
  ('t', '0f0e0d0c-0b0a-0908-0706-050403020100', 0, 100), ('t', '0f0e0d0c-0b0a-0908-0706-050403020100', 1, 9007199254740991);
`

/** The part of each table's rows that every later version must still show. */
const COLUMNS_OF_VERSION_1: Readonly<Record<string, string>> = {
  meta: 'key, value, updated_at',
  trades:
    'trade_time, event_time, symbol, event_type, epoch, trade_id, price, quantity, first_trade_id, last_trade_id, is_buyer_maker, ingestion_timestamp, source',
  book_ticker: 'ingestion_timestamp, symbol, update_id, bid_price, bid_quantity, ask_price, ask_quantity',
  gaps: 'gap_id, revision, symbol, event_type, epoch, from_id, to_id, from_time, to_time, cause, status, reason, detected_at, updated_at, closed_at',
  dead_letters:
    'topic, topic_id, partition, kafka_offset, origin, reason, key, payload, failed_at, attempts, resolved_at',
  consumer_offsets: 'topic, topic_id, partition, next_offset, updated_at',
}

let server: OpenDatabase
let database: Database

async function open(kind?: DatabaseKind): Promise<void> {
  server = await openTestDatabase('empty', kind)
  database = server.database
}

const close = () => server[Symbol.asyncDispose]()

/** Every row of every table of version 1, as the server prints it. */
async function everything(): Promise<Record<string, unknown>> {
  const tables: Record<string, unknown> = {}
  for (const [table, columns] of Object.entries(COLUMNS_OF_VERSION_1))
    tables[table] = (
      await database.query(`SELECT ROW(${columns})::text AS row FROM ${table} ORDER BY 1`)
    ).rows
  return tables
}

for (const { name, ...options } of databaseKinds()) {
  describe(`on the ${name} TimescaleDB`, options, () => {
    beforeEach(() => open(name))
    afterEach(close)

    // Starting the embedded one takes seconds; the steps are the same.
    const versions = name === 'native' ? [...new Set([1, NEWEST - 1])] : [1]
    for (const from of versions.filter((version) => version < NEWEST)) {
      test(`every row of version ${from} survives the migration to version ${NEWEST}, and more can be added`, async () => {
        await database.query(renderMigrations(loadMigrations().slice(0, from)))
        await database.query(ROWS_OF_VERSION_1)
        const before = await everything()
        for (const rows of Object.values(before)) assert.equal(Object(rows).length, 2)
        assert.deepEqual(await migrate(database), { from, to: NEWEST, notAllowed: [] })
        assert.deepEqual(await everything(), before)
        await checkSchema(database)
        // The same day again: unique rows must still be unique.
        await database.query(ROWS_OF_VERSION_1.replaceAll(';\n', ' ON CONFLICT DO NOTHING;\n'))
        assert.deepEqual(await everything(), before)
      })
    }

    test('a database created by the printed SQL has nothing left to migrate', async () => {
      await database.query(renderMigrations(loadMigrations()))
      await checkSchema(database)
      assert.equal((await migrate(database)).from, NEWEST)
    })

    test('rights can be granted again on one connection with existing chunks, without a server crash', async () => {
      await migrate(database)
      await database.query(ROWS_OF_VERSION_1)
      await database.transaction(async (connection) => {
        for (let time = 0; time < 3; time++) assert.deepEqual(await applyRoles(connection), [])
      })
      const { rows } = await database.query(
        `SELECT has_table_privilege('tapeline_writer', 'trades', 'INSERT') AS inserts,
           has_table_privilege('tapeline_writer', 'trades', 'DELETE') AS deletes`,
      )
      assert.deepEqual(rows, [{ inserts: true, deletes: false }])
    })

    test('a failed migration leaves the version and the tables unchanged', async () => {
      await database.query(renderMigrations(loadMigrations().slice(0, 1)))
      // This conflicts with a function that a later migration adds.
      await database.query('CREATE FUNCTION tapeline_roles() RETURNS integer LANGUAGE sql RETURN 1')
      await assert.rejects(migrate(database), /tapeline_roles.*already exists/)
      await assert.rejects(checkSchema(database), /schema is at version 1, this program needs/)
      await database.query('DROP FUNCTION tapeline_roles()')
      assert.equal((await migrate(database)).to, NEWEST)
    })
  })
}

describe('consumers as processes', () => {
  let topics: TestTopics
  let env: Record<string, string>
  beforeEach(async () => {
    await open()
    topics = await createTestTopics({ prefix: 'migrations' })
    env = { ...topics.env, DATABASE_URL: server.url, KAFKA_SESSION_TIMEOUT_MS: '6000' }
  })
  afterEach(async () => {
    await close()
    await topics.delete()
  })

  test('a consumer without the right to migrate refuses an old schema and a newer one, each with the fix', async () => {
    const checking = { ...env, MIGRATE_ON_START: 'false' }
    const refusal = async (...expected: RegExp[]) => {
      await using consumer = await startConsumerProcess(checking)
      await consumer.command.assertExit(1, 30_000)
      for (const pattern of expected) assert.match(consumer.command.output(), pattern)
    }
    const old = (version: number) =>
      new RegExp(`schema is at version ${version}, this program needs ${NEWEST}`)
    await refusal(old(0), /Run: bin\/tapeline migrate/)
    await database.query(renderMigrations(loadMigrations().slice(0, 1)))
    await refusal(old(1), /Run: bin\/tapeline migrate/)
    assert.deepEqual((await database.query('SELECT version FROM schema_migrations')).rows, [{ version: 1 }])
    await migrate(database)
    await database.query(`INSERT INTO schema_migrations (version, name) VALUES (${NEWEST + 1}, 'future')`)
    await refusal(/newer than this program supports/, /Use the newer version of tapeline/)
    await using command = startTapeline(['migrate'], { env })
    await command.assertExit(1)
    assert.match(command.output(), /newer than this program supports \(\d+\)\n {2}Use the newer version/)
  })
})
