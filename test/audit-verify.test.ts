import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { renderAudit } from '../src/audit/report.ts'
import { type Audit, audit, mayBeSettling, verify } from '../src/audit/verify.ts'
import type { Database } from '../src/store/database.ts'
import { migrate } from '../src/store/migrate.ts'
import { openPostgres } from '../src/store/postgres.ts'
import { createTestDatabase, type TestDatabase } from './support/database.ts'

let server: TestDatabase
let database: Database

before(async () => {
  server = await createTestDatabase()
  database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  await migrate(database)
  await database.query(
    `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
     SELECT timestamptz '2026-01-01' + id * interval '1 hour', symbol, type, id, 1, 1, true, now()
     FROM generate_series(1000, 1099) AS id, unnest('{BTCUSDT,ETHUSDT}'::text[]) AS symbol, unnest('{trade,aggTrade}'::text[]) AS type`,
  )
})

after(async () => {
  await database.close()
  await server.drop()
})

class Undo extends Error {}

/** What the audit says of one sequence, after a change that is undone. */
async function auditAfter(changes: readonly string[]) {
  let found: Audit | undefined
  await database
    .transaction(async (connection) => {
      for (const change of changes) await connection.query(change)
      found = await audit(connection)
      throw new Undo()
    })
    .catch((error: unknown) => assert.ok(error instanceof Undo, String(error)))
  assert.ok(found !== undefined)
  const sequence = found.sequences.find(
    ({ symbol, eventType }) => symbol === 'BTCUSDT' && eventType === 'trade',
  )
  return { audit: found, sequence: sequence ?? assert.fail('the sequence is gone') }
}

test('finds nothing in what is whole', async () => {
  const { audit } = await auditAfter([])
  assert.deepEqual(await verify(database), audit)
  assert.equal(audit.clean, true)
  assert.deepEqual(
    audit.sequences.map(({ rows, firstId, lastId }) => [rows, firstId, lastId]),
    Array(4).fill([100, 1000, 1099]),
  )
  assert.match(renderAudit(audit), /nothing doubled/)
})

test('finds a row that was removed, and names it', async () => {
  const { audit, sequence } = await auditAfter([
    "DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id IN (1005, 1006, 1050)",
  ])
  assert.equal(audit.clean, false)
  assert.deepEqual(sequence.unexplained, [
    { from: 1005, to: 1006 },
    { from: 1050, to: 1050 },
  ])
  assert.match(renderAudit(audit), /BTCUSDT trade: missing 1005\.\.1006, 1050/)
})

test('finds a trade that is stored twice under different times', async () => {
  const { audit, sequence } = await auditAfter([
    `INSERT INTO trades SELECT trade_time + interval '1 day', event_time, symbol, event_type, epoch, trade_id, price, quantity,
       first_trade_id, last_trade_id, is_buyer_maker, ingestion_timestamp, source
     FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id = 1020`,
  ])
  assert.equal(audit.clean, false)
  assert.deepEqual(sequence.doubled, [1020])
})

test('takes what the ledger or a dead letter names for explained, and no more than that', async () => {
  const gap = (status: string, from: number, to: number) =>
    `INSERT INTO gaps (gap_id, revision, symbol, event_type, from_id, to_id, cause, status, detected_at, updated_at)
     VALUES ('${status}', 1, 'BTCUSDT', 'trade', ${from}, ${to}, 'reconnect', '${status}', now(), now())`
  const { audit, sequence } = await auditAfter([
    "DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id BETWEEN 1010 AND 1019",
    gap('open', 1008, 1012),
    gap('unrecoverable', 1014, 1015),
    gap('filled', 1016, 1017),
    `INSERT INTO dead_letters (topic, topic_id, partition, kafka_offset, origin, reason, payload, failed_at)
     VALUES ('t', gen_random_uuid(), 0, 1, 'consumer', 'p is not a decimal',
       '{"e":"trade","s":"BTCUSDT","t":1013,"p":"abc"}', now())`,
  ])
  assert.equal(audit.clean, false)
  assert.equal(sequence.explained, 6)
  assert.deepEqual(sequence.unexplained, [{ from: 1016, to: 1019 }])
  assert.deepEqual(sequence.saidFilled, [{ from: 1016, to: 1017 }])
  assert.equal(mayBeSettling(audit), false, 'what nothing names is missing, however long one waits')
})

test('knows ids that only the ledger is ahead of from ids that are lost', async () => {
  const { audit, sequence } = await auditAfter([
    "DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id BETWEEN 1010 AND 1012",
    `INSERT INTO gaps (gap_id, revision, symbol, event_type, from_id, to_id, cause, status, detected_at, updated_at)
     VALUES ('g', 2, 'BTCUSDT', 'trade', 1010, 1015, 'restart', 'filled', now(), now())`,
  ])
  assert.equal(audit.clean, false, 'until they are stored they are missing')
  assert.deepEqual(sequence.saidFilled, [{ from: 1010, to: 1012 }])
  assert.equal(mayBeSettling(audit), true)
})

test('finds a quote that is stored twice under two receipts, and does not call that clean', async () => {
  const { audit } = await auditAfter([
    `INSERT INTO book_ticker SELECT now() + n * interval '1 second', 'BTCUSDT', 7, 1, 1, 2, 1 FROM generate_series(1, 2) AS n`,
  ])
  assert.equal(audit.clean, false)
  assert.match(renderAudit(audit), /BTCUSDT bookTicker: 1 doubled[\s\S]*NOT CLEAN/)
})

test('does not praise an empty database', () => {
  assert.match(
    renderAudit({ sequences: [], bookTickers: [], clean: true, notChecked: [] }),
    /nothing is stored, so nothing was audited/,
  )
})
