import type { MetricSpec } from '../telemetry/metrics.ts'
import type { ConsumerStatus } from '../telemetry/status.ts'

const OUTCOMES = ['inserted', 'alreadyThere', 'deadLettered', 'discarded'] as const

/** What the consumer shows to Prometheus. Symbols are no labels: their number is not bounded. */
export function consumerMetrics(status: () => ConsumerStatus): MetricSpec[] {
  return [
    {
      kind: 'gauge',
      name: 'tapeline_consumer_ready',
      help: '1 while partitions are assigned and the last flush succeeded.',
      read: () => (status().ready ? 1 : 0),
    },
    {
      kind: 'counter',
      name: 'tapeline_consumer_messages_consumed_total',
      help: 'Messages taken from Kafka.',
      read: () => status().counters.consumed,
    },
    {
      kind: 'counter',
      name: 'tapeline_consumer_messages_total',
      help: 'Messages by what became of them.',
      labels: ['outcome'],
      read: () => OUTCOMES.map((outcome) => ({ labels: { outcome }, value: status().counters[outcome] })),
    },
    {
      kind: 'gauge',
      name: 'tapeline_consumer_messages_pending',
      help: 'Messages taken from Kafka and not stored yet.',
      read: () => status().counters.pending,
    },
    {
      kind: 'counter',
      name: 'tapeline_consumer_rows_inserted_total',
      help: 'Rows inserted, by event type.',
      labels: ['type'],
      read: () =>
        Object.entries(status().rows).map(([type, symbols]) => ({
          labels: { type },
          value: Object.values(symbols).reduce((sum, rows) => sum + rows, 0),
        })),
    },
    {
      kind: 'counter',
      name: 'tapeline_consumer_flushes_total',
      help: 'Batches committed in the database.',
      read: () => status().flushes,
    },
    {
      kind: 'counter',
      name: 'tapeline_consumer_flush_retries_total',
      help: 'Attempts to write a batch that failed and were repeated.',
      read: () => status().retries,
    },
    {
      kind: 'gauge',
      name: 'tapeline_consumer_lag_messages',
      help: 'Messages in Kafka that are not stored yet, by partition.',
      labels: ['topic', 'partition'],
      read: () =>
        status().partitions.map(({ topic, partition, lag }) => ({
          labels: { topic, partition: String(partition) },
          value: lag,
        })),
    },
    {
      kind: 'gauge',
      name: 'tapeline_consumer_event_to_row_seconds',
      help: "Committed row minus the exchange's event time, over the last minute.",
      labels: ['quantile'],
      read: () => quantiles(status().eventToRowMs),
    },
    {
      kind: 'gauge',
      name: 'tapeline_consumer_receipt_to_row_seconds',
      help: 'Committed row minus ingestion_timestamp, over the last minute.',
      labels: ['quantile'],
      read: () => quantiles(status().receiptToRowMs),
    },
  ]
}

function quantiles({ p50, p90, p99, max }: ConsumerStatus['eventToRowMs']) {
  return Object.entries({ '0.5': p50, '0.9': p90, '0.99': p99, '1': max }).map(([quantile, ms]) => ({
    labels: { quantile },
    value: ms / 1000,
  }))
}
