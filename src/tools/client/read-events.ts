import { kafkaSecurityError } from '../../foundation/kafka/broker-errors.ts'
import type { FetchedPartition } from '../../foundation/kafka/codec/fetch-api.ts'
import type { KafkaConnection } from '../../foundation/kafka/config.ts'
import { keyOf, type Position } from '../../foundation/kafka/partition.ts'
import { PartitionFetcher } from '../../foundation/kafka/partition-fetcher.ts'
import { declarationOf, type EventTopic, type EventType, TICK_TYPES } from '../../foundation/market/event.ts'
import { delayFor, sleep } from '../../foundation/runtime/backoff.ts'
import { isTapelineError, TapelineError } from '../../foundation/runtime/errors.ts'
import { readEvent } from './event.ts'
import type { MarketEvent } from './market-event.ts'

export interface ReadOptions {
  /** `host:port` each. */
  readonly brokers: readonly string[]
  /** Default: all but `depth` and `depthSnapshot`. */
  readonly types?: readonly EventType[]
  /** Default: all. */
  readonly symbols?: readonly string[]
  /** Default: `latest`, only new events. Partitions without a given position start at `latest`. */
  readonly from?: 'latest' | 'earliest' | readonly Position[]
  /** Ends the iterator. */
  readonly signal?: AbortSignal
  /** Default: `binance.trades`, `binance.book_ticker` and `binance.depth`. */
  readonly topics?: Partial<Readonly<Record<EventTopic, string>>>
  /** PEM texts; `{}` uses Node's certificate authorities. Default: plain text. */
  readonly tls?: NonNullable<KafkaConnection['tls']>
  readonly sasl?: NonNullable<KafkaConnection['sasl']>
  /** Shown in the brokers' logs. */
  readonly clientId?: string
  /** Called for a message that is not an event. Without it, such a message is an error. */
  readonly onUnreadable?: (reason: string, position: Position) => void
  /** Called when a request to the brokers failed and will be retried. */
  readonly onRetry?: (error: unknown) => void
}

const BACKOFF = { initialMs: 500, maxMs: 10_000 }
const LIMITS = { maxWaitMs: 500, minBytes: 1, maxBytes: 8 << 20 }
/** How often to look for new partitions. */
const LAYOUT_EVERY_MS = 10_000
/** Kafka errors that no retry can fix. */
const FINAL = new Set(['TOPIC_AUTHORIZATION_FAILED', 'UNSUPPORTED_COMPRESSION_TYPE', 'UNSUPPORTED_VERSION'])

/**
 * Yields the events of the topics as they arrive. Events of a symbol and type come in the order of
 * receipt. Joins no group and commits nothing: keep `position` to resume after it. Fetches only
 * while the caller asks for the next event. Waits while brokers are unavailable.
 * @throws TapelineError `SCHEMA` for a message of a newer schema, `ACCESS` when a broker refuses
 *   certificate, login or rights, `KAFKA` when a position has expired or a topic is missing
 */
export async function* readEvents(options: ReadOptions): AsyncGenerator<MarketEvent, void, undefined> {
  const { brokers, tls = null, sasl = null, clientId = 'tapeline-client' } = options
  const connection = { brokers, tls, sasl }
  const signal = options.signal ?? new AbortController().signal
  const positions = new Map<string, Position>()
  for (let failures = 0; !signal.aborted; ) {
    const fetcher = new PartitionFetcher(connection, clientId, topicsOf(options))
    try {
      let askedMs = Number.NEGATIVE_INFINITY
      while (!signal.aborted) {
        if (performance.now() - askedMs > LAYOUT_EVERY_MS) {
          await fetcher.connect()
          await begin(fetcher, options, positions)
          askedMs = performance.now()
        }
        for (const fetched of await fetchAll(fetcher, [...positions.values()])) {
          if (fetched.diverging !== null || fetched.error === 'OFFSET_OUT_OF_RANGE')
            throw await gone(fetcher, fetched, positions)
          yield* eventsOf(fetched, options, positions)
        }
        failures = 0
      }
    } catch (error) {
      if (signal.aborted) return
      // A retry cannot fix these.
      if (isTapelineError(error)) throw error
      const refusal = kafkaSecurityError(error, `Kafka at ${brokers.join()}`)
      if (refusal?.code === 'ACCESS') throw refusal
      options.onRetry?.(error)
      failures++
      await sleep(delayFor(failures, BACKOFF, Math.random()), signal).catch(() => {})
    } finally {
      await fetcher.close()
    }
  }
}

