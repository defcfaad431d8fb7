import type { NeededRights } from '../foundation/kafka/access.ts'
import { archivedDaysTopic, kafkaConnection, topicNames } from '../foundation/kafka/config.ts'
import type { Settings } from '../foundation/settings/load.ts'

/**
 * Kafka and the database are the operator's, so short delays are acceptable: rows must be stored
 * within seconds of recovery.
 */
const BACKOFF_MAX_MS = 5000

/** Configuration of the consumer service; durations in milliseconds. */
export type ConsumerConfig = Readonly<ReturnType<typeof consumerConfig>>

export function consumerConfig(settings: Settings) {
  return {
    kafka: kafkaConnection(settings),
    topics: topicNames(settings),
    groupId: settings.KAFKA_GROUP_ID,
    sessionTimeoutMs: settings.KAFKA_SESSION_TIMEOUT_MS,
    heartbeatIntervalMs: settings.KAFKA_HEARTBEAT_INTERVAL_MS,
    rebalanceTimeoutMs: settings.KAFKA_REBALANCE_TIMEOUT_MS,
    fetchMaxWaitMs:
      settings.KAFKA_FETCH_MAX_WAIT_MS ?? Math.max(1, Math.floor(settings.FLUSH_INTERVAL_MS / 4)),
    /** Where to begin when neither the database nor the group knows anything. */
    autoOffsetReset: settings.AUTO_OFFSET_RESET,
    /** Messages in a batch. */
    batchSize: settings.BATCH_SIZE,
    flushIntervalMs: settings.FLUSH_INTERVAL_MS,
    databaseUrl: settings.DATABASE_URL,
    poolMin: settings.DB_POOL_MIN,
    poolMax: settings.DB_POOL_MAX,
    /** False: check the schema and refuse to start on another version. */
    migrateOnStart: settings.MIGRATE_ON_START,
    chunkMaintenance: {
      retentionDays: settings.RETENTION_DAYS ?? null,
      compressAfterDays: settings.COMPRESS_AFTER_DAYS ?? null,
    },
    /** From it the consumer learns which days the archive has; null: retention does not depend on it. */
    archivedDaysTopic: archivedDaysTopic(settings),
    backoff: {
      initialMs: settings.BACKOFF_INITIAL_MS,
      maxMs: Math.min(settings.BACKOFF_MAX_MS, BACKOFF_MAX_MS),
    },
    host: settings.HTTP_HOST,
    port: settings.CONSUMER_PORT,
  }
}

/** The rights that the consumer needs on its topics and its group. */
export function consumerRights({
  topics,
  groupId,
  archivedDaysTopic,
}: Pick<ConsumerConfig, 'topics' | 'groupId' | 'archivedDaysTopic'>): NeededRights {
  return {
    topics: new Map([
      [topics.trades, ['READ']],
      [topics.bookTicker, ['READ']],
      [topics.depth, ['READ']],
      [topics.gaps, ['READ', 'WRITE']],
      [topics.checkpoints, ['READ']],
      [topics.deadLetters, ['READ', 'WRITE']],
      ...(archivedDaysTopic === null ? [] : [[archivedDaysTopic, ['READ']] as const]),
    ]),
    group: groupId,
    // Without order books nobody needs it.
    mayLack: new Set([topics.depth]),
  }
}
