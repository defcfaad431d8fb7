import type { MetricSpec } from '../telemetry/metrics.ts'
import type { IngestionStatus } from '../telemetry/status.ts'

const OUTCOMES = ['forwarded', 'duplicate', 'control', 'ignored', 'rejected'] as const

/** What ingestion shows to Prometheus. Symbols are no labels: their number is not bounded. */
export function ingestionMetrics(status: () => IngestionStatus): MetricSpec[] {
  return [
    {
      kind: 'gauge',
      name: 'tapeline_ingestion_ready',
      help: '1 while every connection is open and Kafka acknowledges.',
      read: () => (status().ready ? 1 : 0),
    },
    {
      kind: 'counter',
      name: 'tapeline_ingestion_frames_received_total',
      help: 'Frames received from the exchange.',
      read: () => status().counters.received,
    },
    {
      kind: 'counter',
      name: 'tapeline_ingestion_frames_total',
      help: 'Frames by what became of them.',
      labels: ['outcome'],
      read: () => OUTCOMES.map((outcome) => ({ labels: { outcome }, value: status().counters[outcome] })),
    },
    {
      kind: 'counter',
      name: 'tapeline_ingestion_frames_not_forwarded_total',
      help: 'Frames ignored or rejected, by reason.',
      labels: ['outcome', 'reason'],
      read: () => {
        const { ignoredByReason, rejectedByReason } = status()
        return [
          ...Object.entries(ignoredByReason).map(([reason, value]) => ({
            labels: { outcome: 'ignored', reason },
            value,
          })),
          ...Object.entries(rejectedByReason).map(([reason, value]) => ({
            labels: { outcome: 'rejected', reason },
            value,
          })),
        ]
      },
    },
    {
      kind: 'counter',
      name: 'tapeline_ingestion_messages_acknowledged_total',
      help: 'Events that Kafka has acknowledged.',
      read: () => status().counters.acknowledged,
    },
    {
      kind: 'counter',
      name: 'tapeline_ingestion_messages_backfilled_total',
      help: 'Trades and aggTrades fetched over REST because they were missing.',
      read: () => status().counters.backfilled,
    },
    {
      kind: 'gauge',
      name: 'tapeline_ingestion_open_gaps',
      help: 'Ranges of ids that are missing and being looked for.',
      read: () => status().openGaps.length,
    },
    {
      kind: 'gauge',
      name: 'tapeline_ingestion_quiet_streams',
      help: 'Streams that have been silent for much longer than is their way.',
      read: () => Object.values(status().streams).filter(({ quiet }) => quiet).length,
    },
    {
      kind: 'gauge',
      name: 'tapeline_ingestion_queue_messages',
      help: 'Events waiting for Kafka.',
      read: () => status().counters.queued,
    },
    {
      kind: 'gauge',
      name: 'tapeline_ingestion_queue_bytes',
      help: 'Bytes waiting for Kafka.',
      read: () => status().queueBytes,
    },
    {
      kind: 'gauge',
      name: 'tapeline_ingestion_oldest_unacknowledged_seconds',
      help: 'Age of the oldest message that Kafka has not acknowledged.',
      read: () => status().oldestUnacknowledgedMs / 1000,
    },
    {
      kind: 'gauge',
      name: 'tapeline_ingestion_connections',
      help: 'Connections to the exchange, by state.',
      labels: ['state'],
      read: () =>
        [...Map.groupBy(status().connections, ({ state }) => state)].map(([state, all]) => ({
          labels: { state },
          value: all.length,
        })),
    },
    {
      kind: 'gauge',
      name: 'tapeline_ingestion_event_to_receipt_seconds',
      help: "Receipt minus the exchange's event time over the last minute; negative when the clocks differ.",
      labels: ['quantile'],
      read: () => {
        const { p50, p90, p99, max } = status().eventToReceiptMs
        return Object.entries({ '0.5': p50, '0.9': p90, '0.99': p99, '1': max }).map(([quantile, ms]) => ({
          labels: { quantile },
          value: ms / 1000,
        }))
      },
    },
  ]
}
