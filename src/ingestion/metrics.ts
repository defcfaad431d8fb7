import { DEPTH_WEIGHTS } from '../foundation/binance/depth-rest.ts'
import { eventTypeOf, SEQUENCED_TYPES, STREAM_TYPES } from '../foundation/market/event.ts'
import { INGESTION_CAUSES, OUTAGE_CAUSES } from '../foundation/market/gap-causes.ts'
import { countIds } from '../foundation/market/id-ranges.ts'
import { byLabel, type Metrics, quantiles, type Series, seconds } from '../foundation/telemetry/metrics.ts'
import type { IngestionStatus, StreamStatus } from '../foundation/telemetry/status.ts'
import { countOf, type Tally } from '../foundation/telemetry/tally.ts'
import { NEEDS } from './anchors/anchor-need.ts'
import type { StatusSources } from './status.ts'
import { LEFT_OUT_REASONS } from './symbol-selection.ts'

const OUTCOMES = ['forwarded', 'duplicate', 'control', 'ignored', 'rejected'] as const
const CONNECTION_STATES = ['waiting', 'connecting', 'open', 'streaming', 'paused'] as const
const ANSWERS = ['ok', '403', '418', '429', '451', 'rejected', 'failed'] as const
const SNAPSHOT_LEVELS = DEPTH_WEIGHTS.map(({ limit }) => String(limit))
const HANDSHAKE_STATUSES = ['403', '418', '429', '451', '5xx', 'other'] as const

/** The parts of ingestion, and what `/status` shows of them. */
interface MetricSources extends StatusSources {
  readonly status: IngestionStatus
}

