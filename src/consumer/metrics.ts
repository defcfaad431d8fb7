import type { TopicPartition } from '../foundation/kafka/partition.ts'
import { EVENT_TYPES, TRADE_TYPES } from '../foundation/market/event.ts'
import { GAP_CAUSE_NAMES } from '../foundation/market/gap-causes.ts'
import { byLabel, type Metrics, quantiles, type Series } from '../foundation/telemetry/metrics.ts'
import type { ConsumerStatus } from '../foundation/telemetry/status.ts'
import { type ArchivedRetention, type KeptChunks, NOTHING_KEPT } from './archived-retention.ts'
import type { WriteCounts } from './batch-writer.ts'
import type { Environment } from './environment-probe.ts'
import type { Keyframes } from './keyframes.ts'
import type { Worker } from './worker.ts'

const OUTCOMES = ['inserted', 'alreadyThere', 'deadLettered', 'discarded'] as const

/** The parts of the consumer whose figures the metrics show. */
export interface MetricSources {
  readonly status: ConsumerStatus
  readonly counts: WriteCounts
  /** Null until the database has opened. */
  readonly worker: Worker | null
  /** Facts about the database and the topics. Every consumer of a database exports the same. */
  readonly environment: Environment
  /** Null unless retention depends on the archive. */
  readonly archived: ArchivedRetention | null
  /** Null until the database has opened. */
  readonly keyframes: Pick<Keyframes, 'made'> | null
}

/** The metrics of the consumer. Symbols are no labels, because their number is unbounded. */
export const CONSUMER_METRICS: Metrics<MetricSources> = {
  tapeline_consumer_ready: {
    help: '1 while partitions are assigned and the last flush succeeded.',
    read: ({ status }) => (status.ready ? 1 : 0),
  },
  tapeline_consumer_messages_consumed_total: {
    help: 'Messages taken from Kafka.',
    read: ({ status }) => status.counters.consumed,
  },
  tapeline_consumer_messages_total: {
    help: 'Messages by outcome.',
    labels: ['outcome'],
    read: ({ status }) => byLabel('outcome', status.counters, OUTCOMES),
  },
  tapeline_consumer_messages_pending: {
    help: 'Messages taken from Kafka and not stored yet.',
    read: ({ status }) => status.counters.pending,
  },
  tapeline_consumer_held_bytes: {
    help: 'Bytes of the messages that wait to be stored.',
    read: ({ worker }) => worker?.batchBuilder.heldBytes ?? 0,
  },
  tapeline_consumer_dead_letters_total: {
    help: 'Messages that could not be stored, by reason.',
    labels: ['reason'],
    read: ({ counts }) => byLabel('reason', counts.deadLetters),
  },
  tapeline_consumer_lag_messages: {
    help: 'Messages in Kafka that are not stored yet, by partition; absent while unknown.',
    labels: ['topic', 'partition'],
    read: ({ status }) => status.partitions.flatMap((one) => ofPartition(one, one.lag)),
  },
  tapeline_consumer_lag_age_seconds: {
    help: 'Age of the lag of a partition, which is read from its leader every second; time since the assignment while the lag is unknown.',
    labels: ['topic', 'partition'],
    read: ({ status }) => status.partitions.flatMap((one) => ofPartition(one, one.lagAgeMs / 1000)),
  },
  tapeline_consumer_stored_receipt_timestamp_seconds: {
    help: 'Receipt time of the last stored event of a partition, in Unix time; constant while nothing is stored.',
    labels: ['topic', 'partition'],
    read: ({ worker }) =>
      worker?.batchBuilder
        .progress()
        .flatMap((one) => ofPartition(one, one.receivedUs === null ? null : one.receivedUs / 1e6)),
  },
  tapeline_consumer_offsets_skipped_total: {
    help: 'Offsets that expired before they were read: lost messages.',
    read: ({ worker }) => worker?.batchBuilder.counters.skipped ?? 0,
  },
  tapeline_consumer_truncations_total: {
    help: 'Times that a partition lost messages that were read.',
    read: ({ worker }) => worker?.truncations ?? 0,
  },
  tapeline_consumer_rows_inserted_total: {
    help: 'Rows inserted, by event type.',
    labels: ['type'],
    read: ({ status }) =>
      EVENT_TYPES.map((type) => ({
        labels: { type },
        value: Object.values(status.rows[type] ?? {}).reduce((sum, rows) => sum + rows, 0),
      })),
  },
  tapeline_consumer_flushes_total: {
    help: 'Batches committed in the database.',
    read: ({ status }) => status.flushes,
  },
  tapeline_consumer_flush_retries_total: {
    help: 'Failed attempts to write a batch that were retried.',
    read: ({ status }) => status.retries,
  },
  tapeline_consumer_flush_seconds: {
    help: 'Time from taking a batch to its commit, including retries, over the last minute.',
    labels: ['quantile'],
    read: ({ counts }) => quantiles(counts.flushTimes.summary(performance.now())),
  },
  tapeline_consumer_flush_seconds_total: {
    help: 'Sum of these times. Its rate is the share of the time spent on writing.',
    read: ({ counts }) => counts.totals.flushMs / 1000,
  },
  tapeline_consumer_event_to_row_seconds: {
    help: "Committed row minus the exchange's event time, over the last minute.",
    labels: ['quantile'],
    read: ({ status }) => quantiles(status.eventToRowMs),
  },
  tapeline_consumer_receipt_to_row_seconds: {
    help: 'Committed row minus ingestion_timestamp, over the last minute.',
    labels: ['quantile'],
    read: ({ status }) => quantiles(status.receiptToRowMs),
  },
  tapeline_consumer_assigned_partitions: {
    help: 'Partitions that this consumer reads.',
    read: ({ status }) => status.partitions.length,
  },
  tapeline_consumer_rebalances_total: {
    help: 'Generations of the group that this consumer has joined, including the first.',
    read: ({ worker }) => worker?.groupCounts.joins ?? 0,
  },
  tapeline_consumer_membership_losses_total: {
    help: 'Lost memberships and failed joins of the group.',
    read: ({ worker }) => worker?.groupCounts.losses ?? 0,
  },
  tapeline_consumer_commits_total: {
    help: 'Commits to the group, by result. The database holds the authoritative offsets.',
    labels: ['result'],
    read: ({ worker }) =>
      byLabel('result', {
        ok: worker?.groupCounts.commits ?? 0,
        failed: worker?.groupCounts.failedCommits ?? 0,
      }),
  },
  tapeline_consumer_database_size_bytes: {
    help: 'Size of the database with its indexes, read every minute. SQL does not show the free disk space.',
    read: ({ environment }) => environment.database?.sizeBytes,
  },
  tapeline_consumer_ledger_gaps: {
    help: 'Rows of the ledger by event type, status and cause, read every minute.',
    labels: ['type', 'status', 'cause'],
    read: ({ environment }) => environment.database && ledgerSeries(environment.database.gaps),
  },
  tapeline_consumer_unresolved_dead_letters: {
    help: 'Dead letters that have not been stored since, read every minute.',
    read: ({ environment }) => environment.database?.unresolvedDeadLetters,
  },
  tapeline_consumer_overdue_chunks: {
    help: 'Days past RETENTION_DAYS that stay: the archive has not confirmed them (waiting) or has other rows (differs). 0 without RETENTION_ARCHIVED_ONLY.',
    labels: ['table', 'reason'],
    read: ({ archived }) => overdueSeries(archived?.kept ?? NOTHING_KEPT),
  },
  tapeline_consumer_keyframes_total: {
    help: 'Order books that were rebuilt and stored, so that reading one at any time is fast.',
    read: ({ keyframes }) => keyframes?.made ?? 0,
  },
  tapeline_consumer_topic_retention_seconds: {
    help: 'Retention time of a topic, read every ten minutes; absent where this user may not read it.',
    labels: ['topic'],
    read: ({ environment }) =>
      [...environment.retentionMs].map(([topic, ms]) => ({ labels: { topic }, value: ms / 1000 })),
  },
}

