import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { createIngestionParts } from './support/ingestion-parts.ts'
import { assertNoneMissing, idsByStream } from './support/messages.ts'

/** Duration of the test with 1,000 symbols, in minutes; unset skips it. */
const MINUTES = Number(process.env['TAPELINE_TEST_SYMBOLS_MINUTES'] ?? 0)

const SYMBOLS = Array.from({ length: 1000 }, (_, index) => `S${String(index).padStart(3, '0')}USDT`)
const [LISTED, HALTED, DELISTED] = [SYMBOLS.slice(0, 50), SYMBOLS.slice(50, 100), SYMBOLS.slice(100, 110)]

test('N1 1,000 symbols, of which 50 are listed, 50 halt and 10 are delisted, need no reconnect and lose nothing', {
  skip: MINUTES === 0 && 'set TAPELINE_TEST_SYMBOLS_MINUTES=10 (takes as long)',
  timeout: (MINUTES + 4) * 60_000,
}, async (context) => {
  await using parts = await createIngestionParts({ messagesPerSecond: 5000, symbols: SYMBOLS, skew: 0 })
  const { exchange } = parts
  for (const symbol of LISTED) exchange.faults.add({ kind: 'delist', symbol })
  await using ingestion = await parts.ingest({
    SYMBOLS: '*',
    SYMBOLS_REFRESH_SECONDS: '5',
    REST_WEIGHT_PER_MINUTE: '6000',
  })
  await ingestion.ready()
  const steps = [
    ...LISTED.map((symbol) => ({ kind: 'list', symbol }) as const),
    ...HALTED.map((symbol) => ({ kind: 'halt', symbol, forMs: 30_000 }) as const),
    ...DELISTED.map((symbol) => ({ kind: 'delist', symbol }) as const),
  ].sort((one, other) => one.symbol.charCodeAt(3) - other.symbol.charCodeAt(3))
  const lags: number[] = []
  for (const step of steps) {
    exchange.faults.add(step)
    await sleep((MINUTES * 60_000) / steps.length)
    lags.push((await ingestion.status()).eventToReceiptMs.p99)
  }
  const { connections, counters } = await ingestion.until(
    'the last changes',
    ({ streams, openGaps }) => Object.keys(streams).length === 3 * 990 && openGaps.length === 0,
    120_000,
  )
  const tenth = Math.ceil(lags.length / 10)
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  context.diagnostic(
    `${counters.received} frames, ${counters.backfilled} backfilled, connections ${JSON.stringify(connections.map(({ attempts, streams }) => [attempts, streams]))}, p99 of event to receipt ${mean(lags.slice(0, tenth)).toFixed(1)} ms in the first tenth, ${mean(lags.slice(-tenth)).toFixed(1)} ms in the last, ${Math.max(...lags)} ms at most`,
  )
  assert.ok(connections.every(({ attempts }) => attempts === 1))
  await ingestion.stop()
  const ids = await idsByStream(parts.topics.env.KAFKA_TRADES_TOPIC)
  let trades = 0
  for (const symbol of SYMBOLS) {
    const known = assertNoneMissing(ids.get(`${symbol} trade`), symbol)
    trades += known.length
    if (LISTED.includes(symbol)) assert.equal(known[0], 0, `${symbol} begins late`)
  }
  context.diagnostic(`${trades} trades without missing ids`)
})
