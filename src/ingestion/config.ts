import type { TopicRight } from '../foundation/kafka/access.ts'
import type { KafkaConnection } from '../foundation/kafka/client.ts'
import { kafkaConnection, type TopicNames, topicNames } from '../foundation/kafka/config.ts'
import type { Compression } from '../foundation/kafka/record-sender.ts'
import type { EventType } from '../foundation/market/event.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import type { BackoffPolicy } from '../foundation/runtime/backoff.ts'
import type { Settings } from '../foundation/settings/load.ts'
import { CLOCK_LIMITS, type ClockLimits } from './messages/receipt-clock.ts'

const HOUR_MS = 3_600_000

/** Settings of the ingestion service; durations in milliseconds, sizes in bytes. */
export interface IngestionConfig {
  /** Upper-case names; `*` alone selects every spot symbol that trades. */
  readonly symbols: readonly string[]
  readonly eventTypes: readonly EventType[]
  /** Interval between two requests for the exchange's symbols. */
  readonly symbolsEveryMs: number
  readonly shard: { readonly index: number; readonly count: number }
  readonly wsUrl: string
  /** 2 reads every stream over two connections and merges them. */
  readonly connectionsPerStream: number
  readonly connectionMaxAgeMs: number
  readonly restUrl: string
  /** Name of an exchange that does not announce one; null to use its host. */
  readonly venue: string | null
  /** API key (a secret), for exchanges that require one for trades by id. */
  readonly apiKey?: string | undefined
  /** Requested from the exchange; if the exchange announces another unit, that one is used. */
  readonly timeUnit: TimeUnit
  /** Part of the 6,000 per minute that Binance allows an IP. */
  readonly restWeightPerMinute: number
  /** Larger gaps are not backfilled. */
  readonly backfillMaxIds: number
  readonly kafka: KafkaConnection
  readonly topics: TopicNames
  readonly compression: Compression
  readonly lingerMs: number
  /** Maximum number of messages in one send. */
  readonly batchSize: number
  readonly queueMaxBytes: number
  readonly backoff: BackoffPolicy
  readonly clockLimits: ClockLimits
  readonly host: string
  readonly port: number
}

export function ingestionConfig(settings: Settings): IngestionConfig {
  return {
    symbols: settings.SYMBOLS,
    eventTypes: settings.STREAM_TYPES,
    symbolsEveryMs: settings.SYMBOLS_REFRESH_SECONDS * 1000,
    shard: settings.SHARD,
    wsUrl: settings.BINANCE_WS_URL,
    connectionsPerStream: settings.CONNECTIONS_PER_STREAM,
    connectionMaxAgeMs: settings.CONNECTION_MAX_AGE_HOURS * HOUR_MS,
    restUrl: settings.BINANCE_REST_URL,
    venue: settings.VENUE ?? null,
    apiKey: settings.BINANCE_API_KEY,
    timeUnit: settings.TIME_UNIT,
    restWeightPerMinute: settings.REST_WEIGHT_PER_MINUTE,
    backfillMaxIds: settings.BACKFILL_MAX_IDS,
    kafka: kafkaConnection(settings),
    topics: topicNames(settings),
    compression: settings.KAFKA_COMPRESSION,
    lingerMs: settings.KAFKA_LINGER_MS,
    batchSize: settings.KAFKA_BATCH_SIZE,
    queueMaxBytes: settings.KAFKA_QUEUE_MAX_BYTES,
    backoff: { initialMs: settings.BACKOFF_INITIAL_MS, maxMs: settings.BACKOFF_MAX_MS },
    clockLimits: CLOCK_LIMITS,
    host: settings.HTTP_HOST,
    port: settings.INGEST_PORT,
  }
}

/** The rights that ingestion needs per topic. At start it also reads back what it has written. */
export function topicRights(names: TopicNames): ReadonlyMap<string, readonly TopicRight[]> {
  return new Map<string, readonly TopicRight[]>([
    [names.trades, ['READ', 'WRITE']],
    [names.bookTicker, ['READ', 'WRITE']],
    [names.checkpoints, ['READ', 'WRITE']],
    [names.gaps, ['READ', 'WRITE']],
    [names.deadLetters, ['WRITE']],
  ])
}
