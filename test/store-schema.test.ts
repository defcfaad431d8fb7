import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type DeadLetterRow, insertDeadLetters } from '../src/foundation/dead-letters/dead-letter.ts'
import { Decoder } from '../src/foundation/kafka/message-decoder.ts'
import type { Gap } from '../src/foundation/market/gap.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import {
  advanceOffsets,
  readOffsets,
  takeBackOffset,
  writeStartOffsets,
} from '../src/foundation/store/consumer-offsets.ts'
import { upsertGaps } from '../src/foundation/store/ledger-rows.ts'
import { BOOK_TICKER, MarketRows, type MarketTable, TRADES } from '../src/foundation/store/market-rows.ts'
import { mark } from '../src/foundation/store/meta.ts'
import { checkSchema, migrate } from '../src/foundation/store/migrate.ts'
import { loadMigrations } from '../src/foundation/store/migrations.ts'
import { column } from './support/columns.ts'
import { databaseKinds, databaseOfSuite } from './support/database.ts'
import { aggTradeValue, bookTickerValue, gapRow, record, tradeValue } from './support/records.ts'

const TOPIC_ID = '0f0e0d0c-0b0a-0908-0706-050403020100'

function rowsOf(table: MarketTable, ...values: readonly Buffer[]): MarketRows {
  const rows = new MarketRows(table)
  const decoder = new Decoder()
  for (const value of values) {
    assert.equal(decoder.decode(table === TRADES ? 'trades' : 'bookTicker', record(value)), null)
    rows.add(decoder.event)
  }
  return rows
}

function letterOf(key: string | null, payload: string | Buffer | null): DeadLetterRow {
  const at = { topic: 't', topicId: TOPIC_ID, partition: 0, offset: 9, failedAtMs: 1723161255343 }
  const bytes = (text: string | Buffer | null) => (text === null ? null : Buffer.from(text))
  return { ...at, origin: 'consumer', reason: 'value is refused', key: bytes(key), payload: bytes(payload) }
}

