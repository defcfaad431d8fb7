import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createTestDatabase } from './support/database.ts'
import { createTestTopics } from './support/kafka.ts'
import { startTapeline } from './support/processes.ts'
import { startConsumerProcess, startIngestionProcess, untilCaughtUp } from './support/services.ts'
import { waitFor } from './support/wait-for.ts'

const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']

test('stores every trade once while the exchange drops, cuts, duplicates, corrupts, refuses and shuts down', async () => {
  const topics = await createTestTopics({ prefix: 'faults' })
  const server = await createTestDatabase()
  const database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  const exchange = await startSimulatedExchange({ messagesPerSecond: 900 })
  const env = {
    ...topics.env,
    DATABASE_URL: server.url,
    BINANCE_WS_URL: exchange.wsUrl,
    BINANCE_REST_URL: exchange.restUrl,
    FLUSH_INTERVAL_MS: '200',
    BACKOFF_INITIAL_MS: '100',
    BACKOFF_MAX_MS: '1000',
  }
  try {
    await using consumer = await startConsumerProcess(env)
    await consumer.ready()
    await using ingestion = await startIngestionProcess(env)
    await ingestion.ready()
    const flows = async (more: number) => {
      const { forwarded } = (await ingestion.status()).counters
      await waitFor(async () => (await ingestion.status()).counters.forwarded > forwarded + more, {
        timeoutMs: 30_000,
        what: `${more} further messages`,
      })
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
    await waitFor(async () => (await ingestion.status()).openGaps.length === 0, {
      timeoutMs: 60_000,
      what: 'every gap to be filled',
    })
    const { counters, rejectedByReason } = await ingestion.status()
    assert.ok(counters.backfilled > 0 && counters.duplicate > 0, 'the faults struck')
    assert.ok((rejectedByReason['not JSON'] ?? 0) > 0)
    const { received, forwarded, duplicate, control, ignored, rejected, held } = counters
    assert.equal(received, forwarded + duplicate + control + ignored + rejected + held)
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
        assert.deepEqual(
          rows.map(({ text }) => text),
          exchange.history
            .events(type, symbol, first, last)
            .map((one) => `${one.price} ${one.quantity} ${one.isBuyerMaker}`),
          `${symbol} ${type}: the exchange's trades, each once`,
        )
      }
    }
    await startTapeline(['verify'], { env: { DATABASE_URL: server.url } }).assertExit(0)
  } finally {
    await database.close()
    await server.drop()
    await exchange.close()
    await topics.delete()
  }
})
