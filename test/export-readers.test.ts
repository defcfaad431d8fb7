import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createAuditedMarket } from './support/audited-market.ts'
import { startTapeline } from './support/processes.ts'
import { examplesOf, lastLine, pythonWithReaders } from './support/python-readers.ts'

/** What to print of each example, in the order of the page, for the comparison. */
const PRINTS = [
  'print(candles.height, candles["open"][0], candles["close"][-1], format(candles["volume"].sum(), ".8f"))',
  'print(volumes.fetchall())',
  'print(quoted.aggregate("count(*), min(bid_price), max(ask_price)").fetchall())',
  'print(len(candles), candles["open"].iloc[0], candles["close"].iloc[-1])',
  '',
]

test("the polars, DuckDB and pandas examples run unchanged, with the database's figures", async (t) => {
  const interpreter = await pythonWithReaders()
  if (typeof interpreter !== 'string') return t.skip(interpreter.skip)
  const market = await createAuditedMarket('embedded')
  const folder = mkdtempSync(join(tmpdir(), 'readers-'))
  try {
    await using exported = startTapeline(
      [
        'export',
        'BTCUSDT,ETHUSDT',
        '--from',
        '2026-01-01',
        '--to',
        '2026-01-04',
        '--out',
        join(folder, 'exports'),
      ],
      { env: { DATABASE_URL: market.url, KAFKA_BROKERS: '127.0.0.1:1' } },
    )
    await exported.assertExit(0, 120_000)
    const examples = examplesOf('Exported files')
    assert.equal(examples.length, PRINTS.length)
    const said: string[] = []
    for (const [i, code] of examples.entries())
      said.push(await lastLine(interpreter, `${code}\n${PRINTS[i]}`, folder))
    const { rows } = await market.database.query<{
      of: string
      trades: number
      volume: string
      opens: string
      closes: string
    }>(
      `SELECT symbol AS of, count(*)::int AS trades, sum(quantity)::text AS volume, trim_scale((array_agg(price ORDER BY trade_id))[1])::text AS opens,
         trim_scale((array_agg(price ORDER BY trade_id DESC))[1])::text AS closes
       FROM raw_trades WHERE symbol = 'BTCUSDT' AND trade_time < '2026-01-05' GROUP BY symbol`,
    )
    const { trades, volume, opens, closes } = rows[0] ?? assert.fail('nothing is stored')
    const hours = trades / 2
    assert.equal(said[0], `${hours} ${opens} ${closes} ${volume}`)
    assert.match(said[1] ?? '', /'BTCUSDT'.*datetime.*24, Decimal\('[\d.E-]+'\)/)
    assert.equal((said[1]?.match(/Decimal/g) ?? []).length, 8)
    assert.match(said[2] ?? '', /Decimal\('60000.00000000'\), Decimal\('60000.01000000'\)/)
    assert.equal(said[3], `${hours} ${opens} ${closes}`)
    assert.equal(said[4], volume)
  } finally {
    await market.drop()
    rmSync(folder, { recursive: true, force: true })
  }
})
