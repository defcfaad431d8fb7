import assert from 'node:assert/strict'
import { tmpdir } from 'node:os'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { pino } from 'pino'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { ingestionConfig } from '../src/ingestion/config.ts'
import { ports } from '../src/ingestion/ports.ts'
import { Ingestion } from '../src/ingestion/service.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createTestTopics } from './support/kafka.ts'
import { readLedger, readTopic } from './support/messages.ts'
import { waitFor } from './support/wait-for.ts'

const QUOTES = 'btcusdt@bookTicker'
const TRADES = 'btcusdt@trade'

/** Seconds until a stream has a rate: twenty occurrences, a second apart. */
const WARM_UP_MS = 40_000

test('W1 stalled streams are restored by a resubscription or a new connection; trades are complete and the quote outage is recorded', async (context) => {
  const topics = await createTestTopics({ prefix: 'stall' })
  const symbols = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT', 'SOLUSDT', 'XRPUSDT', 'DOGEUSDT']
  const exchange = await startSimulatedExchange({ symbols, messagesPerSecond: 200, skew: 3 })
  const { KAFKA_TRADES_TOPIC: trades, KAFKA_GAPS_TOPIC: gaps, KAFKA_BOOK_TICKER_TOPIC: quotes } = topics.env
  const settings = loadSettings(
    {
      ...topics.env,
      SYMBOLS: symbols.join(),
      BINANCE_WS_URL: exchange.wsUrl,
      BINANCE_REST_URL: exchange.restUrl,
    },
    { cwd: tmpdir() },
  )
  const config = ingestionConfig(settings)
  const said: string[] = []
  const log = new Writable({
    write(chunk, _encoding, done) {
      said.push(String(chunk))
      done()
    },
  })
  const ingestion = new Ingestion(config, ports(config, systemClock()), pino(log))
  const events = (stream: string) => ingestion.status().streams[stream]?.events ?? 0
  try {
    ingestion.start()
    await waitFor(() => ingestion.status().uptimeMs > WARM_UP_MS && events(TRADES) > 100, {
      timeoutMs: 120_000,
      what: 'the streams to have rates',
    })
    assert.deepEqual(ingestion.readiness(), { ready: true, reason: '' })
    const byResubscribing = exchange.faults.add({ kind: 'stall', stream: QUOTES, healedBy: 'resubscribe' })
    const byReconnecting = exchange.faults.add({ kind: 'stall', stream: TRADES, healedBy: 'reconnect' })
    const stalledMs = performance.now()
    const seconds = () => ((performance.now() - stalledMs) / 1000).toFixed(1)
    await waitFor(() => byResubscribing.report().struck > 0 && byReconnecting.report().struck > 0, {
      timeoutMs: 30_000,
      what: 'the stalls to strike',
    })
    await waitFor(() => said.some((line) => line.includes('Renewing the subscription')), {
      timeoutMs: 120_000,
      what: 'the stalls to be detected',
    })
    const noticed = seconds()
    const before = events(QUOTES)
    await waitFor(() => events(QUOTES) > before + 20, { timeoutMs: 60_000, what: 'quotes to flow again' })
    const quotesHealthy = seconds()
    const tradesBefore = events(TRADES)
    await waitFor(() => events(TRADES) > tradesBefore + 20 && ingestion.status().rollovers === 1, {
      timeoutMs: 180_000,
      what: 'trades to flow again on a new connection',
    })
    const tradesHealthy = seconds()
    await waitFor(() => ingestion.status().openGaps.length === 0, {
      timeoutMs: 60_000,
      what: 'the missed trades',
    })
    context.diagnostic(
      `detected after ${noticed} s; healthy: ${QUOTES} by a resubscription after ${quotesHealthy} s, ${TRADES} by a new connection after ${tradesHealthy} s`,
    )
    const { streams } = ingestion.status()
    for (const stream of [QUOTES, TRADES]) assert.equal(streams[stream]?.quiet, false)
    await ingestion.stop(AbortSignal.timeout(8000))
  } finally {
    await ingestion.stop(AbortSignal.timeout(100)).catch(() => {})
    await exchange.close()
  }

  try {
    const ids = (await readTopic(trades))
      .map(({ value }) => JSON.parse(String(value)))
      .flatMap(({ e, s, t }) => (e === 'trade' && s === 'BTCUSDT' ? [Number(t)] : []))
      .sort((a, b) => a - b)
    assert.deepEqual(
      ids,
      ids.map((_, i) => (ids[0] ?? 0) + i),
      'every trade, each once',
    )
    assert.ok((await readTopic(quotes)).length > 0)
    const rows = await readLedger(gaps)
    const outages = rows.filter(({ event_type }) => event_type === 'bookTicker')
    assert.deepEqual(
      [...new Set(outages.map(({ symbol }) => symbol))],
      ['BTCUSDT'],
      'no other symbol had an outage',
    )
    assert.ok(outages.some(({ from_time, to_time }) => (to_time ?? 0) - (from_time ?? 0) > 25_000))
    const renewals = said
      .filter((line) => line.includes('Renewing the subscription'))
      .map((line) => JSON.parse(line).streams)
    assert.deepEqual(
      renewals.flat().filter((stream) => stream !== QUOTES && stream !== TRADES),
      [],
      'rarely traded symbols raise nothing',
    )
  } finally {
    await topics.delete()
  }
})
