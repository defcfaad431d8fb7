import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { createAuditedMarket, outageSql } from './support/audited-market.ts'
import { diffOf, type Pair, snapshotOf } from './support/book-rows.ts'
import { databaseKinds } from './support/database.ts'
import { ended } from './support/ended.ts'
import { insertDepth } from './support/stored-depth.ts'

const ROOT = resolve(import.meta.dirname, '..')
const DAY = "symbol = 'BTCUSDT' AND trade_time >= '2026-01-01' AND trade_time < '2026-01-02'"

const NOON_US = Date.UTC(2026, 0, 1, 12) * 1000
const ASKS: Pair[] = [
  ['60001', '0.5'],
  ['60003', '2'],
  ['60004', '9'],
]
const SNAPSHOT = snapshotOf(5, [['60000', '1']], ASKS, { limit: 1000, receivedUs: NOON_US - 2_000_000 })
const LATER_SNAPSHOT = snapshotOf(25, [['60000', '1']], ASKS, { receivedUs: NOON_US + 9_000_000 })
/** Two joined changes at noon, and one after a hole. */
const DIFFS = [
  { ...diffOf(1, 5, [], []), eventTimeUs: NOON_US - 1_000_000, receivedUs: NOON_US - 1_000_000 },
  { ...diffOf(6, 9, [['59999.5', '4']], [['60003', '1']]), eventTimeUs: NOON_US, receivedUs: NOON_US },
  { ...diffOf(21, 30, [], []), eventTimeUs: NOON_US + 5_000_000, receivedUs: NOON_US + 5_000_000 },
]
const BOOK_HOLE = `INSERT INTO gaps (gap_id, revision, symbol, event_type, epoch, from_id, to_id, from_time, to_time, cause, status, detected_at, updated_at)
  VALUES ('book', 1, 'BTCUSDT', 'depth', 0, 10, 20, '2026-01-01 12:00:00', '2026-01-01 12:00:05', 'shutdown', 'unrecoverable', now(), now())`

interface Trade {
  readonly hour: number
  readonly id: number
  readonly price: number
  readonly quantity: number
  readonly maker: boolean
}

/** The recipes of a page, by their heading. */
function recipes(page: string): Array<{ heading: string; sql: string }> {
  let heading = ''
  return [
    ...readFileSync(join(ROOT, page), 'utf8').matchAll(
      /^#+ (.+)$|^ *```sql(?: database)?\n([\s\S]*?)^ *```/gm,
    ),
  ].flatMap(([, title, sql]) => {
    heading = title ?? heading
    return sql === undefined ? [] : [{ heading, sql }]
  })
}

