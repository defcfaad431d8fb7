import type { TopicRight } from '../foundation/kafka/access.ts'
import { kafkaConnection, topicNames } from '../foundation/kafka/config.ts'
import type { Settings } from '../foundation/settings/load.ts'
import { CLOCK_LIMITS } from './messages/receipt-clock.ts'

const HOUR_MS = 3_600_000

/** Settings of the ingestion service; durations in milliseconds, sizes in bytes. */
export type IngestionConfig = Readonly<ReturnType<typeof ingestionConfig>>

export function ingestionConfig(settings: Settings) {
  return {
    /** Upper-case names; `*` alone selects every spot symbol that trades. */
    symbols: settings.SYMBOLS,
    eventTypes: settings.STREAM_TYPES,
    /** Interval between two requests for the exchange's symbols. */
    symbolsEveryMs: settings.SYMBOLS_REFRESH_SECONDS * 1000,
    shard: settings.SHARD,
    wsUrl: settings.BINANCE_WS_URL,
    /** 2 reads every stream over two connections and merges them. */
    connectionsPerStream: settings.CONNECTIONS_PER_STREAM,
    connectionMaxAgeMs: settings.CONNECTION_MAX_AGE_HOURS * HOUR_MS,
    restUrl: settings.BINANCE_REST_URL,
    /** Name of an exchange that does not announce one; null to use its host. */
    venue: settings.VENUE ?? null,
    /** API key (a secret), for exchanges that require one for trades by id. */
    apiKey: settings.BINANCE_API_KEY,
    /** Requested from the exchange; if the exchange announces another unit, that one is used. */
    timeUnit: settings.TIME_UNIT,
    /** Part of the 6,000 per minute that Binance allows an IP. */
    restWeightPerMinute: settings.REST_WEIGHT_PER_MINUTE,
    /** Larger gaps are not backfilled. */
    backfillMaxIds: settings.BACKFILL_MAX_IDS,
    /** Age at which the snapshot of an order book is replaced. */
    snapshotMaxAgeMs: settings.DEPTH_SNAPSHOT_HOURS * HOUR_MS,
    kafka: kafkaConnection(settings),
    topics: topicNames(settings),
    compression: settings.KAFKA_COMPRESSION,
    lingerMs: settings.KAFKA_LINGER_MS,
    /** Maximum number of messages in one send. */
    batchSize: settings.KAFKA_BATCH_SIZE,
    queueMaxBytes: settings.KAFKA_QUEUE_MAX_BYTES,
    backoff: { initialMs: settings.BACKOFF_INITIAL_MS, maxMs: settings.BACKOFF_MAX_MS },
    clockLimits: CLOCK_LIMITS,
    host: settings.HTTP_HOST,
    port: settings.INGEST_PORT,
  }
}

/** The rights that ingestion needs per topic. At start it also reads back what it has written. */
export function topicRights({
  topics: names,
  eventTypes,
}: Pick<IngestionConfig, 'topics' | 'eventTypes'>): ReadonlyMap<string, readonly TopicRight[]> {
  return new Map<string, readonly TopicRight[]>([
    [names.trades, ['READ', 'WRITE']],
    [names.bookTicker, ['READ', 'WRITE']],
    ...(eventTypes.includes('depth') ? [[names.depth, ['READ', 'WRITE']] as const] : []),
    [names.checkpoints, ['READ', 'WRITE']],
    [names.gaps, ['READ', 'WRITE']],
    [names.deadLetters, ['WRITE']],
  ])
}