/** The metrics of ingestion. Symbols are no labels, because their number is unbounded. */
export const INGESTION_METRICS: Metrics<MetricSources> = {
  tapeline_ingestion_ready: {
    help: '1 while every connection is open and Kafka acknowledges.',
    read: ({ status }) => (status.ready ? 1 : 0),
  },
  tapeline_ingestion_connections: {
    help: 'Connections to the exchange, by state.',
    labels: ['state'],
    read: ({ status }) =>
      byLabel('state', countOf(status.connections.map(({ state }) => state)), CONNECTION_STATES),
  },
  tapeline_ingestion_oldest_connection_seconds: {
    help: 'Age of the oldest open connection.',
    read: ({ status }) => Math.max(0, ...status.connections.map(({ ageMs }) => ageMs ?? 0)) / 1000,
  },
  tapeline_ingestion_connection_max_age_seconds: {
    help: 'Maximum age of a connection (CONNECTION_MAX_AGE_HOURS).',
    read: ({ config }) => config.connectionMaxAgeMs / 1000,
  },
  tapeline_ingestion_connections_lost_total: {
    help: 'Connections that ended unexpectedly.',
    read: ({ connections }) => connections?.lost ?? 0,
  },
  tapeline_ingestion_rollovers_total: {
    help: 'Connections replaced without a break.',
    read: ({ status }) => status.rollovers,
  },
  tapeline_ingestion_streams: {
    help: 'Subscribed streams, by event type.',
    labels: ['type'],
    read: ({ status }) => streamsByType(status, () => true),
  },
  tapeline_ingestion_symbols: {
    help: 'Subscribed symbols, by whether they trade.',
    labels: ['state'],
    read: ({ selection: { subscribed, halted } }) =>
      byLabel('state', { trading: subscribed.size - halted.size, halted: halted.size }),
  },
  tapeline_ingestion_symbols_left_out: {
    help: 'Symbols without a subscription, by reason. The log names them.',
    labels: ['reason'],
    read: ({ selection: { leftOut } }) => byLabel('reason', countOf(leftOut.values()), LEFT_OUT_REASONS),
  },
  tapeline_ingestion_quiet_streams: {
    help: 'Streams silent for much longer than their usual interval, by event type.',
    labels: ['type'],
    read: ({ status }) => streamsByType(status, ({ quiet }) => quiet),
  },
  tapeline_ingestion_frames_received_total: {
    help: 'Frames received from the exchange.',
    read: ({ status }) => status.counters.received,
  },
  tapeline_ingestion_frames_total: {
    help: 'Frames by outcome.',
    labels: ['outcome'],
    read: ({ status }) => byLabel('outcome', status.counters, OUTCOMES),
  },
  tapeline_ingestion_frames_not_forwarded_total: {
    help: 'Frames ignored or rejected, by reason; rejected frames become dead letters.',
    labels: ['outcome', 'reason'],
    read: ({ status: { ignoredByReason, rejectedByReason } }) =>
      Object.entries({ ignored: ignoredByReason, rejected: rejectedByReason }).flatMap(([outcome, reasons]) =>
        Object.entries(reasons).map(([reason, value]) => ({ labels: { outcome, reason }, value })),
      ),
  },
  tapeline_ingestion_rejected_streams: {
    help: 'Streams with more than 1 % rejected frames in the last minute; /status names them.',
    read: ({ status }) => status.rejectedStreams.length,
  },
  tapeline_ingestion_events_parsed_total: {
    help: "Events in a layout other than Binance's, parsed with JSON.parse at several times the cost.",
    read: ({ pipeline }) => pipeline?.core.parsedEvents ?? 0,
  },
  tapeline_ingestion_event_to_receipt_seconds: {
    help: "Receipt minus the exchange's event time over the last minute; negative when the clocks differ.",
    labels: ['quantile'],
    read: ({ status }) => quantiles(status.eventToReceiptMs),
  },
  tapeline_ingestion_clock_offset_seconds: {
    help: "Minimum of receipt minus event time over the last minute: the lead of this clock over the exchange's, plus the shortest network delay. Negative if this clock lags.",
    read: ({ status }) => seconds(status.clockOffsetMs),
  },
  tapeline_ingestion_messages_acknowledged_total: {
    help: 'Events acknowledged by Kafka.',
    read: ({ status }) => status.counters.acknowledged,
  },
  tapeline_ingestion_queue_messages: {
    help: 'Events waiting for Kafka.',
    read: ({ status }) => status.counters.queued,
  },
  tapeline_ingestion_queue_bytes: {
    help: 'Bytes waiting for Kafka.',
    read: ({ status }) => status.queueBytes,
  },
  tapeline_ingestion_queue_limit_bytes: {
    help: 'Queue limit in bytes, at which the sockets pause (KAFKA_QUEUE_MAX_BYTES).',
    read: ({ config }) => config.queueMaxBytes,
  },
  tapeline_ingestion_oldest_unacknowledged_seconds: {
    help: 'Age of the oldest unacknowledged message.',
    read: ({ status }) => status.oldestUnacknowledgedMs / 1000,
  },
  tapeline_ingestion_sends_total: {
    help: 'Batches acknowledged by Kafka.',
    read: ({ producer }) => producer.batches.sends,
  },
  tapeline_ingestion_send_failures_total: {
    help: 'Failed attempts to send a batch, each retried.',
    read: ({ producer }) => producer.batches.failures,
  },
  tapeline_ingestion_slow_sends_total: {
    help: 'Batches that waited longer than 10 s for their acknowledgement.',
    read: ({ producer }) => producer.batches.slowSends,
  },
  tapeline_ingestion_held_partitions: {
    help: 'Set-aside partitions: Kafka does not take them, although it names their leaders or takes others.',
    read: ({ status }) => status.heldPartitions.length,
  },
  tapeline_ingestion_events_discarded_total: {
    help: 'Events discarded because Kafka did not take them and the queue was full; the ledger lists them.',
    read: ({ status }) => status.counters.discarded,
  },
  tapeline_ingestion_truncations_total: {
    help: 'Detections of a partition that lost acknowledged messages, including those at start.',
    read: ({ pipeline }) => pipeline?.truncations,
  },
  tapeline_ingestion_unsaved_ledger_rows_total: {
    help: 'Ledger rows that waited for Kafka and were left out of checkpoints because too many waited.',
    read: ({ pipeline }) => pipeline?.unsavedRows,
  },
  tapeline_ingestion_send_seconds: {
    help: 'Time from sending a batch to its acknowledgement, over the last minute.',
    labels: ['quantile'],
    read: ({ producer, clock }) => quantiles(producer.batches.sendTimes(clock.monotonicMs())),
  },
  tapeline_ingestion_open_gaps: {
    help: 'Open gaps: ranges of missing ids that backfill still requests.',
    read: ({ status }) => status.openGaps.length,
  },
  tapeline_ingestion_open_gap_ids: {
    help: 'Missing ids in open gaps.',
    read: ({ pipeline }) =>
      pipeline?.ledger.openGaps.reduce((sum, gap) => sum + countIds(pipeline.core.missingIn(gap)), 0),
  },
  tapeline_ingestion_oldest_open_gap_seconds: {
    help: 'Age of the oldest open gap; 0 when there is none.',
    read: ({ pipeline, clock }) =>
      // No spread: there may be more gaps than a call takes arguments.
      seconds(
        pipeline?.ledger.openGaps.reduce(
          (age, gap) => Math.max(age, clock.wallMicros() / 1000 - gap.detected_at),
          0,
        ),
      ),
  },
  tapeline_ingestion_gaps_opened_total: {
    help: 'Gaps of ids found, by event type and cause.',
    labels: ['type', 'cause'],
    read: ({ pipeline }) => grid('cause', INGESTION_CAUSES, pipeline?.ledger.opened),
  },
  tapeline_ingestion_gaps_closed_total: {
    help: 'Gaps of ids closed, by event type and status.',
    labels: ['type', 'status'],
    read: ({ pipeline }) => grid('status', ['filled', 'unrecoverable'], pipeline?.ledger.closed),
  },
  tapeline_ingestion_messages_backfilled_total: {
    help: 'Missing trades, aggTrades and block trades fetched over REST.',
    read: ({ status }) => status.counters.backfilled,
  },
  tapeline_ingestion_book_ticker_outages_total: {
    help: 'Windows without quotes of a symbol in the ledger, by cause. They cannot be backfilled.',
    labels: ['cause'],
    read: ({ pipeline }) => byLabel('cause', pipeline?.ledger.outages.of('count'), OUTAGE_CAUSES),
  },
  tapeline_ingestion_book_ticker_outage_seconds_total: {
    help: 'Total length of the windows without quotes, over all symbols.',
    labels: ['cause'],
    read: ({ pipeline }) =>
      byLabel('cause', pipeline?.ledger.outages.of('ms'), OUTAGE_CAUSES).map(({ labels, value }) => ({
        labels,
        value: value / 1000,
      })),
  },
  tapeline_ingestion_order_books: {
    help: 'Symbols whose order book is recorded.',
    read: ({ status }) => status.books?.symbols ?? 0,
  },
  tapeline_ingestion_order_books_in_need: {
    help: 'Order books that need a snapshot, by reason; missing: no book can be built of what comes now.',
    labels: ['need'],
    read: ({ status }) => byLabel('need', status.books?.needs, NEEDS),
  },
  tapeline_ingestion_oldest_snapshot_seconds: {
    help: 'Age of the oldest usable snapshot of an order book; 0 when there is none.',
    read: ({ status }) => (status.books?.oldestAnchorAgeMs ?? 0) / 1000,
  },
  tapeline_ingestion_snapshot_max_age_seconds: {
    help: 'Age at which a snapshot is replaced (DEPTH_SNAPSHOT_HOURS).',
    read: ({ config }) => config.snapshotMaxAgeMs / 1000,
  },
  tapeline_ingestion_snapshots_total: {
    help: 'Snapshots of order books sent to Kafka, by levels per side.',
    labels: ['levels'],
    read: (sources) => byLabel('levels', books(sources)?.sent.of('sent'), SNAPSHOT_LEVELS),
  },
  tapeline_ingestion_stale_snapshots_total: {
    help: 'Snapshots not used, because they are older than the first update after a hole, or than the one to replace.',
    read: (sources) => books(sources)?.stale ?? 0,
  },
  tapeline_ingestion_rest_requests_total: {
    help: 'Requests for trades and snapshots, by answer: ok, an HTTP status that stops requests, rejected (another 4xx) or failed.',
    labels: ['answer'],
    read: ({ pipeline }) => byLabel('answer', pipeline?.rest.metricValues().answers, ANSWERS),
  },
  tapeline_ingestion_rest_waiting_requests: {
    help: 'Requests waiting for their turn.',
    read: ({ pipeline }) => pipeline?.rest.metricValues().waiting,
  },
  tapeline_ingestion_rest_blocked_seconds: {
    help: 'Remaining time without requests, because the exchange refuses them or its limit is near.',
    read: ({ pipeline }) => seconds(pipeline?.rest.metricValues().waitLeftMs),
  },
  tapeline_ingestion_handshakes_refused_total: {
    help: 'WebSocket handshakes answered with an HTTP error, by status.',
    labels: ['status'],
    read: ({ gate }) => byLabel('status', gate.handshakesRefused, HANDSHAKE_STATUSES),
  },
  tapeline_ingestion_handshakes_blocked_seconds: {
    help: 'Remaining time without WebSocket handshakes, because the exchange refused one.',
    read: ({ gate }) => gate.leftMs('handshakes') / 1000,
  },
  tapeline_ingestion_rest_weight_total: {
    help: 'Request weight used by this process.',
    read: ({ pipeline }) => pipeline?.rest.metricValues().weightSpent ?? 0,
  },
  tapeline_ingestion_rest_weight_limit_per_minute: {
    help: 'Request weight allowed to this process per minute (REST_WEIGHT_PER_MINUTE).',
    read: ({ pipeline }) => pipeline?.rest.metricValues().weightPerMinute,
  },
  tapeline_ingestion_rest_ip_weight: {
    help: 'Request weight used by the whole IP this minute, as last reported by the exchange; absent after a minute without a report.',
    read: ({ pipeline }) => pipeline?.rest.metricValues().ipWeight,
  },
}

/** Snapshots of order books; the process records none without a pipeline or `depth`. */
const books = ({ pipeline }: MetricSources) => pipeline?.anchors ?? null

function streamsByType({ streams }: IngestionStatus, counts: (stream: StreamStatus) => boolean): Series {
  const counted = Object.entries(streams).flatMap(([name, stream]) =>
    counts(stream) ? (eventTypeOf(name) ?? []) : [],
  )
  return byLabel('type', countOf(counted), STREAM_TYPES)
}

/** Returns a value for each type with ids and each word, 0 for those not counted yet. */
function grid(label: string, words: readonly string[], counts: Tally | undefined): Series {
  return SEQUENCED_TYPES.flatMap((type) =>
    byLabel(label, counts?.of(type), words).map(({ labels, value }) => ({
      labels: { type, ...labels },
      value,
    })),
  )
}
