import type { z } from 'zod'
import { DEFAULT_EVENT_TYPES } from '../market/event.ts'
import { TIME_UNITS } from '../market/time-unit.ts'
import * as kind from './parsers.ts'

/** A setting: the schema of its text, and the default text if it is unset. */
interface Definition<Schema extends z.ZodType = z.ZodType> {
  readonly schema: Schema
  readonly fallback: string | undefined
}

const required = <Schema extends z.ZodType>(schema: Schema, fallback: string) => ({ schema, fallback })
const optional = <Schema extends z.ZodType>(schema: Schema) => ({
  schema: schema.optional(),
  fallback: undefined,
})

/** All settings with their defaults, as text. How to add one: CONTRIBUTING.md 3.6. */
export const DEFINITIONS = {
  SYMBOLS: required(kind.symbols, 'BTCUSDT,ETHUSDT,BNBUSDT'),
  SYMBOLS_REFRESH_SECONDS: required(kind.integer(1, 86_400), '300'),
  STREAM_TYPES: required(kind.streamTypes, DEFAULT_EVENT_TYPES.join()),
  BINANCE_WS_URL: required(kind.baseUrl('wss:', 'ws:'), 'wss://stream.binance.com:9443'),
  BINANCE_REST_URL: required(kind.baseUrl('https:', 'http:'), 'https://api.binance.com'),
  VENUE: optional(kind.venue),
  BINANCE_API_KEY: optional(kind.apiKey),
  TIME_UNIT: required(kind.oneOf(...TIME_UNITS), TIME_UNITS[0]),
  REST_WEIGHT_PER_MINUTE: required(kind.integer(50, 6000), '1200'),
  DEPTH_SNAPSHOT_HOURS: required(kind.integer(1, 8760), '12'),
  BACKFILL_MAX_IDS: required(kind.integer(0, 1_000_000_000), '1000000'),
  CONNECTIONS_PER_STREAM: required(kind.integer(1, 2), '1'),
  CONNECTION_MAX_AGE_HOURS: required(kind.integer(1, 24), '23'),
  SHARD: required(kind.shard, '0/1'),

  KAFKA_BROKERS: required(kind.brokers, 'localhost:9092'),
  KAFKA_TRADES_TOPIC: required(kind.topicName, 'binance.trades'),
  KAFKA_BOOK_TICKER_TOPIC: required(kind.topicName, 'binance.book_ticker'),
  KAFKA_DEPTH_TOPIC: required(kind.topicName, 'binance.depth'),
  KAFKA_GAPS_TOPIC: required(kind.topicName, 'binance.gaps'),
  KAFKA_CHECKPOINTS_TOPIC: required(kind.topicName, 'binance.checkpoints'),
  KAFKA_DEAD_LETTERS_TOPIC: required(kind.topicName, 'binance.dead_letters'),
  KAFKA_ARCHIVED_DAYS_TOPIC: required(kind.topicName, 'binance.archived_days'),
  KAFKA_COMPRESSION: required(kind.oneOf('lz4', 'none', 'gzip', 'snappy', 'zstd'), 'lz4'),
  KAFKA_LINGER_MS: required(kind.integer(0, 10_000), '10'),
  KAFKA_BATCH_SIZE: required(kind.integer(1, 100_000), '500'),
  KAFKA_QUEUE_MAX_BYTES: required(kind.integer(1 << 20, 4 * 1024 ** 3), String(64 * 1024 ** 2)),
  KAFKA_PARTITIONS: required(kind.integer(1, 10_000), '3'),
  KAFKA_REPLICATION_FACTOR: optional(kind.integer(1, 100)),
  KAFKA_MIN_INSYNC_REPLICAS: optional(kind.integer(1, 100)),
  KAFKA_RETENTION_HOURS: optional(kind.integer(1, 24 * 3650)),
  KAFKA_TLS: required(kind.flag, 'false'),
  KAFKA_TLS_CA: optional(kind.path),
  KAFKA_TLS_CERT: optional(kind.path),
  KAFKA_TLS_KEY: optional(kind.path),
  KAFKA_SASL_MECHANISM: optional(kind.oneOf('PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512')),
  KAFKA_SASL_USERNAME: optional(kind.word),
  KAFKA_SASL_PASSWORD: optional(kind.secret),
  KAFKA_GROUP_ID: required(kind.word, 'tapeline-consumer'),
  KAFKA_SESSION_TIMEOUT_MS: required(kind.integer(1000, 1_800_000), '6000'),
  KAFKA_HEARTBEAT_INTERVAL_MS: required(kind.integer(100, 600_000), '500'),
  KAFKA_REBALANCE_TIMEOUT_MS: required(kind.integer(1000, 3_600_000), '15000'),
  /** Unset: a quarter of `FLUSH_INTERVAL_MS`. */
  KAFKA_FETCH_MAX_WAIT_MS: optional(kind.integer(1, 60_000)),
  AUTO_OFFSET_RESET: required(kind.oneOf('latest', 'earliest'), 'latest'),

  DATABASE_URL: required(kind.databaseUrl, 'postgres://tapeline:tapeline@localhost:5432/tapeline'),
  DB_POOL_MIN: required(kind.integer(0, 100), '1'),
  DB_POOL_MAX: required(kind.integer(1, 100), '4'),
  BATCH_SIZE: required(kind.integer(1, 50_000), '500'),
  FLUSH_INTERVAL_MS: required(kind.integer(10, 600_000), '2000'),
  /** Unset: rows are kept without a time limit. */
  RETENTION_DAYS: optional(kind.integer(1, 36_500)),
  RETENTION_ARCHIVED_ONLY: required(kind.flag, 'false'),
  /** Unset: nothing is compressed. */
  COMPRESS_AFTER_DAYS: optional(kind.integer(1, 36_500)),
  MIGRATE_ON_START: required(kind.flag, 'true'),

  ARCHIVE_URL: required(kind.archiveUrl, 'archive'),
  /** Unset: AWS. */
  ARCHIVE_S3_ENDPOINT: optional(kind.baseUrl('https:', 'http:')),
  ARCHIVE_S3_REGION: required(kind.word, 'us-east-1'),
  /** Unset: a folder in `DATA_DIR`. */
  ARCHIVE_CACHE: optional(kind.path),
  ARCHIVE_CACHE_MB: required(kind.integer(1, 1 << 30), '10240'),
  ARCHIVE_FLUSH_INTERVAL_MS: required(kind.integer(100, 86_400_000), '300000'),
  ARCHIVE_MEMORY_MB: required(kind.integer(64, 1 << 20), '320'),
  ARCHIVE_GRACE_MINUTES: required(kind.integer(1, 100_000), '60'),
  /** Unset: a folder in the archive, or in the cache if it is in a bucket. */
  ARCHIVE_TEMP: optional(kind.path),
  ARCHIVE_PORT: required(kind.port, '8082'),
  KAFKA_ARCHIVE_GROUP_ID: required(kind.word, 'tapeline-archive'),

  BACKOFF_INITIAL_MS: required(kind.integer(10, 600_000), '1000'),
  BACKOFF_MAX_MS: required(kind.integer(10, 3_600_000), '60000'),
  INGEST_PORT: required(kind.port, '8080'),
  CONSUMER_PORT: required(kind.port, '8081'),
  DASHBOARD_PORT: required(kind.port, '8090'),
  /** Unset: the service of this machine, at `INGEST_PORT`. */
  INGEST_URLS: optional(kind.baseUrls),
  /** Unset: the service of this machine, at `CONSUMER_PORT`. */
  CONSUMER_URLS: optional(kind.baseUrls),
  /** Unset: none; without a database the archive of this machine, at `ARCHIVE_PORT`. */
  ARCHIVE_SERVICE_URLS: optional(kind.baseUrls),
  HTTP_HOST: required(kind.word, '127.0.0.1'),
  DATA_DIR: required(kind.path, '.tapeline'),
  LOG_LEVEL: required(kind.oneOf('debug', 'info', 'warn', 'error', 'silent'), 'info'),
} as const satisfies Record<string, Definition>

export type SettingName = keyof typeof DEFINITIONS

export const SETTING_NAMES = Object.keys(DEFINITIONS) as SettingName[]

/** Never shown in errors or in `/status`; each may also be given as a file, `NAME_FILE`. */
export const SECRET_NAMES: ReadonlySet<SettingName> = new Set([
  'BINANCE_API_KEY',
  'KAFKA_SASL_PASSWORD',
  'DATABASE_URL',
])

/** The typed value of every setting, by name. */
export type SettingValues = {
  readonly [Name in SettingName]: z.infer<(typeof DEFINITIONS)[Name]['schema']>
}
