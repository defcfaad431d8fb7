import assert from 'node:assert/strict'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { createArchive } from './support/archive-parts.ts'
import { createAuditedMarket } from './support/audited-market.ts'
import type { Pair } from './support/book-rows.ts'
import { startTapeline } from './support/processes.ts'
import { examplesOf, lastLine, pythonWithReaders } from './support/python-readers.ts'
import { eventValue, record } from './support/records.ts'

const DAY = '2026-01-02'
/** What to print of each example, in the order of the page, for the comparison. */
const PRINTS = [
  'print(day_list("raw_trades", "2026-01-02")["symbols"]["BTCUSDT"][0]["rows"])',
  'print(candles.aggregate("count(*), min(open), max(close), sum(volume)").fetchall())',
  'print(quoted.aggregate("count(*), min(bid_price), max(ask_price)").fetchall())',
  'print(candles.height, candles["open"][0], candles["close"][-1], format(candles["volume"].sum(), ".8f"))',
  'print(quoted.height, quoted["bid_price"].min(), quoted["ask_price"].max())',
  'print(len(candles), candles["open"].iloc[0], candles["close"].iloc[-1])',
  'print(*(f"{side} {price.normalize():f} {quantity.normalize():f}" for side, price, quantity in book.fetchall()), sep=", ")',
]

/** A snapshot with as many levels as its limit, changes until noon, and one after it. */
function depthMessages() {
  const noonMs = Date.parse(`${DAY}T12:00:00Z`)
  const stamps = (ms: number) => ({ ingestion_timestamp: ms, ingestion_timestamp_us: ms * 1000 })
  const diff = (U: number, u: number, b: Pair[], a: Pair[], E: number) =>
    record(eventValue('depth', { E, U, u, b, a, ...stamps(E) }))
  const bids: Pair[] = [
    ['99', '1'],
    ['98', '2'],
  ]
  const asks: Pair[] = [
    ['101', '3'],
    ['102', '4'],
  ]
  return [
    diff(1, 5, [], [], noonMs - 3000),
    record(eventValue('depthSnapshot', { lastUpdateId: 6, limit: 2, bids, asks, ...stamps(noonMs - 2500) })),
    // 97 is outside the horizon.
    diff(6, 9, [['99.5', '0.5']], [], noonMs - 2000),
    diff(10, 12, [['97', '8']], [['101', '0']], noonMs),
    diff(13, 14, [['99.5', '0']], [], noonMs + 1000),
  ]
}

test("the archive's examples run unchanged in DuckDB, polars and pandas, with the database's figures", async (t) => {
  const interpreter = await pythonWithReaders()
  if (typeof interpreter !== 'string') return t.skip(interpreter.skip)
  await using market = await createAuditedMarket('embedded')
  await using archive = await createArchive()
  await using adopting = startTapeline(['archive', 'adopt', '--day', DAY], {
    env: { DATABASE_URL: market.url, ARCHIVE_URL: archive.folder },
  })
  await adopting.assertExit(0, 60_000)
  await archive.add('depth', depthMessages())
  await archive.publish()
  // The examples name a folder `archive`.
  symlinkSync(archive.folder, join(archive.folder, 'archive'))
  const [helper = '', ...examples] = examplesOf('The archive')
  const said: string[] = []
  for (const [i, code] of ['', ...examples].entries())
    said.push(await lastLine(interpreter, `${helper}\n${code}\n${PRINTS[i]}`, archive.folder))
  const { rows } = await market.database.query<{
    trades: number
    hours: number
    volume: string
    opens: string
    closes: string
  }>(
    `SELECT count(*)::int AS trades, count(DISTINCT trade_time)::int AS hours, sum(quantity)::text AS volume,
       trim_scale((array_agg(price ORDER BY trade_id))[1])::text AS opens, trim_scale((array_agg(price ORDER BY trade_id DESC))[1])::text AS closes
     FROM raw_trades WHERE symbol = 'BTCUSDT' AND trade_time >= $1::timestamptz AND trade_time < $1::timestamptz + interval '1 day'`,
    [DAY],
  )
  const { trades, hours, volume, opens, closes } = rows[0] ?? assert.fail('nothing is stored')
  assert.equal(said.length, PRINTS.length)
  assert.equal(said[0], String(trades))
  assert.match(said[1] ?? '', new RegExp(`^\\[\\(${hours}, Decimal\\('${opens}`))
  assert.equal(said[2], `[(${trades}, Decimal('60000.00000000'), Decimal('60000.01000000'))]`)
  assert.equal(said[3], `${hours} ${opens} ${closes} ${volume}`)
  assert.equal(said[4], `${trades} 60000.00000000 60000.01000000`)
  assert.equal(said[5], `${hours} ${opens} ${closes}`)
  assert.equal(said[6], 'bid 99.5 0.5, bid 99 1, bid 98 2, ask 102 4')
})
