import { availableParallelism } from 'node:os'
import { type ArchiveLocation, archiveLocation } from '../foundation/archive/open-store.ts'
import type { NeededRights, TopicRight } from '../foundation/kafka/access.ts'
import {
  archivedDaysTopic,
  type KafkaConnection,
  kafkaConnection,
  type TopicNames,
  topicNames,
} from '../foundation/kafka/config.ts'
import type { BackoffPolicy } from '../foundation/runtime/backoff.ts'
import type { Settings } from '../foundation/settings/load.ts'
import type { AnnouncerOptions } from './announcer.ts'

/** The folder or store is the operator's, so short delays are acceptable. */
const BACKOFF_MAX_MS = 5000

/**
 * Share of the memory for rows that are not written yet; the engine has the rest. A segment of half of
 * them takes the engine several times their memory.
 */
const BUFFER_SHARE = 0.25

/** Each thread of the engine collects the rows of a group of a Parquet file. */
const BYTES_PER_THREAD = 64 << 20

/** Configuration of the archive service; durations in milliseconds. */
export interface ArchiveConfig {
  readonly kafka: KafkaConnection
  readonly topics: TopicNames
  readonly groupId: string
  readonly sessionTimeoutMs: number
  readonly heartbeatIntervalMs: number
  readonly rebalanceTimeoutMs: number
  readonly fetchMaxWaitMs: number
  readonly store: ArchiveLocation
  /** Age at which rows are written. */
  readonly flushIntervalMs: number
  /** Bytes of rows that are not written yet. */
  readonly bufferBytes: number
  /** Bytes that the engine may use. */
  readonly engineBytes: number
  readonly engineThreads: number
  /** Null: in the folder for files that are not complete. */
  readonly tempFolder: string | null
  /** Time for which replaced files stay. */
  readonly graceMs: number
  /** Where days are announced, if retention of the tables depends on it. */
  readonly announcer: Omit<AnnouncerOptions, 'kafka'> | null
  readonly backoff: BackoffPolicy
  readonly host: string
  readonly port: number
}

export function archiveConfig(settings: Settings): ArchiveConfig {
  const memoryBytes = settings.ARCHIVE_MEMORY_MB * 2 ** 20
  const bufferBytes = Math.floor(memoryBytes * BUFFER_SHARE)
  const engineBytes = memoryBytes - bufferBytes
  const topic = archivedDaysTopic(settings)
  const retentionDays = settings.RETENTION_DAYS
  return {
    kafka: kafkaConnection(settings),
    topics: topicNames(settings),
    groupId: settings.KAFKA_ARCHIVE_GROUP_ID,
    sessionTimeoutMs: settings.KAFKA_SESSION_TIMEOUT_MS,
    heartbeatIntervalMs: settings.KAFKA_HEARTBEAT_INTERVAL_MS,
    rebalanceTimeoutMs: settings.KAFKA_REBALANCE_TIMEOUT_MS,
    fetchMaxWaitMs: settings.KAFKA_FETCH_MAX_WAIT_MS ?? 500,
    store: archiveLocation(settings),
    flushIntervalMs: settings.ARCHIVE_FLUSH_INTERVAL_MS,
    bufferBytes,
    engineBytes,
    engineThreads: Math.max(1, Math.min(availableParallelism(), Math.floor(engineBytes / BYTES_PER_THREAD))),
    tempFolder: settings.ARCHIVE_TEMP ?? null,
    graceMs: settings.ARCHIVE_GRACE_MINUTES * 60_000,
    announcer: topic === null || retentionDays === undefined ? null : { topic, retentionDays },
    backoff: {
      initialMs: settings.BACKOFF_INITIAL_MS,
      maxMs: Math.min(settings.BACKOFF_MAX_MS, BACKOFF_MAX_MS),
    },
    host: settings.HTTP_HOST,
    port: settings.ARCHIVE_PORT,
  }
}

/** The rights that the archive needs on its topics and its group. */
export function archiveRights({
  topics: { trades, bookTicker, depth, gaps, deadLetters, checkpoints },
  groupId,
  announcer,
}: Pick<ArchiveConfig, 'topics' | 'groupId' | 'announcer'>): NeededRights {
  const read = [trades, bookTicker, depth, gaps, deadLetters, checkpoints]
  const topics = new Map<string, readonly TopicRight[]>(read.map((topic) => [topic, ['READ']]))
  if (announcer !== null) topics.set(announcer.topic, ['READ', 'WRITE'])
  return { topics, group: groupId }
}
