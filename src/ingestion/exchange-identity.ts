import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { exchangeIdentity, otherUnit, type VenueSettings } from '../foundation/binance/venue.ts'
import type { TopicNames } from '../foundation/kafka/config.ts'
import {
  EXCHANGE_IDENTITY_KEY,
  type ExchangeIdentity,
  markOf,
  parseMark,
  rejectOtherExchange,
  rejectOtherTimeUnit,
  rejectOtherTopics,
} from '../foundation/kafka/exchange-identity-mark.ts'
import { partitionOf } from '../foundation/kafka/partition.ts'
import { latestValue } from '../foundation/kafka/read-range.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import { describeError, isTapelineError, TapelineError } from '../foundation/runtime/errors.ts'
import type { Ports } from './ports.ts'

/** After this limit the start logs the reason and retries. */
const SEND_LIMIT_MS = 5000

/**
 * Asks the streams, and REST if it answers, for the exchange's name and time unit; a replay
 * announces it.
 * @throws TapelineError `SETTINGS` or `EXCHANGE` if the two differ; other errors without streams
 */
export async function askIdentity(
  { exchange }: Pick<Ports, 'exchange'>,
  gate: ExchangeGate,
  config: VenueSettings & { readonly timeUnit: TimeUnit },
  signal: AbortSignal,
): Promise<ExchangeIdentity> {
  await gate.wait('handshakes', signal)
  const streams = await gate.attempt('handshakes', () => exchange.askExchange(signal))
  const identity = {
    source: exchangeIdentity(streams.named, config),
    timeUnit: streams.timeUnit ?? config.timeUnit,
  }
  // Trades arrive without REST, so a start does not depend on REST.
  const rest = await gate.attempt('rest', () => exchange.askRest(identity.timeUnit, signal)).catch(() => null)
  if (rest === null) return identity
  if (rest.named !== streams.named) {
    const nameOf = (name: string | null) => (name === null ? 'does not name itself' : `is "${name}"`)
    const text = `The exchange at ${config.wsUrl} ${nameOf(streams.named)}, and that at BINANCE_REST_URL=${config.restUrl} ${nameOf(rest.named)}: gaps would be filled with trades of another exchange`
    const fix = 'Set BINANCE_REST_URL to the same exchange as BINANCE_WS_URL.'
    throw new TapelineError('SETTINGS', text, { fix })
  }
  if (rest.timeUnit !== null && rest.timeUnit !== identity.timeUnit)
    throw otherUnit('REST', rest.timeUnit, identity.timeUnit)
  return identity
}

/**
 * Ensures that the topics hold data of one exchange in one time unit, and that the checkpoints
 * belong to them. Writes all three into the checkpoints topic before the first message, or refuses.
 * @throws TapelineError `SOURCE` if the topics name others; other errors if Kafka does not answer
 */
export async function claimExchangeIdentity(
  { kafka, clock }: Pick<Ports, 'kafka' | 'clock'>,
  topics: TopicNames,
  identity: ExchangeIdentity,
): Promise<void> {
  const topic = topics.checkpoints
  const own = markOf(identity, topics)
  const fetcher = kafka.fetcher('tapeline-ingestion-source', [topic])
  const text = await latestValue(fetcher, topic, EXCHANGE_IDENTITY_KEY)
  if (text !== null) {
    const marked = parseMark(text, topic)
    const what = 'These Kafka topics'
    const others = '(KAFKA_TRADES_TOPIC, …) or another broker, and another database.'
    const otherFix = `Use other topics for this exchange ${others}`
    rejectOtherExchange(what, marked.source, identity.source, otherFix)
    rejectOtherTopics(topic, marked, own)
    const fix = `Set TIME_UNIT=${marked.timeUnit}; or use other topics ${others}`
    rejectOtherTimeUnit(what, marked.timeUnit, identity.timeUnit, fix)
    return
  }
  const producer = kafka.producer('tapeline-ingestion-source', 'none')
  try {
    const partitions = (await producer.topics([topic])).get(topic)?.partitions ?? 1
    const message = {
      topic,
      key: Buffer.from(EXCHANGE_IDENTITY_KEY),
      value: Buffer.from(JSON.stringify(own)),
      partition: partitionOf(EXCHANGE_IDENTITY_KEY, partitions),
      headers: new Map(),
      timestampMs: Math.floor(clock.wallMicros() / 1000),
    }
    await producer.send([message], { limitMs: SEND_LIMIT_MS })
  } catch (error) {
    if (isTapelineError(error)) throw error
    const text = `Cannot write the exchange identity to ${topic}: ${describeError(error)}`
    throw new Error(text, { cause: error })
  } finally {
    await producer.close()
  }
}