for (const { name, ...options } of databaseKinds()) {
  describe(`on the ${name} TimescaleDB`, options, () => {
    const on = databaseOfSuite('empty', name)

    test('three consumers that start at once migrate an empty database once', async () => {
      const newest = loadMigrations().length
      await assert.rejects(
        checkSchema(on.database),
        new RegExp(`schema is at version 0, this program needs ${newest}$`),
      )
      const reports = await Promise.all([migrate(on.database), migrate(on.database), migrate(on.database)])
      assert.deepEqual(reports.map(({ from }) => from).sort(), [0, newest, newest])
      await checkSchema(on.database)
      const { rows } = await on.database.query(
        'SELECT hypertable_name FROM timescaledb_information.hypertables ORDER BY 1',
      )
      assert.deepEqual(column(rows, 'hypertable_name'), [
        'book_ticker',
        'depth_snapshots',
        'depth_updates',
        'trades',
      ])
    })

    test('stores every digit and every microsecond unchanged, and a trade once', async () => {
      const value = tradeValue({
        ...{ s: 'NULL', t: Number.MAX_SAFE_INTEGER, E: undefined, T: 1723161599999 },
        ...{ p: '0.00000001', q: '999999999999.99999999', source: 'backfill' },
      })
      const trades = rowsOf(TRADES, value)
      assert.deepEqual(await trades.insert(on.database), [{ type: 'trade', symbol: 'NULL', rows: 1 }])
      assert.deepEqual(await trades.insert(on.database), [])
      const { rows } = await on.database.query(
        `SELECT price::text, quantity::text, trade_id::text, symbol, event_time, trade_time::text, ingestion_timestamp::text
         FROM raw_trades`,
      )
      assert.deepEqual(rows, [
        {
          ...{ price: '0.00000001', quantity: '999999999999.99999999' },
          trade_id: String(Number.MAX_SAFE_INTEGER),
          symbol: 'NULL',
          event_time: null,
          trade_time: '2024-08-08 23:59:59.999+00',
          ingestion_timestamp: '2024-08-08 23:54:15.400123+00',
        },
      ])
    })

    test('keeps a trade and an aggTrade with the same id, and quotes of the same receipt millisecond, separate', async () => {
      await rowsOf(TRADES, tradeValue({ t: 7 })).insert(on.database)
      assert.equal((await rowsOf(TRADES, aggTradeValue({ a: 7 })).insert(on.database)).length, 1)
      const receipts = [1723161255400001, 1723161255400002]
      const quotes = rowsOf(
        BOOK_TICKER,
        ...receipts.map((ingestion_timestamp_us) => bookTickerValue({ ingestion_timestamp_us })),
      )
      assert.deepEqual(await quotes.insert(on.database), [{ type: 'bookTicker', symbol: 'BTCUSDT', rows: 2 }])
      assert.deepEqual(await quotes.insert(on.database), [])
    })

    test('the highest revision of a gap counts in any order, and a redelivered older one reverts nothing', async () => {
      const gap = gapRow({ status: 'filled' })
      assert.equal(await upsertGaps(on.database, [gap]), 1)
      const older: Gap = { ...gap, revision: 1, status: 'open', closed_at: null }
      assert.equal(await upsertGaps(on.database, [older]), 0)
      const newer: Gap = { ...gap, revision: 3, status: 'unrecoverable', reason: 'too large' }
      assert.equal(await upsertGaps(on.database, [older, newer, older]), 1)
      const { rows } = await on.database.query('SELECT revision, status, reason, from_id::int FROM gaps')
      assert.deepEqual(rows, [{ revision: 3, status: 'unrecoverable', reason: 'too large', from_id: 5 }])
    })

    test('stores a dead letter once, including bytes that are not UTF-8', async () => {
      const letter = letterOf(null, Buffer.from([0, 0xff, 0x22, 0x5c]))
      assert.equal(await insertDeadLetters(on.database, [letter]), 1)
      assert.equal(await insertDeadLetters(on.database, [letter]), 0)
      const { rows } = await on.database.query<{ payload: Buffer; key: null }>(
        'SELECT payload, key FROM dead_letters',
      )
      assert.deepEqual([rows[0]?.payload, rows[0]?.key], [letter.payload, null])
    })

    test('keeps a second dead letter at an offset that a truncated partition reused', async () => {
      await on.database.query('TRUNCATE dead_letters')
      const different = [
        ...[letterOf('a', 'b'), letterOf('a', 'a'), letterOf('ab', ''), letterOf('ab', null)],
        ...[letterOf(null, 'ab'), letterOf('', 'ab'), letterOf(null, null)],
      ]
      assert.equal(await insertDeadLetters(on.database, different), different.length)
      assert.equal(await insertDeadLetters(on.database, different), 0)
    })

    test('advances an offset only over stored messages, and never moves it back', async () => {
      const at = (nextOffset: number, leaderEpoch = nextOffset / 100) => {
        return { topic: 't', topicId: TOPIC_ID, partition: 0, nextOffset, leaderEpoch }
      }
      const advance = (firstOffset: number, nextOffset: number) =>
        advanceOffsets(on.database, [{ ...at(nextOffset, Math.ceil(nextOffset / 100)), firstOffset }])
      await writeStartOffsets(on.database, [at(100)])
      assert.equal(await advance(100, 200), 'advanced')
      assert.equal(await advance(201, 300), 'moved', 'a batch above the stored offset would leave a gap')
      assert.equal(await advance(150, 180), 'advanced', 'a redelivered batch is accepted')
      assert.deepEqual(await readOffsets(on.database), [at(200)], 'and moves no offset back')
      const other = { ...at(300), topicId: 'ffffffff-0b0a-0908-0706-050403020100', firstOffset: 200 }
      assert.equal(await advanceOffsets(on.database, [other]), 'recreated', 'it is another topic')
      await takeBackOffset(on.database, at(300))
      assert.deepEqual(await readOffsets(on.database), [at(200)], 'unstored messages are not skipped')
      await takeBackOffset(on.database, at(150, 1))
      assert.deepEqual(await readOffsets(on.database), [at(150, 1)], 'a truncated log is read again')
    })

    test('rolls back a whole batch when a part of it fails, and returns a clean connection', async () => {
      const before = await on.database.query('SELECT count(*)::int AS n FROM trades')
      await assert.rejects(
        on.database.transaction(async (connection) => {
          await rowsOf(TRADES, tradeValue({ t: 99 })).insert(connection)
          await connection.query('SELECT 1/0')
        }),
        /division by zero/,
      )
      assert.deepEqual((await on.database.query('SELECT count(*)::int AS n FROM trades')).rows, before.rows)
    })

    test('keeps the mark of its first source permanently', async () => {
      assert.equal(await mark(on.database, 'source', 'simulated'), 'simulated')
      assert.equal(await mark(on.database, 'source', 'binance'), 'simulated')
    })

    test('refuses a database that is newer than the program', async () => {
      const newer = loadMigrations().length + 1
      await on.database.query('INSERT INTO schema_migrations (version, name) VALUES ($1, $2)', [
        newer,
        'from_the_future',
      ])
      for (const attempt of [migrate, checkSchema]) {
        await assert.rejects(
          attempt(on.database),
          (error) => error instanceof TapelineError && /newer than this program/.test(error.message),
        )
      }
    })
  })
}
