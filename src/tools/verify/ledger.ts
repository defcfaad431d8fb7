import type { EventType } from '../../foundation/market/event.ts'
import { counted } from '../../foundation/telemetry/plural.ts'
import type { Finding, NotChecked } from './report-types.ts'
import { type CheckContext, isCut, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'

/**
 * Whether a ledger row touches the range, by the times of the surrounding events; `untimed` decides
 * if it has none.
 */
const inRange = (gap: string, from: string, to: string, untimed: string) =>
  `CASE WHEN ${gap}.from_time IS NULL AND ${gap}.to_time IS NULL THEN ${untimed}
    ELSE coalesce(${gap}.from_time, ${gap}.to_time) < ${to}::timestamptz
      AND coalesce(${gap}.to_time, ${gap}.from_time) >= ${from}::timestamptz END`

/** Decides by the ids stored in the range. */
const byIds = (gap: string) => `NOT $5::boolean OR EXISTS (
    SELECT FROM jsonb_to_recordset($6::jsonb) AS row (symbol text, event_type text, epoch int, first_id bigint, last_id bigint)
    WHERE row.symbol = ${gap}.symbol AND row.event_type = ${gap}.event_type AND row.epoch = ${gap}.epoch
      AND ${gap}.from_id <= row.last_id AND ${gap}.to_id >= row.first_id)`

/** Decides by the detection time. */
const FOUND = `gaps.detected_at >= $3::timestamptz AND gaps.detected_at < $4::timestamptz`

/**
 * Lists open gaps; partly filled gaps; and windows of trades whose ids are unknown because they
 * were restarted. A partly filled gap keeps its id and is narrowed. The rest begins after it and
 * has the same detection time.
 */
const STATES = `WITH named AS (
    SELECT symbol, event_type, epoch, gap_id, from_id, to_id, 'open' AS kind,
      format('%s since %s', cause, detected_at) AS detail
    FROM gaps WHERE status = 'open' AND ${inRange('gaps', '$3', '$4', byIds('gaps'))}
    UNION ALL
    SELECT symbol, event_type, epoch, gap_id, NULL, NULL, 'window',
      format('%s from %s to %s: %s', cause, from_time, to_time, reason)
    FROM gaps WHERE from_id IS NULL AND event_type <> 'bookTicker' AND status <> 'filled'
      AND ${inRange('gaps', '$3', '$4', 'false')}
    UNION ALL
    SELECT gap.symbol, gap.event_type, gap.epoch, gap.gap_id, gap.from_id, gap.to_id, 'narrowed',
      format('%s, the rest %s..%s is %s', gap.status, rest.from_id, rest.to_id, rest.status)
    FROM gaps AS gap JOIN gaps AS rest ON rest.symbol = gap.symbol AND rest.event_type = gap.event_type AND rest.epoch = gap.epoch
      AND rest.from_id = gap.to_id + 1 AND rest.detected_at = gap.detected_at
    WHERE ${inRange('gap', '$3', '$4', byIds('gap'))}),
  placed AS (
    SELECT *, (count(*) OVER same)::float8 AS total, row_number() OVER (same ORDER BY from_id) AS place
    FROM named WHERE $1::text[] IS NULL OR symbol = ANY($1)
    WINDOW same AS (PARTITION BY symbol, event_type, epoch, kind))
SELECT * FROM placed WHERE place <= $2 ORDER BY symbol, event_type DESC, epoch, kind, place`

/** Rows that share ids with an earlier row of the same stream. One of them is wrong, or will be. */
const OVERLAPS = `WITH ranges AS (
    SELECT *, max(to_id) OVER earlier AS reaches
    FROM gaps WHERE from_id <= to_id AND ($1::text[] IS NULL OR symbol = ANY($1))
    WINDOW earlier AS (PARTITION BY symbol, event_type, epoch ORDER BY from_id, gap_id 
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),
  placed AS (
    SELECT symbol, event_type, epoch, gap_id, from_id, least(to_id, reaches) AS to_id, 'overlap' AS kind,
      format('%s, and an earlier row has ids up to %s', status, reaches) AS detail,
      (count(*) OVER same)::float8 AS total, row_number() OVER (same ORDER BY from_id) AS place
    FROM ranges WHERE from_id <= reaches AND ${inRange('ranges', '$3', '$4', byIds('ranges'))}
    WINDOW same AS (PARTITION BY symbol, event_type, epoch))
SELECT * FROM placed WHERE place <= $2 ORDER BY symbol, event_type DESC, epoch, place`

/** Ledger rows of sequences without stored rows, so there is nothing to compare them with. */
const UNSTORED = `SELECT symbol, event_type, count(*)::float8 AS total FROM gaps
  WHERE from_id IS NOT NULL AND ($2::text[] IS NULL OR symbol = ANY($2)) AND ${inRange('gaps', '$3', '$4', FOUND)} AND NOT EXISTS (
    SELECT 1 FROM jsonb_to_recordset($1::jsonb) AS row (symbol text, event_type text, epoch int)
    WHERE row.symbol = gaps.symbol AND row.event_type = gaps.event_type AND row.epoch = gaps.epoch)
  GROUP BY symbol, event_type ORDER BY symbol, event_type DESC`

interface GapRow {
  readonly symbol: string
  readonly event_type: EventType
  readonly epoch: number
  readonly gap_id: string
  readonly from_id: string | null
  readonly to_id: string | null
  readonly total: number
}

const SUMMARIES = {
  open: (count: number) => `${counted(count, 'gap')} still open`,
  narrowed: (count: number) => `${counted(count, 'gap')} partly filled, and narrowed`,
  overlap: (count: number) => `${counted(count, 'ledger row')} with ids that are also in another row`,
  window: (count: number) => `${counted(count, 'window')} in which trades with unknown ids may be missing`,
}

/** Compares the ledger with the rows. Continuity checks whether filled ranges are stored. */
export async function checkLedger(
  { connection, scope, limit }: CheckContext,
  sequences: readonly Sequence[],
): Promise<{ findings: Finding[]; notChecked: NotChecked[] }> {
  const json = JSON.stringify(
    sequences.map(({ symbol, eventType, epoch, firstId, lastId }) => ({
      symbol,
      event_type: eventType,
      epoch,
      first_id: firstId,
      last_id: lastId,
    })),
  )
  const range = timeBounds(scope)
  const states = await connection.query<GapRow & { kind: keyof typeof SUMMARIES; detail: string }>(STATES, [
    scope.symbols,
    limit,
    ...range,
    isCut(scope),
    json,
  ])
  const overlaps = await connection.query<GapRow & { kind: keyof typeof SUMMARIES; detail: string }>(
    OVERLAPS,
    [scope.symbols, limit, ...range, isCut(scope), json],
  )
  const unstored = await connection.query<{ symbol: string; event_type: string; total: number }>(UNSTORED, [
    json,
    scope.symbols,
    ...range,
  ])
  const named = [...overlaps.rows, ...states.rows].map((row) => ({
    ...row,
    detail: `${row.gap_id}: ${row.detail}`,
  }))
  return {
    findings: grouped(named),
    notChecked: unstored.rows.map(({ symbol, event_type, total }) => ({
      what: `${counted(total, 'ledger row')} of ${event_type}, without stored rows`,
      symbol,
      count: total,
      examples: [],
    })),
  }
}

function grouped(
  rows: ReadonlyArray<GapRow & { readonly kind: keyof typeof SUMMARIES; readonly detail: string }>,
): Finding[] {
  const keyOf = (row: (typeof rows)[number]) => [row.symbol, row.event_type, row.epoch, row.kind].join(' ')
  return [...Map.groupBy(rows, keyOf).values()].flatMap((cases) => {
    const [first] = cases
    if (first === undefined) return []
    return [
      {
        check: 'ledger',
        kind: first.kind,
        severity: first.kind === 'overlap' ? 'failure' : 'notice',
        symbol: first.symbol,
        eventType: first.event_type,
        epoch: first.epoch,
        count: first.total,
        summary: SUMMARIES[first.kind](first.total),
        examples: cases.map(({ from_id, to_id, detail }) => ({
          from: from_id === null ? null : Number(from_id),
          to: to_id === null ? null : Number(to_id),
          detail,
        })),
      },
    ]
  })
}