/** @param value null: no series */
function ofPartition({ topic, partition }: TopicPartition, value: number | null) {
  return value === null ? [] : [{ labels: { topic, partition: String(partition) }, value }]
}

function overdueSeries({ waiting, differing }: KeptChunks): Series {
  return [
    ...Object.entries(waiting).map(([table, value]) => ({ labels: { table, reason: 'waiting' }, value })),
    ...Object.entries(differing).map(([table, value]) => ({ labels: { table, reason: 'differs' }, value })),
  ]
}

/** All other causes count as `other`. */
const CAUSES: ReadonlySet<string> = new Set(GAP_CAUSE_NAMES)

/**
 * Statuses of missing ids always exist with a count of 0, so that alert rules have a series to
 * evaluate.
 */
const OPEN: NonNullable<Environment['database']>['gaps'] = TRADE_TYPES.flatMap((type) =>
  ['open', 'unrecoverable'].map((status) => ({ type, status, cause: 'reconnect', count: 0 })),
)

function ledgerSeries(gaps: NonNullable<Environment['database']>['gaps']): Series {
  const counts = new Map<string, { labels: { type: string; status: string; cause: string }; value: number }>()
  for (const { type, status, cause: told, count } of [...OPEN, ...gaps]) {
    const cause = CAUSES.has(told) ? told : 'other'
    const key = `${type} ${status} ${cause}`
    counts.set(key, { labels: { type, status, cause }, value: (counts.get(key)?.value ?? 0) + count })
  }
  return [...counts.values()]
}
