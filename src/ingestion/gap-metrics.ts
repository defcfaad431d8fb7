import { byLabel, type MetricSpec, type Reading } from '../foundation/telemetry/metrics.ts'
import type { Counts, IngestionMetricValues } from './metric-values.ts'

/** Why something may be missing before an event; specification: C and S. */
const CAUSES = [
  'reconnect',
  'restart',
  'stall',
  'silent',
  'listed',
  'delisted',
  'missed',
  'reset',
  'clock',
  'refused',
  'too large',
] as const
const OUTAGE_CAUSES = ['reconnect', 'restart', 'stall', 'reset', 'clock', 'refused', 'too large'] as const
const ID_TYPES = ['trade', 'aggTrade'] as const
const CLOSED = ['filled', 'unrecoverable'] as const
const ANSWERS = ['ok', '403', '418', '429', '451', 'rejected', 'failed'] as const
const HANDSHAKE_STATUSES = ['403', '418', '429', '451', '5xx', 'other'] as const

/** What is missing, what is done about it, and what the exchange allows to be done. */
export const GAP_METRICS: ReadonlyArray<MetricSpec<IngestionMetricValues>> = [
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_open_gaps',
    help: 'Ranges of ids that are missing and being looked for.',
    read: ({ status }) => status.openGaps.length,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_open_gap_ids',
    help: 'Ids in open gaps that are yet to be fetched.',
    read: ({ gaps }) => gaps?.openIds ?? null,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_oldest_open_gap_seconds',
    help: 'Age of the oldest open gap; 0 when there is none.',
    read: ({ gaps }) => (gaps === null ? null : gaps.oldestOpenMs / 1000),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_gaps_opened_total',
    help: 'Gaps of ids that were found, by event type and cause.',
    labels: ['type', 'cause'],
    read: ({ gaps }) => grid(ID_TYPES, 'cause', CAUSES, gaps?.opened),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_gaps_closed_total',
    help: 'Gaps of ids that were closed, by event type and how.',
    labels: ['type', 'status'],
    read: ({ gaps }) => grid(ID_TYPES, 'status', CLOSED, gaps?.closed),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_messages_backfilled_total',
    help: 'Trades and aggTrades fetched over REST because they were missing.',
    read: ({ status }) => status.counters.backfilled,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_book_ticker_outages_total',
    help: 'Windows without quotes of a symbol that were entered into the ledger, by cause. Nothing can fill them.',
    labels: ['cause'],
    read: ({ gaps }) => byLabel('cause', OUTAGE_CAUSES, gaps?.outages['count'] ?? {}),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_book_ticker_outage_seconds_total',
    help: 'Length of those windows, summed over the symbols.',
    labels: ['cause'],
    read: ({ gaps }) =>
      OUTAGE_CAUSES.map((cause) => ({
        labels: { cause },
        value: (gaps?.outages['ms']?.[cause] ?? 0) / 1000,
      })),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_rest_requests_total',
    help: 'Requests for trades, by answer: ok, an HTTP status that says to wait or go, rejected (another 4xx) or failed.',
    labels: ['answer'],
    read: ({ rest }) => byLabel('answer', ANSWERS, rest?.answers ?? {}),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_rest_waiting_requests',
    help: 'Requests that wait for their turn.',
    read: ({ rest }) => rest?.waiting ?? null,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_rest_blocked_seconds',
    help: 'How long the exchange, or the nearness of its limit, still forbids requests.',
    read: ({ rest }) => (rest === null ? null : rest.waitLeftMs / 1000),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_handshakes_refused_total',
    help: 'WebSocket handshakes that were answered with an HTTP error, by status.',
    labels: ['status'],
    read: ({ handshakesRefused }) => byLabel('status', HANDSHAKE_STATUSES, handshakesRefused),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_handshakes_blocked_seconds',
    help: 'How long no WebSocket handshake is tried because the exchange refused one.',
    read: ({ handshakesBlockedMs }) => handshakesBlockedMs / 1000,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_rest_weight_total',
    help: 'Request weight that this process has used.',
    read: ({ rest }) => rest?.weightSpent ?? 0,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_rest_weight_limit_per_minute',
    help: 'Request weight that it may use in a minute (REST_WEIGHT_PER_MINUTE).',
    read: ({ rest }) => rest?.weightPerMinute ?? null,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_rest_ip_weight',
    help: 'Request weight that the whole IP has used this minute, as the exchange said last; none where it has said nothing for a minute.',
    read: ({ rest }) => rest?.ipWeight ?? null,
  },
]

function grid(
  types: readonly string[],
  label: string,
  words: readonly string[],
  counts: Counts | undefined,
): Reading {
  return types.flatMap((type) =>
    words.map((word) => ({ labels: { type, [label]: word }, value: counts?.[type]?.[word] ?? 0 })),
  )
}
