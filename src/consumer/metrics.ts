import { EVENT_TYPES } from '../foundation/market/event.ts'
import { byLabel, type MetricSpec, quantiles } from '../foundation/telemetry/metrics.ts'
import { ENVIRONMENT_METRICS } from './environment-metrics.ts'
import type { ConsumerMetricValues } from './metric-values.ts'

const OUTCOMES = ['inserted', 'alreadyThere', 'deadLettered', 'discarded'] as const

const MESSAGE_METRICS: ReadonlyArray<MetricSpec<ConsumerMetricValues>> = [
  {
    kind: 'gauge',
    name: 'tapeline_consumer_ready',
    help: '1 while partitions are assigned and the last flush succeeded.',
    read: ({ status }) => (status.ready ? 1 : 0),
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_messages_consumed_total',
    help: 'Messages taken from Kafka.',
    read: ({ status }) => status.counters.consumed,
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_messages_total',
    help: 'Messages by outcome.',
    labels: ['outcome'],
    read: ({ status }) => byLabel('outcome', OUTCOMES, status.counters),
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_messages_pending',
    help: 'Messages taken from Kafka and not stored yet.',
    read: ({ status }) => status.counters.pending,
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_held_bytes',
    help: 'Bytes of the messages that wait to be stored.',
    read: ({ heldBytes }) => heldBytes,
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_dead_letters_total',
    help: 'Messages that could not be stored, by reason.',
    labels: ['reason'],
    read: ({ deadLetters }) =>
      Object.entries(deadLetters).map(([reason, value]) => ({ labels: { reason }, value })),
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_lag_messages',
    help: 'Messages in Kafka that are not stored yet, by partition; absent while unknown.',
    labels: ['topic', 'partition'],
    read: ({ status }) =>
      status.partitions.flatMap(({ topic, partition, lag }) =>
        lag === null ? [] : [{ labels: { topic, partition: String(partition) }, value: lag }],
      ),
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_lag_age_seconds',
    help: 'Age of the lag of a partition, which is read from its leader every second; time since the assignment while the lag is unknown.',
    labels: ['topic', 'partition'],
    read: ({ status }) =>
      status.partitions.map(({ topic, partition, lagAgeMs }) => ({
        labels: { topic, partition: String(partition) },
        value: lagAgeMs / 1000,
      })),
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_stored_receipt_timestamp_seconds',
    help: 'Receipt time of the last stored event of a partition, in Unix time; constant while nothing is stored.',
    labels: ['topic', 'partition'],
    read: ({ storedReceipts }) =>
      storedReceipts.map(({ topic, partition, receivedUs }) => ({
        labels: { topic, partition: String(partition) },
        value: receivedUs / 1e6,
      })),
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_offsets_skipped_total',
    help: 'Offsets that expired before they were read: lost messages.',
    read: ({ skipped }) => skipped,
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_truncations_total',
    help: 'Times that a partition lost messages that were read.',
    read: ({ truncations }) => truncations,
  },
]

const FLUSH_METRICS: ReadonlyArray<MetricSpec<ConsumerMetricValues>> = [
  {
    kind: 'counter',
    name: 'tapeline_consumer_rows_inserted_total',
    help: 'Rows inserted, by event type.',
    labels: ['type'],
    read: ({ status }) =>
      EVENT_TYPES.map((type) => ({
        labels: { type },
        value: Object.values(status.rows[type] ?? {}).reduce((sum, rows) => sum + rows, 0),
      })),
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_flushes_total',
    help: 'Batches committed in the database.',
    read: ({ status }) => status.flushes,
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_flush_retries_total',
    help: 'Failed attempts to write a batch that were retried.',
    read: ({ status }) => status.retries,
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_flush_seconds',
    help: 'Time from taking a batch to its commit, including retries, over the last minute.',
    labels: ['quantile'],
    read: ({ flushMs }) => quantiles(flushMs),
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_flush_seconds_total',
    help: 'Sum of these times. Its rate is the share of the time spent on writing.',
    read: ({ flushTotalMs }) => flushTotalMs / 1000,
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_event_to_row_seconds',
    help: "Committed row minus the exchange's event time, over the last minute.",
    labels: ['quantile'],
    read: ({ status }) => quantiles(status.eventToRowMs),
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_receipt_to_row_seconds',
    help: 'Committed row minus ingestion_timestamp, over the last minute.',
    labels: ['quantile'],
    read: ({ status }) => quantiles(status.receiptToRowMs),
  },
]

const GROUP_METRICS: ReadonlyArray<MetricSpec<ConsumerMetricValues>> = [
  {
    kind: 'gauge',
    name: 'tapeline_consumer_assigned_partitions',
    help: 'Partitions that this consumer reads.',
    read: ({ status }) => status.partitions.length,
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_rebalances_total',
    help: 'Generations of the group that this consumer has joined, including the first.',
    read: ({ group }) => group.joins,
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_membership_losses_total',
    help: 'Lost memberships and failed joins of the group.',
    read: ({ group }) => group.losses,
  },
  {
    kind: 'counter',
    name: 'tapeline_consumer_commits_total',
    help: 'Commits to the group, by result. The database holds the authoritative offsets.',
    labels: ['result'],
    read: ({ group }) =>
      byLabel('result', ['ok', 'failed'], { ok: group.commits, failed: group.failedCommits }),
  },
]

/**
 * The Prometheus metrics of the consumer. Symbols are not labels, since their number is unbounded.
 */
export const CONSUMER_METRICS: ReadonlyArray<MetricSpec<ConsumerMetricValues>> = [
  ...MESSAGE_METRICS,
  ...FLUSH_METRICS,
  ...GROUP_METRICS,
  ...ENVIRONMENT_METRICS,
]
