import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { Batch } from '../src/consumer/batch.ts'
import { databaseStore } from '../src/consumer/database-store.ts'
import { Decoder } from '../src/foundation/kafka/message-decoder.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { CopyRows } from '../src/foundation/store/copy-rows.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { column } from './support/columns.ts'
import { databaseKinds, databaseOfSuite, openTestDatabase } from './support/database.ts'
import { aggTradeValue, bookTickerValue, record, tradeValue } from './support/records.ts'

const LOG = createLogger('test', 'silent')
const TOPIC_ID = '0f0e0d0c-0b0a-0908-0706-050403020100'
const START = { topic: 't', topicId: TOPIC_ID, partition: 0, nextOffset: 0, leaderEpoch: -1 }
/** Enough rows that each integer part occurs with each fraction. */
const ROWS = 360

/** Every kind of value: nulls, odd symbols, the limits of each column, decimals of every length. */
function addMessages(batch: Batch): void {
  const symbols = ['BTCUSDT', 'NULL', 'N', '币安人生USDT', '1000SATS']
  const wholes = ['0', '7', '10', '999', '1234', '20000', '61837', '999999999999']
  const fractions = ['', '.1', '.01', '.120', '.0001', '.00001', '.63000000', '.00000001', '.99999999']
  const decoder = new Decoder()
  const add = (kind: 'trades' | 'bookTicker', value: Buffer, epoch: number) => {
    const message = record(value, null, { epoch: String(epoch) })
    assert.equal(decoder.decode(kind, message), null, value.toString())
    batch.add(kind, decoder, START, message)
  }
  for (let i = 0; i < ROWS; i++) {
    const s = symbols[i % symbols.length]
    const p = `${wholes[i % wholes.length]}${fractions[i % fractions.length]}`
    const q = `${wholes[(i + 3) % wholes.length]}${fractions[(i + 5) % fractions.length]}`
    const source = i % 10 === 5 ? 'archive' : i % 10 === 0 ? 'backfill' : undefined
    const ingestion_timestamp_us = 1_723_161_599_999_998 + i
    const common = {
      E: source === undefined ? 1_723_161_600_000 + i : undefined,
      ...{ s, p, q, T: 1_723_161_599_000 + i * 37, m: i % 2 === 0, ingestion_timestamp_us },
      source,
    }
    const id = i === 7 ? Number.MAX_SAFE_INTEGER : i
    const isInvalidated = i % 9 === 0
    const value =
      i % 3 === 0
        ? aggTradeValue({ ...common, a: id, f: isInvalidated ? -1 : i, l: isInvalidated ? -1 : i + 5 })
        : tradeValue({ ...common, t: id })
    add('trades', value, i % 2)
    add('bookTicker', bookTickerValue({ s, u: i, b: p, B: q, a: q, A: p, ingestion_timestamp_us }), 0)
  }
}

function batch(): Batch {
  const made = new Batch(0)
  addMessages(made)
  made.advance(START, 0, { next: 2 * ROWS, leaderEpoch: 0, receivedUs: null })
  return made
}

