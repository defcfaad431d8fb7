import { EVENT_TYPES, eventTypeOf } from '../foundation/market/event.ts'
import { byLabel, type MetricSpec, quantiles, type Reading } from '../foundation/telemetry/metrics.ts'
import type { IngestionStatus, StreamStatus } from '../foundation/telemetry/status.ts'
import { GAP_METRICS } from './gap-metrics.ts'
import type { IngestionMetricValues } from './status.ts'
import { LEFT_OUT_REASONS } from './symbol-selection.ts'

const OUTCOMES = ['forwarded', 'duplicate', 'control', 'ignored', 'rejected'] as const
const CONNECTION_STATES = ['waiting', 'connecting', 'open', 'streaming', 'paused'] as const

const EXCHANGE_METRICS: ReadonlyArray<MetricSpec<IngestionMetricValues>> = [
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_ready',
    help: '1 while every connection is open and Kafka acknowledges.',
    read: ({ status }) => (status.ready ? 1 : 0),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_connections',
    help: 'Connections to the exchange, by state.',
    labels: ['state'],
    read: ({ status }) =>
      byLabel(
        'state',
        CONNECTION_STATES,
        Object.fromEntries(
          [...Map.groupBy(status.connections, ({ state }) => state)].map(([state, all]) => [
            state,
            all.length,
          ]),
        ),
      ),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_oldest_connection_seconds',
    help: 'Age of the oldest open connection.',
    read: ({ status }) => Math.max(0, ...status.connections.map(({ ageMs }) => ageMs ?? 0)) / 1000,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_connection_max_age_seconds',
    help: 'Maximum age of a connection (CONNECTION_MAX_AGE_HOURS).',
    read: ({ connectionMaxAgeMs }) => connectionMaxAgeMs / 1000,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_connections_lost_total',
    help: 'Connections that ended unexpectedly.',
    read: ({ connectionsLost }) => connectionsLost,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_rollovers_total',
    help: 'Connections replaced without a break.',
    read: ({ status }) => status.rollovers,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_streams',
    help: 'Subscribed streams, by event type.',
    labels: ['type'],
    read: ({ status }) => streamsByType(status, () => true),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_symbols',
    help: 'Subscribed symbols, by whether they trade.',
    labels: ['state'],
    read: ({ symbols }) => byLabel('state', ['trading', 'halted'], symbols),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_symbols_left_out',
    help: 'Symbols without a subscription, by reason. The log names them.',
    labels: ['reason'],
    read: ({ symbolsLeftOut }) => byLabel('reason', LEFT_OUT_REASONS, symbolsLeftOut),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_quiet_streams',
    help: 'Streams silent for much longer than their usual interval, by event type.',
    labels: ['type'],
    read: ({ status }) => streamsByType(status, ({ quiet }) => quiet),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_frames_received_total',
    help: 'Frames received from the exchange.',
    read: ({ status }) => status.counters.received,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_frames_total',
    help: 'Frames by outcome.',
    labels: ['outcome'],
    read: ({ status }) => byLabel('outcome', OUTCOMES, status.counters),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_frames_not_forwarded_total',
    help: 'Frames ignored or rejected, by reason; rejected frames become dead letters.',
    labels: ['outcome', 'reason'],
    read: ({ status: { ignoredByReason, rejectedByReason } }) =>
      Object.entries({ ignored: ignoredByReason, rejected: rejectedByReason }).flatMap(([outcome, reasons]) =>
        Object.entries(reasons).map(([reason, value]) => ({ labels: { outcome, reason }, value })),
      ),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_rejected_streams',
    help: 'Streams with more than 1 % rejected frames in the last minute; /status names them.',
    read: ({ status }) => status.rejectedStreams.length,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_events_parsed_total',
    help: "Events in a layout other than Binance's, parsed with JSON.parse at several times the cost.",
    read: ({ parsedEvents }) => parsedEvents,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_event_to_receipt_seconds',
    help: "Receipt minus the exchange's event time over the last minute; negative when the clocks differ.",
    labels: ['quantile'],
    read: ({ status }) => quantiles(status.eventToReceiptMs),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_clock_offset_seconds',
    help: "Minimum of receipt minus event time over the last minute: the lead of this clock over the exchange's, plus the shortest network delay. Negative if this clock lags.",
    read: ({ status: { clockOffsetMs } }) => (clockOffsetMs === null ? null : clockOffsetMs / 1000),
  },
]

const KAFKA_METRICS: ReadonlyArray<MetricSpec<IngestionMetricValues>> = [
  {
    kind: 'counter',
    name: 'tapeline_ingestion_messages_acknowledged_total',
    help: 'Events acknowledged by Kafka.',
    read: ({ status }) => status.counters.acknowledged,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_queue_messages',
    help: 'Events waiting for Kafka.',
    read: ({ status }) => status.counters.queued,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_queue_bytes',
    help: 'Bytes waiting for Kafka.',
    read: ({ status }) => status.queueBytes,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_queue_limit_bytes',
    help: 'Queue limit in bytes, at which the sockets pause (KAFKA_QUEUE_MAX_BYTES).',
    read: ({ queueMaxBytes }) => queueMaxBytes,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_oldest_unacknowledged_seconds',
    help: 'Age of the oldest unacknowledged message.',
    read: ({ status }) => status.oldestUnacknowledgedMs / 1000,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_sends_total',
    help: 'Batches acknowledged by Kafka.',
    read: ({ sends }) => sends,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_send_failures_total',
    help: 'Failed attempts to send a batch, each retried.',
    read: ({ sendFailures }) => sendFailures,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_slow_sends_total',
    help: 'Batches that waited longer than 10 s for their acknowledgement.',
    read: ({ slowSends }) => slowSends,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_held_partitions',
    help: 'Set-aside partitions: Kafka does not take them, although it names their leaders or takes others.',
    read: ({ status }) => status.heldPartitions.length,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_events_discarded_total',
    help: 'Events discarded because Kafka did not take them and the queue was full; the ledger lists them.',
    read: ({ status }) => status.counters.discarded,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_truncations_total',
    help: 'Detections of a partition that lost acknowledged messages, including those at start.',
    read: ({ truncations }) => truncations,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_unsaved_ledger_rows_total',
    help: 'Ledger rows that waited for Kafka and were left out of checkpoints because too many waited.',
    read: ({ unsavedRows }) => unsavedRows,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_send_seconds',
    help: 'Time from sending a batch to its acknowledgement, over the last minute.',
    labels: ['quantile'],
    read: ({ sendMs }) => quantiles(sendMs),
  },
]

/** Prometheus metrics of ingestion. Symbols are no labels, because their number is unbounded. */
export const INGESTION_METRICS: ReadonlyArray<MetricSpec<IngestionMetricValues>> = [
  ...EXCHANGE_METRICS,
  ...KAFKA_METRICS,
  ...GAP_METRICS,
]

function streamsByType({ streams }: IngestionStatus, counts: (stream: StreamStatus) => boolean): Reading {
  const found: Record<string, number> = {}
  for (const [name, stream] of Object.entries(streams)) {
    const type = eventTypeOf(name)
    if (type !== null && counts(stream)) found[type] = (found[type] ?? 0) + 1
  }
  return byLabel('type', EVENT_TYPES, found)
}
