import { counted } from '../../foundation/telemetry/plural.ts'
import { examples, finding, firstCases, type Remark, readCases } from './findings.ts'
import type { Example, SequenceReport } from './report-types.ts'
import { type CheckContext, IN_SEQUENCE, sequenceValues, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'

/** SQL: the number of ids of a multirange. */
const sizeOf = (ids: string) =>
  `(SELECT coalesce(sum(upper(r) - lower(r)), 0)::float8 FROM unnest(${ids}) AS r)`

/** SQL: the first rows of a query as examples. */
const firstOnes = (rows: string) =>
  `(SELECT ${examples('from_id')} FROM (${rows} ORDER BY from_id LIMIT $7) AS first_ones)`

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
    FROM trades WHERE ${IN_SEQUENCE} WINDOW by_time AS (ORDER BY trade_time, trade_id)),
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
    SELECT gap_id, from_id, to_id, ${sizeOf("unstored * int8multirange(int8range(from_id, to_id, '[]'))")} AS absent FROM claims)
SELECT ${sizeOf('missing')} AS missing, ${sizeOf('unexplained')} AS unexplained,
  ${sizeOf('unexplained * filled')} AS "saidFilled", is_doubled AS "isDoubled",
  (SELECT count(*)::float8 FROM backwards) AS late, (SELECT count(*)::float8 FROM broken WHERE absent > 0) AS broken,
  ${firstOnes(`SELECT lower(r) AS from_id, upper(r) - 1 AS to_id, CASE WHEN filled && r THEN 'filled according to the ledger' ELSE '' END AS detail
    FROM unnest(unexplained) AS r`)} AS "firstMissing",
  ${firstOnes(`SELECT from_id, from_id AS to_id, format('%s, after %s of id %s', from_time, previous_time, previous_id) AS detail
    FROM backwards`)} AS "firstLate",
  ${firstOnes(`SELECT from_id, to_id, format('%s: %s not stored', gap_id, absent) AS detail
    FROM broken WHERE absent > 0`)} AS "firstBroken"
FROM result`

/** Time outside the range that is searched for ids missing inside. */
const ELSEWHERE_MS = 60 * 60_000

interface Row extends Omit<Figures, 'explained'> {
  readonly isDoubled: boolean
  /** Rows that are earlier than the previous id. */
  readonly late: number
  /** Ranges that the ledger calls filled but that are not completely stored. */
  readonly broken: number
  readonly firstMissing: Example[]
  readonly firstLate: Example[]
  readonly firstBroken: Example[]
}

type Figures = Pick<SequenceReport, 'missing' | 'explained' | 'unexplained' | 'saidFilled'>

export interface Continuity {
  readonly figures: Figures
  /** Whether an id is stored more than once. */
  readonly isDoubled: boolean
  readonly remarks: Remark[]
}

/**
 * Checks that every id between the first and the last row is stored, or named by the ledger or a
 * dead letter.
 * @param letters the ids in dead letters, as a multirange
 * @param isRange whether later rows are excluded on request: then ledger ranges end at the last row
 */
export async function checkContinuity(
  { connection, scope, limit }: CheckContext,
  sequence: Sequence,
  letters: string,
  isRange: boolean,
): Promise<Continuity> {
  const { symbol, eventType, epoch } = sequence
  const around = timeBounds(scope, ELSEWHERE_MS)
  const values = [
    ...sequenceValues(scope, sequence),
    letters,
    limit,
    ...around,
    isRange,
    sequence.begins ?? 0,
  ]
  const [row] = (await connection.query<Row>(CONTINUITY, values)).rows
  if (row === undefined) throw new TypeError('An aggregate has one row')
  const { missing, unexplained, saidFilled, isDoubled, late, broken, firstMissing, firstLate, firstBroken } =
    row
  const of = { check: 'continuity', symbol, eventType, epoch }
  const filled = saidFilled > 0 ? `; the ledger calls ${saidFilled} of them filled` : ''
  const absence = `missing without explanation${filled}`
  const order = 'more than a second earlier than the previous id'
  const claim = `${counted(broken, 'gap')} that the ledger calls filled, with ids that are not stored`
  const failed = { ...of, severity: 'failure' } as const
  const remarks = [
    finding({ ...failed, kind: 'missing', count: unexplained, summary: absence, examples: firstMissing }),
    finding({
      ...of,
      kind: 'backwards',
      severity: 'notice',
      count: late,
      summary: order,
      examples: firstLate,
    }),
    finding({
      ...failed,
      check: 'ledger',
      kind: 'filled',
      count: broken,
      summary: claim,
      examples: firstBroken,
    }),
  ]
  return {
    figures: { missing, explained: missing - unexplained, unexplained, saidFilled },
    isDoubled,
    remarks: remarks.filter(({ count }) => count !== 0),
  }
}

/**
 * The unique index includes the trade time, as every unique index of a hypertable must, so it
 * allows an id under another time. The query groups all rows, so it runs only if continuity has
 * counted more rows than ids.
 */
const DUPLICATES = `WITH doubled AS (
    SELECT symbol, event_type, epoch, trade_id AS from_id, trade_id AS to_id, 'doubled' AS kind,
      format('%s rows, from %s to %s', count(*), min(trade_time), max(trade_time)) AS detail
    FROM trades WHERE ${IN_SEQUENCE} GROUP BY symbol, event_type, epoch, trade_id HAVING count(*) > 1),
  ${firstCases('doubled', '$6')}`

export async function checkDuplicates(
  { connection, scope, limit }: CheckContext,
  sequence: Sequence,
): Promise<Remark[]> {
  const cases = await readCases(connection, DUPLICATES, [...sequenceValues(scope, sequence), limit])
  const summary = 'doubled: stored under more than one trade time'
  return cases.map((found) => finding({ check: 'duplicates', severity: 'failure', ...found, summary }))
}