for (const { name, ...options } of databaseKinds()) {
  describe(`on the ${name} TimescaleDB`, options, () => {
    const on = databaseOfSuite('migrated', name)

    const stored = async () => {
      const trades = await on.database.query('SELECT trades::text AS row FROM trades ORDER BY 1')
      const quotes = await on.database.query('SELECT book_ticker::text AS row FROM book_ticker ORDER BY 1')
      return [...trades.rows, ...quotes.rows]
    }
    const empty = () => on.database.query('TRUNCATE trades, book_ticker, consumer_offsets')
    const established = async () => {
      const store = databaseStore(on.database, systemClock(), LOG)
      await store.establish(() => ({ positions: [START], toWrite: [START], losses: [], notices: [] }))
      return store
    }

    test('W4 a new batch is stored as INSERT would store it, and counted by symbol', async () => {
      const inserted = batch()
      await inserted.rows.trades.insert(on.database)
      await inserted.rows.book_ticker.insert(on.database)
      const expected = await stored()
      assert.equal(expected.length, 2 * ROWS)
      await empty()

      const store = await established()
      const written = await store.write(batch())
      assert.deepEqual(await stored(), expected)
      assert.equal(written.inserted, 2 * ROWS)
      const ofNull = written.rows
        .filter(({ symbol }) => symbol === 'NULL')
        .map(({ type, rows }) => [type, rows])
      assert.deepEqual(ofNull.sort(), [
        ['aggTrade', 24],
        ['bookTicker', 72],
        ['trade', 48],
      ])
    })

    test('W4 a partly stored batch adds the rest, once', async () => {
      await empty()
      const store = await established()
      await batch().rows.trades.insert(on.database, 0, 15)
      assert.equal((await store.write(batch())).inserted, 2 * ROWS - 15)
      assert.equal((await store.write(batch())).inserted, 0)
      assert.equal((await stored()).length, 2 * ROWS)
    })

    describe('W4 a batch that exceeds a limit of a transaction (53400)', () => {
      /** Limits rows per transaction, as TimescaleDB limits the rows that it may decompress. */
      const limitTo = async (rows: number) => {
        await empty()
        await on.database.query(
          `CREATE OR REPLACE FUNCTION limited() RETURNS trigger LANGUAGE plpgsql AS $$
           DECLARE seen int := coalesce(nullif(current_setting('test.seen', true), ''), '0')::int + 1;
           BEGIN
             IF seen > ${rows} THEN RAISE EXCEPTION 'limit exceeded' USING ERRCODE = '53400'; END IF;
             PERFORM set_config('test.seen', seen::text, true);
             RETURN NEW;
           END $$`,
        )
        for (const table of ['trades', 'book_ticker'])
          await on.database.query(
            `CREATE OR REPLACE TRIGGER limited BEFORE INSERT ON ${table} FOR EACH ROW EXECUTE FUNCTION limited()`,
          )
      }
      after(() => on.database.query('DROP FUNCTION limited CASCADE'))

      test('is stored once, in portions that fit, with its offsets in the last', async () => {
        await limitTo(80)
        const store = await established()
        const written = await store.write(batch())
        assert.equal(written.inserted, 2 * ROWS)
        assert.equal(
          written.rows.reduce((sum, { rows }) => sum + rows, 0),
          2 * ROWS,
        )
        assert.equal((await stored()).length, 2 * ROWS)
        assert.equal((await store.write(batch())).inserted, 0)
        const [step] = batch().steps.values()
        assert.deepEqual(column(await store.readOffsets(), 'nextOffset'), [step?.nextOffset])
      })

      test('stops the consumer when no row fits, with the limit in the message', async () => {
        await limitTo(0)
        const store = await established()
        await assert.rejects(store.write(batch()), (error: unknown) => {
          assert.ok(error instanceof TapelineError)
          assert.match(error.message, /single row exceeds a limit .*53400 limit exceeded/)
          assert.match(error.fix, /max_tuples_decompressed_per_dml_transaction/)
          return true
        })
      })
    })
  })
}

const [native] = databaseKinds()
test('an error early in a large COPY rejects it, and the session stays usable', {
  skip: native?.skip,
}, async () => {
  await using server = await openTestDatabase('empty', 'native')
  const { database } = server
  await database.query('CREATE TABLE numbers (n bigint PRIMARY KEY, word text)')
  const rows = new CopyRows([
    ['n', 'bigint'],
    ['word', 'text'],
  ])
  // More than the buffers of the socket: the error arrives while rows are still being sent.
  for (let n = 0; n < 200_000; n++) {
    rows.begin()
    rows.bigint(Math.max(1, n))
    rows.text(Buffer.alloc(100, 'x'))
  }
  const copy = (bytes: Buffer) =>
    database.transaction((connection) =>
      connection.copyIn('COPY numbers (n, word) FROM STDIN (FORMAT binary)', bytes),
    )
  await assert.rejects(copy(rows.bytes), { code: '23505' })
  rows.remove(0)
  assert.equal(await copy(rows.bytes), 199_999)
})
