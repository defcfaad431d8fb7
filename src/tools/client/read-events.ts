import { kafkaSecurityError } from '../../foundation/kafka/broker-errors.ts'
import type { KafkaConnection } from '../../foundation/kafka/connection.ts'
import { type FetchedPartition, PartitionFetcher } from '../../foundation/kafka/partition-fetcher.ts'
import type { Position } from '../../foundation/kafka/position.ts'
import { EVENT_TYPES, type EventType } from '../../foundation/market/event.ts'
import { delayFor, sleep } from '../../foundation/runtime/backoff.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { readEvent } from './event.ts'
import type { MarketEvent } from './market-event.ts'

export interface ReadOptions {
  /** `host:port` each. */
  readonly brokers: readonly string[]
  /** All three when not given. */
  readonly types?: readonly EventType[]
  /** All when not given. */
  readonly symbols?: readonly string[]
  /** `latest`, when not given: what comes from now on. Positions: those partitions there, the others from `latest`. */
  readonly from?: 'latest' | 'earliest' | readonly Position[]
  /** Ends the reading: the iterator is done then. */
  readonly signal?: AbortSignal
  /** `binance.trades` and `binance.book_ticker` when not given. */
  readonly topics?: { readonly trades?: string; readonly bookTicker?: string }
  /** PEM texts; `{}` for the authorities that Node brings. Plain text when not given. */
  readonly tls?: NonNullable<KafkaConnection['tls']>
  readonly sasl?: NonNullable<KafkaConnection['sasl']>
  /** Shown in the brokers' logs. */
  readonly clientId?: string
  /** Told of a message that is no event; when not given, such a message is an error. */
  readonly onUnreadable?: (reason: string, position: Position) => void
  /** Told when the brokers could not be asked and are asked again after a while. */
  readonly onRetry?: (error: unknown) => void
}

const BACKOFF = { initialMs: 500, maxMs: 10_000 }
const LIMITS = { maxWaitMs: 500, minBytes: 1, maxBytes: 8 << 20 }
/** How often it is asked whether partitions have been added. */
const LAYOUT_EVERY_MS = 10_000
const OF_TRADES = ['trade', 'aggTrade'] as const
const OF_BOOK_TICKER = ['bookTicker'] as const
/** Names of Kafka's errors that no other attempt mends. */
const FINAL = new Set(['TOPIC_AUTHORIZATION_FAILED', 'UNSUPPORTED_COMPRESSION_TYPE', 'UNSUPPORTED_VERSION'])

/**
 * The events of the topics, as they come; those of a symbol and type in the order in which they were received. It joins no group
 * and commits nothing: whoever reads keeps `position`, and begins behind it the next time. Nothing is fetched while nobody asks for
 * the next event. Brokers that are away are waited for.
 *
 * @throws TapelineError `SCHEMA` for a message of a newer schema, `ACCESS` where a broker refuses certificate, login or rights, `KAFKA` where a position has left its topic or a topic is missing
 */