/** Sets the start of each partition that has no position yet. New ones are read from their beginning. */
async function begin(
  fetcher: PartitionFetcher,
  { from = 'latest' }: ReadOptions,
  positions: Map<string, Position>,
): Promise<void> {
  const isFirst = positions.size === 0
  const places = typeof from === 'string' ? [] : from
  for (const { topic, partition, start, end } of await fetcher.offsetRanges()) {
    const key = keyOf({ topic, partition })
    const given = places.find((one) => one.topic === topic && one.partition === partition)
    const offset = from === 'earliest' || !isFirst ? start : end
    positions.set(key, positions.get(key) ?? given ?? { topic, partition, offset })
  }
}

async function fetchAll(
  fetcher: PartitionFetcher,
  positions: readonly Position[],
): Promise<FetchedPartition[]> {
  const byLeader = Map.groupBy(positions, ({ topic, partition }) => fetcher.leaderOf(topic, partition) ?? -1)
  if (byLeader.has(-1)) throw new Error('A partition has no leader at the moment')
  const answers = await Promise.all([...byLeader].map(([node, of]) => fetcher.fetch(node, of, LIMITS)))
  return answers.flat()
}

function* eventsOf(
  { topic, partition, error, messages, nextOffset, nextLeaderEpoch }: FetchedPartition,
  options: ReadOptions,
  positions: Map<string, Position>,
): Generator<MarketEvent> {
  const key = keyOf({ topic, partition })
  const from = positions.get(key)?.offset ?? 0
  if (error !== null) {
    if (!FINAL.has(error)) throw new Error(`${topic} ${partition}: ${error}`)
    const isRight = error === 'TOPIC_AUTHORIZATION_FAILED'
    const fix = isRight ? 'Check the rights of this user.' : 'Read with a newer version of the client.'
    throw new TapelineError('KAFKA', `${topic} ${partition} cannot be read: ${error}`, { fix })
  }
  const wanted: readonly EventType[] = options.types ?? TICK_TYPES
  const symbols = options.symbols?.map((symbol) => symbol.toUpperCase())
  const kind = kindOf(topic, options)
  for (const message of messages) {
    const { offset, leaderEpoch } = message
    if (offset < from) continue
    if (options.signal?.aborted === true) return
    const position = { topic, partition, offset, leaderEpoch }
    positions.set(key, { ...position, offset: offset + 1 })
    const symbol = message.key?.toString() ?? ''
    if (symbols !== undefined && !symbols.includes(symbol)) continue
    const event = readEvent(kind, message, position)
    if (typeof event !== 'string') {
      if (wanted.includes(event.type)) yield event
    } else if (options.onUnreadable !== undefined) options.onUnreadable(event, position)
    else
      throw new TapelineError('INPUT', `${topic} ${partition}, offset ${offset}: ${event}`, {
        fix: 'Pass onUnreadable to skip such messages.',
      })
  }
  if (nextOffset !== null && nextOffset > from)
    positions.set(key, { topic, partition, offset: nextOffset, leaderEpoch: nextLeaderEpoch })
}

/** Creates the error for a position that the log does not have. */
async function gone(
  fetcher: PartitionFetcher,
  { topic, partition, diverging }: FetchedPartition,
  positions: ReadonlyMap<string, Position>,
): Promise<TapelineError> {
  const offset = positions.get(keyOf({ topic, partition }))?.offset
  const range = (await fetcher.offsetRanges([topic])).find((one) => one.partition === partition)
  if (diverging !== null) {
    const text = `lost messages that were read: the position was ${offset}, the log is unchanged up to ${diverging.offset}`
    const fix = `Start at ${diverging.offset} with leader epoch ${diverging.leaderEpoch}: other messages follow there.`
    return new TapelineError('KAFKA', `${topic} ${partition} ${text}`, { fix })
  }
  const text = `has offsets from ${range?.start} up to, excluding, ${range?.end}; ${offset} is not among them`
  const fix = 'Start with "earliest" or an existing position. The database has what was stored.'
  return new TapelineError('KAFKA', `${topic} ${partition} ${text}`, { fix })
}

function names({ topics = {} }: ReadOptions): Record<EventTopic, string> {
  return { trades: 'binance.trades', bookTicker: 'binance.book_ticker', depth: 'binance.depth', ...topics }
}

function kindOf(topic: string, options: ReadOptions): EventTopic {
  const { bookTicker, depth } = names(options)
  if (topic === bookTicker) return 'bookTicker'
  return topic === depth ? 'depth' : 'trades'
}

/** The topics with the wanted types. */
function topicsOf(options: ReadOptions): string[] {
  const types: readonly EventType[] = options.types ?? TICK_TYPES
  return [...new Set(types.map((type) => names(options)[declarationOf(type).topic]))]
}
