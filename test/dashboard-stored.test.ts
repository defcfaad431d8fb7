import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readSeries, readStored } from '../src/tools/dashboard/stored.ts'
import { createAuditedMarket, deadLetterSql, gapSql, outageSql } from './support/audited-market.ts'

test('the newest row of each symbol is shown, also after an id reset', async () => {
  await using market = await createAuditedMarket()
  const { database } = market
  const before = await readStored(database, ['BTCUSDT', 'NOSUCH'])
  const [btc, none] = before.symbols
  const { rows } = await database.query<{ price: string; bid: string }>(
    `SELECT (SELECT price::text FROM raw_trades WHERE symbol = 'BTCUSDT' ORDER BY trade_time DESC, trade_id DESC LIMIT 1) AS price,
     (SELECT bid_price::text FROM book_ticker WHERE symbol = 'BTCUSDT' ORDER BY ingestion_timestamp DESC LIMIT 1) AS bid`,
  )
  assert.deepEqual([btc?.price, btc?.bid], [rows[0]?.price, rows[0]?.bid])
  assert.deepEqual([none?.price, none?.bid, none?.tradeTimeMs], [null, null, null])
  assert.deepEqual([before.gaps, before.deadLetters, before.unresolvedDeadLetters], [[], [], 0])

  await database.query(
    `INSERT INTO trades SELECT trade_time + interval '1 second', event_time, symbol, event_type, 1, 3, 77.5, quantity, NULL, NULL,
     is_buyer_maker, ingestion_timestamp, 'stream'
   FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' ORDER BY trade_id DESC LIMIT 1`,
  )
  await database.query(gapSql('open', 5, 9))
  await database.query(gapSql('filled', 20, 21))
  await database.query(outageSql('2026-01-02T10:00:00Z', '2026-01-02T10:00:07Z'))
  for (const offset of [1, 2]) await database.query(deadLetterSql(offset, 'x'))
  const after = await readStored(database, ['BTCUSDT'])
  assert.equal(after.symbols[0]?.price, '77.50000000')
  assert.deepEqual([after.gaps[0]?.status, after.gaps.length], ['open', 3])
  assert.deepEqual(after.gapsByStatus, { open: 1, filled: 1, unrecoverable: 1 })
  assert.deepEqual([after.deadLetters.length, after.unresolvedDeadLetters], [2, 2])
  const series = await readSeries(database, 'BTCUSDT')
  assert.equal(series.at(-1)?.price, 77.5)
  assert.deepEqual(await readSeries(database, 'NOSUCH'), [])
})
