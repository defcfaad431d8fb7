import { counted } from '../../foundation/telemetry/plural.ts'
import { finding } from './findings.ts'
import type { Example, Finding, SequenceReport } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'

/**
 * Set arithmetic on ranges of ids. It is exact, and runs in the database: otherwise a table that
 * has lost every second row would be transferred. Rows come in index order, by time, and are joined
 * into runs of consecutive ids. A busy day has a handful of runs, so sorting and uniting them costs
 * nothing. If the runs have more ids than their union, ids are stored more than once.
 *
 * Ids rise with time only roughly. An id that seems missing at an edge of the range may be stored
 * up to an hour outside, so that hour is searched (`elsewhere`) if ids are missing.
 *
 * Missing ids are compared with the ranges that the ledger calls filled, and with ids in dead
 * letters or in other ledger rows. No id counts as missing below the first stored id, since
 * retention may have dropped it, or below the start of the consumer. With a range, none counts as
 * missing above the last stored id.
 */
const CONTINUITY = `WITH steps AS (
    SELECT trade_id, trade_time, lag(trade_id) OVER by_time AS previous_id, lag(trade_time) OVER by_time AS previous_time,
      lead(trade_id) OVER by_time IS NULL AS is_last
    FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $4::timestamptz AND trade_time < $5::timestamptz
    WINDOW by_time AS (ORDER BY trade_time, trade_id)),
  edges AS MATERIALIZED (
    SELECT * FROM steps WHERE trade_id <> previous_id + 1 OR previous_id IS NULL OR is_last),
  ends AS (SELECT trade_id, trade_time FROM edges WHERE is_last),
  runs AS MATERIALIZED (
    SELECT trade_id AS from_id, trade_time AS from_time,
      coalesce(lead(previous_id) OVER by_time, (SELECT trade_id FROM ends)) AS to_id,
      coalesce(lead(previous_time) OVER by_time, (SELECT trade_time FROM ends)) AS to_time
    FROM edges WHERE trade_id <> previous_id + 1 OR previous_id IS NULL
    WINDOW by_time AS (ORDER BY trade_time, trade_id)),
  backwards AS MATERIALIZED (
    SELECT * FROM (
      SELECT from_id, from_time, lag(to_id) OVER by_id AS previous_id, lag(to_time) OVER by_id AS previous_time
      FROM runs WINDOW by_id AS (ORDER BY from_id, from_time)) AS ordered
    WHERE from_time < previous_time - interval '1 second'),
  stored AS MATERIALIZED (
    SELECT range_agg(int8range(from_id, to_id, '[]')) AS ids, sum(to_id - from_id + 1) AS rows FROM runs),
  absent AS MATERIALIZED (
    SELECT coalesce(int8multirange(int8range(lower(ids), upper(ids))) - ids, '{}') * int8multirange(int8range($11::bigint, NULL)) AS ids
    FROM stored),
  outside AS (
    SELECT trade_id FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $8::timestamptz AND trade_time < $4::timestamptz
      AND (SELECT ids <> '{}' FROM absent)
    UNION ALL
    SELECT trade_id FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $5::timestamptz AND trade_time < $9::timestamptz
      AND (SELECT ids <> '{}' FROM absent)),
  elsewhere AS (
    SELECT coalesce(range_agg(int8range(trade_id, trade_id, '[]')), '{}') AS ids
    FROM outside WHERE trade_id <@ (SELECT ids FROM absent)),
  ledger AS (
    SELECT coalesce(range_agg(int8range(from_id, to_id, '[]')) FILTER (WHERE status <> 'filled'), '{}') AS named,
      coalesce(range_agg(int8range(from_id, to_id, '[]')) FILTER (WHERE status = 'filled'), '{}') AS filled
    FROM gaps WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND from_id <= to_id),
  result AS MATERIALIZED (
    SELECT absent.ids - elsewhere.ids AS missing, absent.ids - elsewhere.ids - named - $6::int8multirange AS unexplained,
      filled, stored.rows > (SELECT sum(upper(r) - lower(r)) FROM unnest(stored.ids) AS r) AS is_doubled,
      -- Also above the last id, where the audit has no range.
      (CASE WHEN $10::boolean THEN absent.ids ELSE absent.ids + int8multirange(int8range(upper(stored.ids), NULL)) END)
        - elsewhere.ids - named - $6::int8multirange AS unstored,
      greatest(lower(stored.ids), $11) AS first_id, CASE WHEN $10::boolean THEN upper(stored.ids) - 1 END AS last_id
    FROM stored, absent, elsewhere, ledger),
  claims AS (
    SELECT gap_id, greatest(from_id, first_id) AS from_id, least(to_id, last_id) AS to_id, unstored
    FROM gaps, result
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND status = 'filled'
      AND greatest(from_id, first_id) <= least(to_id, last_id)
      AND unstored && int8range(from_id, to_id, '[]')),
  broken AS MATERIALIZED (
    SELECT gap_id, from_id, to_id, (
      SELECT sum(upper(r) - lower(r)) FROM unnest(unstored * int8multirange(int8range(from_id, to_id, '[]'))) AS r) AS absent
    FROM claims)
SELECT
  (SELECT coalesce(sum(upper(r) - lower(r)), 0)::float8 FROM unnest(missing) AS r) AS missing,
  (SELECT coalesce(sum(upper(r) - lower(r)), 0)::float8 FROM unnest(unexplained) AS r) AS unexplained,
  (SELECT coalesce(sum(upper(r) - lower(r)), 0)::float8 FROM unnest(unexplained * filled) AS r) AS said_filled,
  (SELECT coalesce(jsonb_agg(jsonb_build_object('from', lower(r), 'to', upper(r) - 1, 'filled', filled && r)), '[]')
    FROM (SELECT r FROM unnest(unexplained) AS r ORDER BY r LIMIT $7) AS first_ones) AS examples,
  is_doubled,
  (SELECT count(*)::float8 FROM backwards) AS backwards,
  (SELECT coalesce(jsonb_agg(jsonb_build_object('from', from_id, 'to', from_id,
      'detail', format('%s, after %s of id %s', from_time, previous_time, previous_id))), '[]')
    FROM (SELECT * FROM backwards ORDER BY from_id LIMIT $7) AS first_ones) AS backwards_examples,
  (SELECT count(*)::float8 FROM broken WHERE absent > 0) AS broken,
  (SELECT coalesce(jsonb_agg(jsonb_build_object('from', from_id, 'to', to_id, 'detail', format('%s: %s not stored', gap_id, absent))), '[]')
    FROM (SELECT * FROM broken WHERE absent > 0 ORDER BY from_id LIMIT $7) AS first_ones) AS broken_examples
FROM result`

