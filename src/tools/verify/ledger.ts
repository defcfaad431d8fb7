import type { EventType } from '../../foundation/market/event.ts'
import { counted } from '../../foundation/telemetry/plural.ts'
import { finding, firstCases, type Remark, readCases, unchecked } from './findings.ts'
import { type CheckContext, isCut, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'

/** Whether a ledger row touches the range, by the times of the events; else `untimed` decides. */
const inRange = (gap: string, from: string, to: string, untimed: string) =>
  `CASE WHEN ${gap}.from_time IS NULL AND ${gap}.to_time IS NULL THEN ${untimed}
    ELSE coalesce(${gap}.from_time, ${gap}.to_time) < ${to}::timestamptz
      AND coalesce(${gap}.to_time, ${gap}.from_time) >= ${from}::timestamptz END`

/** SQL: the sequences that have rows; `$5` to `$9` are {@link sequenceColumns}. */
const STORED = `(SELECT unnest($5::text[]) AS symbol, unnest($6::text[]) AS event_type, unnest($7::int[]) AS epoch,
      unnest($8::bigint[]) AS first_id, unnest($9::bigint[]) AS last_id) AS stored`

const ofSequence = (gap: string) =>
  `stored.symbol = ${gap}.symbol AND stored.event_type = ${gap}.event_type AND stored.epoch = ${gap}.epoch`

function sequenceColumns(sequences: readonly Sequence[]): unknown[][] {
  return [
    sequences.map(({ symbol }) => symbol),
    sequences.map(({ eventType }) => eventType),
    sequences.map(({ epoch }) => epoch),
    sequences.map(({ firstId }) => firstId),
    sequences.map(({ lastId }) => lastId),
  ]
}

/** Decides by the ids stored in the range. */
const byIds = (gap: string) => `NOT $10::boolean OR EXISTS (
    SELECT 1 FROM ${STORED}
    WHERE ${ofSequence(gap)} AND ${gap}.from_id <= stored.last_id AND ${gap}.to_id >= stored.first_id)`

/** Decides by the detection time. */
const FOUND = `gaps.detected_at >= $3::timestamptz AND gaps.detected_at < $4::timestamptz`

/**
 * Lists open gaps; partly filled gaps; and windows of trades whose ids are unknown because they
 * were restarted. A partly filled gap keeps its id and is narrowed. The rest begins after it and
 * has the same detection time.
 */
const STATES = `WITH named AS (
    SELECT symbol, event_type, epoch, from_id, to_id, 'open' AS kind,
      concat(gap_id, ': ', cause, ' since ', detected_at) AS detail
    FROM gaps WHERE status = 'open' AND ${inRange('gaps', '$3', '$4', byIds('gaps'))}
    UNION ALL
    SELECT symbol, event_type, epoch, NULL::bigint, NULL::bigint, 'window',
      concat(gap_id, ': ', cause, ' from ', from_time, ' to ', to_time, ': ', reason)
    FROM gaps WHERE from_id IS NULL AND event_type <> 'bookTicker' AND status <> 'filled'
      AND ${inRange('gaps', '$3', '$4', 'false')}
    UNION ALL
    SELECT gap.symbol, gap.event_type, gap.epoch, gap.from_id, gap.to_id, 'narrowed',
      concat(gap.gap_id, ': ', gap.status, ', the rest ', rest.from_id, '..', rest.to_id, ' is ', rest.status)
    FROM gaps AS gap JOIN gaps AS rest ON rest.symbol = gap.symbol AND rest.event_type = gap.event_type AND rest.epoch = gap.epoch
      AND rest.from_id = gap.to_id + 1 AND rest.detected_at = gap.detected_at
    WHERE ${inRange('gap', '$3', '$4', byIds('gap'))}),
  ${firstCases('named WHERE $1::text[] IS NULL OR symbol = ANY($1)', '$2')}`

/** Rows that share ids with an earlier row of the same stream. One of them is wrong, or will be. */
const OVERLAPS = `WITH ranges AS (
    SELECT *, max(to_id) OVER earlier AS reaches
    FROM gaps WHERE from_id <= to_id AND ($1::text[] IS NULL OR symbol = ANY($1))
    WINDOW earlier AS (PARTITION BY symbol, event_type, epoch ORDER BY from_id, gap_id 
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),
  shared AS (
    SELECT symbol, event_type, epoch, from_id, least(to_id, reaches) AS to_id, 'overlap' AS kind,
      concat(gap_id, ': ', status, ', and an earlier row has ids up to ', reaches) AS detail
    FROM ranges WHERE from_id <= reaches AND ${inRange('ranges', '$3', '$4', byIds('ranges'))}),
  ${firstCases('shared', '$2')}`

/** Ledger rows of sequences without stored rows, so there is nothing to compare them with. */
const UNSTORED = `WITH unstored AS (
    SELECT symbol, event_type, NULL::integer AS epoch, 'unstored' AS kind, from_id, to_id, NULL::text AS detail FROM gaps
    WHERE from_id IS NOT NULL AND ($1::text[] IS NULL OR symbol = ANY($1)) AND ${inRange('gaps', '$3', '$4', FOUND)}
      AND NOT EXISTS (SELECT 1 FROM ${STORED} WHERE ${ofSequence('gaps')})),
  ${firstCases('unstored', '$2')}`

const SUMMARIES: Readonly<Record<string, (count: number, type: EventType | null) => string>> = {
  open: (count) => `${counted(count, 'gap')} still open`,
  narrowed: (count) => `${counted(count, 'gap')} partly filled, and narrowed`,
  overlap: (count) => `${counted(count, 'ledger row')} with ids that are also in another row`,
  window: (count, type) =>
    `${counted(count, 'window')} in which ${type === 'depth' ? 'changes' : 'trades'} with unknown ids may be missing`,
}

/** Compares the ledger with the rows. Continuity checks whether filled ranges are stored. */
export async function checkLedger(
  { connection, scope, limit }: CheckContext,
  sequences: readonly Sequence[],
): Promise<Remark[]> {
  const values = [scope.symbols, limit, ...timeBounds(scope), ...sequenceColumns(sequences)]
  const known = [
    ...(await readCases(connection, OVERLAPS, [...values, isCut(scope)])),
    ...(await readCases(connection, STATES, [...values, isCut(scope)])),
  ]
  const unstored = await readCases(connection, UNSTORED, values)
  return [
    ...known.map((cases) =>
      finding({
        check: 'ledger',
        severity: cases.kind === 'overlap' ? 'failure' : 'notice',
        ...cases,
        summary: SUMMARIES[cases.kind]?.(cases.count, cases.eventType) ?? cases.kind,
      }),
    ),
    ...unstored.map((cases) =>
      unchecked(`${counted(cases.count, 'ledger row')} of ${cases.eventType}, without stored rows`, cases),
    ),
  ]
}
