import { TRADE_TYPES } from '../foundation/market/event.ts'
import { GAP_CAUSES, INGESTION_CAUSES } from '../foundation/market/gap-causes.ts'
import { byLabel, type MetricSpec, type Reading } from '../foundation/telemetry/metrics.ts'
import type { Counts, IngestionMetricValues } from './status.ts'

const OUTAGE_CAUSES = INGESTION_CAUSES.filter((cause) => GAP_CAUSES[cause].hasWindows)
const CLOSED = ['filled', 'unrecoverable'] as const
const ANSWERS = ['ok', '403', '418', '429', '451', 'rejected', 'failed'] as const
const HANDSHAKE_STATUSES = ['403', '418', '429', '451', '5xx', 'other'] as const

/** Metrics of gaps, of backfill and of the exchange's limits. */
export const GAP_METRICS: ReadonlyArray<MetricSpec<IngestionMetricValues>> = [
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_open_gaps',
    help: 'Open gaps: ranges of missing ids that backfill still requests.',
    read: ({ status }) => status.openGaps.length,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_open_gap_ids',
    help: 'Missing ids in open gaps.',
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
    help: 'Gaps of ids found, by event type and cause.',
    labels: ['type', 'cause'],
    read: ({ gaps }) => grid(TRADE_TYPES, 'cause', INGESTION_CAUSES, gaps?.opened),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_gaps_closed_total',
    help: 'Gaps of ids closed, by event type and status.',
    labels: ['type', 'status'],
    read: ({ gaps }) => grid(TRADE_TYPES, 'status', CLOSED, gaps?.closed),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_messages_backfilled_total',
    help: 'Missing trades and aggTrades fetched over REST.',
    read: ({ status }) => status.counters.backfilled,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_book_ticker_outages_total',
    help: 'Windows without quotes of a symbol in the ledger, by cause. They cannot be backfilled.',
    labels: ['cause'],
    read: ({ gaps }) => byLabel('cause', OUTAGE_CAUSES, gaps?.outages['count'] ?? {}),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_book_ticker_outage_seconds_total',
    help: 'Total length of the windows without quotes, over all symbols.',
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
    help: 'Requests for trades, by answer: ok, an HTTP status that stops requests, rejected (another 4xx) or failed.',
    labels: ['answer'],
    read: ({ rest }) => byLabel('answer', ANSWERS, rest?.answers ?? {}),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_rest_waiting_requests',
    help: 'Requests waiting for their turn.',
    read: ({ rest }) => rest?.waiting ?? null,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_rest_blocked_seconds',
    help: 'Remaining time without requests, because the exchange refuses them or its limit is near.',
    read: ({ rest }) => (rest === null ? null : rest.waitLeftMs / 1000),
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_handshakes_refused_total',
    help: 'WebSocket handshakes answered with an HTTP error, by status.',
    labels: ['status'],
    read: ({ handshakesRefused }) => byLabel('status', HANDSHAKE_STATUSES, handshakesRefused),
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_handshakes_blocked_seconds',
    help: 'Remaining time without WebSocket handshakes, because the exchange refused one.',
    read: ({ handshakesBlockedMs }) => handshakesBlockedMs / 1000,
  },
  {
    kind: 'counter',
    name: 'tapeline_ingestion_rest_weight_total',
    help: 'Request weight used by this process.',
    read: ({ rest }) => rest?.weightSpent ?? 0,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_rest_weight_limit_per_minute',
    help: 'Request weight allowed to this process per minute (REST_WEIGHT_PER_MINUTE).',
    read: ({ rest }) => rest?.weightPerMinute ?? null,
  },
  {
    kind: 'gauge',
    name: 'tapeline_ingestion_rest_ip_weight',
    help: 'Request weight used by the whole IP this minute, as last reported by the exchange; absent after a minute without a report.',
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
