import assert from 'node:assert/strict'
import { test } from 'node:test'
import { column } from './support/columns.ts'
import { createPipelineParts } from './support/pipeline-parts.ts'
import { startTapeline } from './support/processes.ts'
import {
  assertFramesCounted,
  startConsumerProcess,
  untilCaughtUp,
  untilGapsClosed,
} from './support/services.ts'

const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']

test('stores every trade once while the exchange drops, cuts, duplicates, corrupts, refuses and shuts down', async () => {
  await using parts = await createPipelineParts({ messagesPerSecond: 900 })
  const { database, exchange, env } = parts
  await using consumer = await startConsumerProcess(env)
  await consumer.ready()
  await using ingestion = await parts.ingest()
  await ingestion.ready()
  const flows = async (more: number) => {
    const { forwarded } = (await ingestion.status()).counters
    await ingestion.until(`${more} further messages`, ({ counters }) => counters.forwarded > forwarded + more)
  }
  await flows(500)
  for (const fault of [
    { kind: 'drop', stream: '*@trade', count: 30 },
    { kind: 'drop', stream: '*@aggTrade', count: 10 },
    { kind: 'duplicate', count: 200 },
    { kind: 'garbage', form: 'text', count: 3 },
    { kind: 'cut', how: 'reset' },
    { kind: 'restError', status: 500, count: 2 },
    { kind: 'refuse', status: 503, count: 1 },
    { kind: 'cut', how: 'end' },
    { kind: 'restShort', rows: 5, forMs: 4000 },
    { kind: 'drop', count: 40 },
    { kind: 'serverShutdown', graceMs: 3000 },
  ] as const) {
    exchange.faults.add(fault)
    await flows(300)
  }
  exchange.faults.clear()
  await flows(300)
  await untilGapsClosed(ingestion)
  const status = await ingestion.status()
  const { counters, rejectedByReason } = status
  assertFramesCounted(status)
  assert.ok(counters.backfilled > 0 && counters.duplicate > 0, 'the faults struck')
  assert.ok((rejectedByReason['not JSON'] ?? 0) > 0)
  await ingestion.stop()
  await untilCaughtUp(consumer)
  await consumer.stop()

  for (const symbol of SYMBOLS) {
    for (const [type, view, id] of [
      ['trade', 'raw_trades', 'trade_id'],
      ['aggTrade', 'agg_trades', 'agg_trade_id'],
    ] as const) {
      const { rows } = await database.query<{ id: string; text: string }>(
        `SELECT ${id} AS id, price || ' ' || quantity || ' ' || is_buyer_maker AS text FROM ${view} WHERE symbol = $1 ORDER BY ${id}`,
        [symbol],
      )
      const [first, last] = [Number(rows[0]?.id), Number(rows.at(-1)?.id)]
      const truth = exchange.history
        .events(type, symbol, first, last)
        .map((one) => `${one.price} ${one.quantity} ${one.isBuyerMaker}`)
      assert.deepEqual(column(rows, 'text'), truth, `${symbol} ${type}: the exchange's trades, each once`)
    }
  }
  await startTapeline(['verify'], { env: { DATABASE_URL: parts.databaseUrl } }).assertExit(0)
})