/** Time outside the range that is searched for ids missing inside. */
const ELSEWHERE_MS = 60 * 60_000

interface Row {
  readonly missing: number
  readonly unexplained: number
  readonly said_filled: number
  readonly examples: ReadonlyArray<{ readonly from: number; readonly to: number; readonly filled: boolean }>
  readonly is_doubled: boolean
  readonly backwards: number
  readonly backwards_examples: Example[]
  /** Ranges that the ledger calls filled but that are not completely stored. */
  readonly broken: number
  readonly broken_examples: Example[]
}

/** Result for the ids of a sequence. Another check counts `doubled`. */
export interface Continuity {
  readonly figures: Omit<SequenceReport, 'doubled'>
  /** Whether an id is stored more than once. */
  readonly isDoubled: boolean
  readonly findings: Finding[]
}

/**
 * Checks that every id between the first and the last row is stored, or named by the ledger or a
 * dead letter.
 *
 * @param isRange whether later rows are excluded on request: then ledger ranges end at the last row
 */
export async function checkContinuity(
  { connection, scope, limit }: CheckContext,
  sequence: Sequence,
  letters: string,
  isRange: boolean,
): Promise<Continuity> {
  const { symbol, eventType, epoch } = sequence
  const { rows } = await connection.query<Row>(CONTINUITY, [
    symbol,
    eventType,
    epoch,
    ...timeBounds(scope),
    letters,
    limit,
    ...timeBounds(scope, ELSEWHERE_MS),
    isRange,
    sequence.begins ?? 0,
  ])
  return interpretContinuity(sequence, rows[0])
}

function interpretContinuity(sequence: Sequence, row: Row | undefined): Continuity {
  const { symbol, eventType, epoch, rows, firstId, lastId, rowsBefore } = sequence
  const { missing = 0, unexplained = 0, said_filled = 0, backwards = 0 } = row ?? {}
  const about = { check: 'continuity', symbol, eventType, epoch }
  const findings: Finding[] = []
  if (unexplained > 0) {
    const filled = said_filled > 0 ? `; the ledger calls ${said_filled} of them filled` : ''
    const summary = `missing without explanation${filled}`
    const examples = (row?.examples ?? []).map(({ from, to, filled }) => ({
      from,
      to,
      detail: filled ? 'filled according to the ledger' : '',
    }))
    const kind = { kind: 'missing', severity: 'failure' } as const
    findings.push(finding({ ...about, ...kind, count: unexplained, summary, examples }))
  }
  if (backwards > 0) {
    const summary = 'more than a second earlier than the previous id'
    const kind = { kind: 'backwards', severity: 'notice' } as const
    findings.push(
      finding({ ...about, ...kind, count: backwards, summary, examples: row?.backwards_examples }),
    )
  }
  if (row !== undefined && row.broken > 0) {
    const summary = `${counted(row.broken, 'gap')} that the ledger calls filled, with ids that are not stored`
    const kind = { check: 'ledger', kind: 'filled', severity: 'failure' } as const
    findings.push(finding({ ...about, ...kind, count: row.broken, summary, examples: row.broken_examples }))
  }
  return {
    isDoubled: row?.is_doubled ?? false,
    figures: {
      symbol,
      eventType,
      epoch,
      rows,
      firstId,
      lastId,
      beforeStart: rowsBefore,
      missing,
      explained: missing - unexplained,
      unexplained,
      saidFilled: said_filled,
      leastLatencyMs: sequence.leastLatencyMs,
    },
    findings,
  }
}