export async function* readEvents(options: ReadOptions): AsyncGenerator<MarketEvent, void, undefined> {
  const signal = options.signal ?? new AbortController().signal
  const positions = new Map<string, Position>()
  for (let failures = 0; !signal.aborted; ) {
    const fetcher = new PartitionFetcher(
      connectionOf(options),
      options.clientId ?? 'tapeline-client',
      topicsOf(options),
    )
    try {
      await fetcher.connect()
      await begin(fetcher, options, positions)
      let askedMs = performance.now()
      while (!signal.aborted) {
        if (performance.now() - askedMs > LAYOUT_EVERY_MS) {
          // Partitions that have been added are read from their beginning.
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
      // What waiting does not mend.
      if (error instanceof TapelineError) throw error
      const refusal = kafkaSecurityError(error, `Kafka at ${options.brokers.join()}`)
      if (refusal?.code === 'ACCESS') throw refusal
      options.onRetry?.(error)
      failures++
      await sleep(delayFor(failures, BACKOFF, Math.random()), signal).catch(() => {})
    } finally {
      await fetcher.close()
    }
  }
}

/** Where each partition starts that has no position yet. */
async function begin(
  fetcher: PartitionFetcher,
  { from = 'latest' }: ReadOptions,
  positions: Map<string, Position>,
): Promise<void> {
  const isFirst = positions.size === 0
  for (const { topic, partition, start, end } of await fetcher.offsetRanges()) {
    const key = keyOf(topic, partition)
    const given =
      typeof from === 'string'
        ? undefined
        : from.find((one) => one.topic === topic && one.partition === partition)
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
  const key = keyOf(topic, partition)
  const from = positions.get(key)?.offset ?? 0
  if (error !== null) {
    if (!FINAL.has(error)) throw new Error(`${topic} ${partition}: ${error}`)
    const isRight = error === 'TOPIC_AUTHORIZATION_FAILED'
    throw new TapelineError('KAFKA', `${topic} ${partition} cannot be read: ${error}`, {
      fix: isRight ? 'Check the rights of this user.' : 'Read with a newer version of the client.',
    })
  }
  const wanted = options.types ?? EVENT_TYPES
  const symbols = options.symbols?.map((symbol) => symbol.toUpperCase())
  const allowed = topic === names(options).bookTicker ? OF_BOOK_TICKER : OF_TRADES
  for (const message of messages) {
    const { offset } = message
    if (offset < from) continue
    if (options.signal?.aborted === true) return
    const { leaderEpoch } = message
    const position = { topic, partition, offset, leaderEpoch }
    positions.set(key, { ...position, offset: offset + 1 })
    const symbol = message.key?.toString() ?? ''
    if (symbols !== undefined && !symbols.includes(symbol)) continue
    const event = readEvent(allowed, message, position)
    if (typeof event !== 'string') {
      if (wanted.includes(event.type)) yield event
    } else if (options.onUnreadable !== undefined) options.onUnreadable(event, position)
    else
      throw new TapelineError('INPUT', `${topic} ${partition}, offset ${offset}: ${event}`, {
        fix: 'Give onUnreadable to go on behind such a message.',
      })
  }
  if (nextOffset !== null && nextOffset > from)
    positions.set(key, { topic, partition, offset: nextOffset, leaderEpoch: nextLeaderEpoch })
}

/** The error for a position that the log does not have. */
async function gone(
  fetcher: PartitionFetcher,
  { topic, partition, diverging }: FetchedPartition,
  positions: ReadonlyMap<string, Position>,
): Promise<TapelineError> {
  const offset = positions.get(keyOf(topic, partition))?.offset
  const range = (await fetcher.offsetRanges([topic])).find((one) => one.partition === partition)
  if (diverging !== null) {
    return new TapelineError(
      'KAFKA',
      `${topic} ${partition} lost messages that were read: the position was ${offset}, the log is the same up to ${diverging.offset}`,
      {
        fix: `Begin at ${diverging.offset} with leader epoch ${diverging.leaderEpoch}: others have come there.`,
      },
    )
  }
  return new TapelineError(
    'KAFKA',
    `${topic} ${partition} has the offsets from ${range?.start} to before ${range?.end}; ${offset} is not there`,
    {
      fix: 'Begin with "earliest", or with a position that is there; the database has what was stored.',
    },
  )
}

function connectionOf({ brokers, tls, sasl }: ReadOptions): KafkaConnection {
  return { brokers, tls: tls ?? null, sasl: sasl ?? null }
}

function names({ topics = {} }: ReadOptions): { trades: string; bookTicker: string } {
  return { trades: 'binance.trades', bookTicker: 'binance.book_ticker', ...topics }
}

/** Those that hold what is wanted. */
function topicsOf(options: ReadOptions): string[] {
  const { trades, bookTicker } = names(options)
  const types = options.types ?? EVENT_TYPES
  return [
    ...(types.some((type) => type !== 'bookTicker') ? [trades] : []),
    ...(types.includes('bookTicker') ? [bookTicker] : []),
  ]
}

function keyOf(topic: string, partition: number): string {
  return `${topic}:${partition}`
}
