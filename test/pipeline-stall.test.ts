import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fastClock, startIngestionHere } from './support/ingestion-here.ts'
import { createIngestionParts } from './support/ingestion-parts.ts'
import { assertNoneMissing, idsByStream } from './support/messages.ts'
import { until } from './support/wait-for.ts'

const QUOTES = 'btcusdt@bookTicker'
const TRADES = 'btcusdt@trade'
const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT', 'SOLUSDT', 'XRPUSDT', 'DOGEUSDT']

/** Until a stream has a rate: twenty occurrences, a second apart. */
const WARM_UP_MS = 40_000

test('W1 stalled streams are restored by a resubscription or a new connection; trades are complete and the quote outage is recorded', async () => {
  const clock = fastClock(5)
  await using parts = await createIngestionParts({ symbols: SYMBOLS, messagesPerSecond: 200, skew: 3, clock })
  const { faults } = parts.exchange
  await using here = startIngestionHere({ ...parts.env, SYMBOLS: SYMBOLS.join() }, { clock })
  const { ingestion, said } = here
  const events = (stream: string) => ingestion.status().streams[stream]?.events ?? 0
  const renewals = () => said.filter((line) => line.includes('Renewing the subscription'))
  await until(
    'the streams to have rates',
    () => ingestion.status().uptimeMs > WARM_UP_MS && events(TRADES) > 100,
  )
  assert.equal(ingestion.status().reason, '')
  const byResubscribing = faults.add({ kind: 'stall', stream: QUOTES, healedBy: 'resubscribe' })
  const byReconnecting = faults.add({ kind: 'stall', stream: TRADES, healedBy: 'reconnect' })
  await until(
    'the stalls to strike',
    () => byResubscribing.report().struck > 0 && byReconnecting.report().struck > 0,
  )
  await until('the stalls to be detected', () => renewals().length > 0)
  const before = events(QUOTES)
  await until('quotes to flow again', () => events(QUOTES) > before + 20)
  const tradesBefore = events(TRADES)
  await until(
    'trades to flow again on a new connection',
    () => events(TRADES) > tradesBefore + 20 && ingestion.status().rollovers === 1,
  )
  await until('the missed trades', () => ingestion.status().openGaps.length === 0)
  const { streams } = ingestion.status()
  for (const stream of [QUOTES, TRADES]) assert.equal(streams[stream]?.quiet, false)
  await ingestion.stop(AbortSignal.timeout(8000))

  const ids = (await idsByStream(parts.topics.env.KAFKA_TRADES_TOPIC)).get('BTCUSDT trade')
  assert.equal(assertNoneMissing(ids, 'BTCUSDT').length, ids?.length, 'each once')
  // The clock runs fast, so a short pause of the machine drops all connections: cause 'reconnect'.
  const outages = (await parts.ledger()).filter(
    ({ event_type, cause }) => event_type === 'bookTicker' && cause === 'stall',
  )
  assert.deepEqual([...new Set(outages.map(({ symbol }) => symbol))], ['BTCUSDT'], 'no other symbol stalled')
  assert.ok(outages.some(({ from_time, to_time }) => (to_time ?? 0) - (from_time ?? 0) > 25_000))
  assert.deepEqual(
    renewals()
      .flatMap((line): string[] => JSON.parse(line).streams)
      .filter((stream) => stream !== QUOTES && stream !== TRADES),
    [],
    'rarely traded symbols raise nothing',
  )
})