for (const { name, ...options } of databaseKinds()) {
  test(
    `the SQL of the docs runs unchanged and its figures are right, on the ${name} TimescaleDB`,
    options,
    async () => {
      await using market = ended(await createAuditedMarket(name), 'drop')
      const { database } = market
      const ask = async (heading: string, which = 0) => {
        const sql = recipes('docs/recipes.md').filter((one) => one.heading === heading)[which]?.sql
        assert.ok(sql !== undefined, heading)
        return (await database.query(sql)).rows
      }
      await insertDepth(database, DIFFS, [SNAPSHOT, LATER_SNAPSHOT])
      await database.query(BOOK_HOLE)
      await database.query(outageSql('2026-01-02T10:00:00Z', '2026-01-02T10:00:07Z'))
      let run = 0
      for (const page of globSync('docs/*.md', { cwd: ROOT })) {
        for (const { heading, sql } of recipes(page)) {
          // This one generates a day of rows for measurements.
          if (!/^\s*(SELECT|WITH)/.test(sql)) continue
          await database.query(sql).catch((error: unknown) => {
            throw new Error(`${page}, ${heading}`, { cause: error })
          })
          run++
        }
      }
      assert.ok(run >= 14, `${run} were run`)
      const runBook = readFileSync(join(ROOT, 'docs/operations.md'), 'utf8')
      const queries = [...runBook.matchAll(/`(SELECT [^`]+)`/g)].map(([, query = '']) => query)
      assert.ok(queries.length >= 4, `${queries.length} queries`)
      for (const query of queries)
        await database.query(query).catch((error: unknown) => assert.fail(`${query}: ${error}`))

      const { rows: trades } = await database.query<Trade>(
        `SELECT extract(hour FROM trade_time)::int AS hour, trade_id::int AS id, price::float8 AS price, quantity::float8 AS quantity,
           is_buyer_maker AS maker FROM raw_trades WHERE ${DAY} ORDER BY trade_id`,
      )
      assert.ok(trades.length > 10)
      const hours = Map.groupBy(trades, ({ hour }) => hour)
      assert.deepEqual(
        (await ask('Candles', 1))
          .filter(({ symbol }) => symbol === 'BTCUSDT')
          .map((row) => numbers(row, ['open', 'high', 'low', 'close', 'volume'])),
        [...hours.values()].map((of) => [
          of[0]?.price,
          Math.max(...of.map(({ price }) => price)),
          Math.min(...of.map(({ price }) => price)),
          of.at(-1)?.price,
          round(sum(of.map(({ quantity }) => quantity))),
        ]),
      )
      assert.deepEqual(
        (await ask('Who took: buyers or sellers')).map((row) => numbers(row, ['bought', 'sold'])),
        [...hours.values()].map((of) =>
          [false, true].map((maker) =>
            round(sum(of.filter((one) => one.maker === maker).map((one) => one.quantity))),
          ),
        ),
      )
      const { rows: all } = await database.query<Trade>(
        "SELECT price::float8 AS price, quantity::float8 AS quantity FROM raw_trades WHERE symbol = 'BTCUSDT' AND trade_time < '2026-01-05'",
      )
      const [vwap] = await ask('Volume-weighted average price')
      const expected = sum(all.map((one) => one.price * one.quantity)) / sum(all.map((one) => one.quantity))
      assert.ok(Math.abs(Number(vwap?.['vwap']) - expected) < 1e-6, `${vwap?.['vwap']} and ${expected}`)

      const { rows: quotes } = await database.query<{ bid: number; ask: number; bps: number }>(
        `SELECT book_ticker.bid_price::float8 AS bid, book_ticker.ask_price::float8 AS ask, spread_bps::float8 AS bps
         FROM book_ticker JOIN spreads USING (symbol, ingestion_timestamp)
         WHERE symbol = 'BTCUSDT' ORDER BY ingestion_timestamp LIMIT 1`,
      )
      for (const { bid, ask, bps } of quotes)
        assert.ok(Math.abs(bps - (10_000 * (ask - bid)) / ((ask + bid) / 2)) < 1e-6)
      assert.equal(quotes.length, 1)
      const book = await ask('Order books')
      assert.deepEqual(
        book.map(({ side, price, quantity, total }) => [side, price, quantity, total].join(' ')),
        ['bid 60000 1 1', 'bid 59999.5 4 5', 'ask 60001 0.5 0.5', 'ask 60003 1 1.5', 'ask 60004 9 10.5'],
      )
      assert.deepEqual(book[0]?.['update_id'], '9')
      // 0.5 at 60001, 1 at 60003, 0.5 at 60004.
      const [bought] = await ask('Order books', 1)
      assert.deepEqual([Number(bought?.['bought']), Number(bought?.['average_price'])], [2, 60002.75])
      assert.deepEqual(
        (await ask('Order books', 2)).map(({ from_id, to_id, known_again }) => [from_id, to_id, known_again]),
        [['10', '20', new Date((NOON_US + 9_000_000) / 1000)]],
      )
      assert.deepEqual(
        (await ask('Stored and missing data', 2)).map(({ symbol, seconds }) => [symbol, Number(seconds)]),
        [['BTCUSDT', 7]],
      )
    },
  )
}

function numbers(row: Record<string, unknown>, names: readonly string[]): number[] {
  return names.map((name) => round(Number(row[name])))
}

/** Sums of binary fractions differ in their last digits. */
function round(value: number): number {
  return Number(value.toFixed(8))
}

function sum(values: readonly number[]): number {
  return values.reduce((all, one) => all + one, 0)
}
