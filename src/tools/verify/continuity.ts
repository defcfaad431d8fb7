import type { IdRange } from '../../foundation/market/id-ranges.ts'
import { counted } from '../../foundation/telemetry/plural.ts'
import {
  EXAMPLE_COLUMNS,
  type ExampleRow,
  examplesIn,
  finding,
  firstCases,
  type Remark,
  readCases,
} from './findings.ts'
import type { SequenceReport } from './report-types.ts'
import { type CheckContext, IN_DEPTH, IN_SEQUENCE, rangeValues, sequenceValues, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'

/** Above every id; the one after it is still a bigint. */
const MAX_ID = '9223372036854775806'

/** SQL: the number of ids in the ranges. */
const countOf = (ranges: string) => `(SELECT coalesce(sum(to_id - from_id + 1), 0)::float8 FROM ${ranges})`

/**
 * The first statements for trades: `runs` of consecutive ids, `backwards` ones, the `stored` range, `holes`
 * between the runs, and ids that are stored `outside` the range of times.
 */
const OF_TRADES = `steps AS (
    SELECT trade_id, trade_time, lag(trade_id) OVER by_time AS previous_id, lead(trade_id) OVER by_time AS next_id
    FROM trades WHERE ${IN_SEQUENCE} WINDOW by_time AS (ORDER BY trade_time, trade_id)),
  edges AS (
    SELECT *, previous_id IS NULL OR trade_id <> previous_id + 1 AS begins, next_id IS NULL OR next_id <> trade_id + 1 AS ends
    FROM steps WHERE previous_id IS NULL OR trade_id <> previous_id + 1 OR next_id IS NULL OR next_id <> trade_id + 1),
  -- A row that begins a run and does not end it is followed by the one that does.
  paired AS (
    SELECT trade_id AS from_id, trade_time AS from_time, begins,
      CASE WHEN ends THEN trade_id ELSE lead(trade_id) OVER by_time END AS to_id,
      CASE WHEN ends THEN trade_time ELSE lead(trade_time) OVER by_time END AS to_time
    FROM edges WINDOW by_time AS (ORDER BY trade_time, trade_id)),
  runs AS MATERIALIZED (
    SELECT from_id, from_time, to_id, lag(to_id) OVER by_id AS previous_id, lag(to_time) OVER by_id AS previous_time,
      max(to_id) OVER (ORDER BY from_id, from_time ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM paired WHERE begins WINDOW by_id AS (ORDER BY from_id, from_time)),
  backwards AS MATERIALIZED (
    SELECT from_id, from_id AS to_id, concat(from_time, ', after ', previous_time, ' of id ', previous_id) AS detail
    FROM runs WHERE from_time < previous_time - interval '1 second'),
  stored AS MATERIALIZED (
    SELECT min(from_id) AS first_id, max(to_id) AS last_id,
      coalesce(sum(to_id - from_id + 1) > sum(CASE WHEN reached IS NULL OR reached < from_id THEN to_id - from_id + 1
        WHEN reached < to_id THEN to_id - reached ELSE 0 END), false) AS is_doubled
    FROM runs),
  holes AS MATERIALIZED (
    SELECT greatest(reached + 1, $11::bigint) AS from_id, from_id - 1 AS to_id
    FROM runs WHERE from_id > reached + 1 AND from_id > $11::bigint),
  outside AS (
    SELECT trade_id AS from_id, trade_id AS to_id FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $8::timestamptz AND trade_time < $4::timestamptz
      AND EXISTS (SELECT 1 FROM holes)
    UNION
    SELECT trade_id AS from_id, trade_id AS to_id FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $5::timestamptz AND trade_time < $9::timestamptz
      AND EXISTS (SELECT 1 FROM holes)),`

/** The same for changes of order books, of which each covers a range of ids, and two may overlap. */
const OF_DEPTH = `runs AS MATERIALIZED (
    SELECT first_update_id AS from_id, last_update_id AS to_id,
      max(last_update_id) OVER (ORDER BY first_update_id, last_update_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM depth_updates WHERE ${IN_DEPTH}),
  -- The order book reports these.
  backwards AS MATERIALIZED (SELECT NULL::bigint AS from_id, NULL::bigint AS to_id, NULL::text AS detail WHERE false),
  stored AS MATERIALIZED (SELECT min(from_id) AS first_id, max(to_id) AS last_id, false AS is_doubled FROM runs),
  holes AS MATERIALIZED (
    SELECT greatest(reached + 1, $11::bigint) AS from_id, from_id - 1 AS to_id
    FROM runs WHERE from_id > reached + 1 AND from_id > $11::bigint),
  outside AS (
    SELECT first_update_id AS from_id, last_update_id AS to_id FROM depth_updates
    WHERE symbol = $1 AND epoch = $3 AND event_time >= $8::timestamptz AND event_time < $4::timestamptz AND EXISTS (SELECT 1 FROM holes)
    UNION
    SELECT first_update_id, last_update_id FROM depth_updates
    WHERE symbol = $1 AND epoch = $3 AND event_time >= $5::timestamptz AND event_time < $9::timestamptz AND EXISTS (SELECT 1 FROM holes)),`

/**
 * Set arithmetic on ranges of ids. It is exact, and runs in the database: otherwise a table that
 * has lost every second row would be transferred. Rows come in index order, by time, and are joined
 * into runs of consecutive ids. A busy day has a handful of runs, so sorting them costs nothing. If
 * the runs have more ids than their union, ids are stored more than once.
 *
 * The holes between the runs, and the ranges that explain ids, begin and end at some ids. Between two
 * of these nothing changes: such a `segment` is in a hole or not, and named or not. Running sums of
 * the beginnings and ends tell. `beyond` are the ids after the last stored one.
 *
 * Ids rise with time only roughly. An id that seems missing at an edge of the range may be stored
 * up to an hour outside, so that hour is searched (`elsewhere`) if ids are missing.
 *
 * Missing ids are compared with the ranges that the ledger calls filled, and with ids in dead
 * letters or in other ledger rows. No id counts as missing below the first stored id, since
 * retention may have dropped it, or below the start of the consumer. With a range, none counts as
 * missing above the last stored id.
 */
const continuity = (of: string) => `WITH ${of}
  ledger AS MATERIALIZED (
    SELECT gap_id, from_id, to_id, status = 'filled' AS is_filled
    FROM gaps WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND from_id <= to_id),
  ranges AS (
    SELECT from_id, to_id, 1 AS hole, 0 AS beyond, 0 AS elsewhere, 0 AS named, 0 AS filled FROM holes
    UNION ALL SELECT last_id + 1, ${MAX_ID}, 0, 1, 0, 0, 0 FROM stored WHERE NOT $10::boolean
    UNION ALL SELECT from_id, to_id, 0, 0, 1, 0, 0 FROM outside
    UNION ALL SELECT from_id, to_id, 0, 0, 0, CASE WHEN is_filled THEN 0 ELSE 1 END, CASE WHEN is_filled THEN 1 ELSE 0 END FROM ledger
    UNION ALL SELECT unnest($6::bigint[]), unnest($12::bigint[]), 0, 0, 0, 1, 0),
  bounds AS (
    SELECT id, sum(hole) AS hole, sum(beyond) AS beyond, sum(elsewhere) AS elsewhere, sum(named) AS named, sum(filled) AS filled
    FROM (SELECT from_id AS id, hole, beyond, elsewhere, named, filled FROM ranges
      UNION ALL SELECT to_id + 1, -hole, -beyond, -elsewhere, -named, -filled FROM ranges) AS ends
    GROUP BY id),
  segments AS MATERIALIZED (
    SELECT id AS from_id, lead(id) OVER by_id - 1 AS to_id, sum(hole) OVER by_id > 0 AND sum(elsewhere) OVER by_id = 0 AS is_missing,
      sum(beyond) OVER by_id > 0 AS is_beyond, sum(named) OVER by_id > 0 AS is_named, sum(filled) OVER by_id > 0 AS is_filled
    FROM bounds WINDOW by_id AS (ORDER BY id)),
  unexplained AS MATERIALIZED (
    SELECT *, from_id IS DISTINCT FROM lag(to_id) OVER (ORDER BY from_id) + 1 AS begins
    FROM segments WHERE is_missing AND NOT is_named),
  islands AS (
    SELECT *, sum(CASE WHEN begins THEN 1 ELSE 0 END) OVER (ORDER BY from_id) AS island FROM unexplained),
  claims AS (
    SELECT gap_id, greatest(from_id, first_id, $11::bigint) AS from_id,
      CASE WHEN $10::boolean THEN least(to_id, last_id) ELSE to_id END AS to_id
    FROM ledger CROSS JOIN stored WHERE is_filled),
  broken AS MATERIALIZED (
    SELECT gap_id, claims.from_id, claims.to_id,
      sum(least(claims.to_id, absent.to_id) - greatest(claims.from_id, absent.from_id) + 1) AS absent
    FROM claims JOIN segments AS absent ON absent.from_id <= claims.to_id AND absent.to_id >= claims.from_id
    WHERE (is_missing OR is_beyond) AND NOT is_named AND claims.from_id <= claims.to_id
    GROUP BY gap_id, claims.from_id, claims.to_id),
  listed AS (
    SELECT * FROM (SELECT 'missing' AS list, min(from_id) AS from_id, max(to_id) AS to_id,
      CASE WHEN bool_or(is_filled) THEN 'filled according to the ledger' ELSE '' END AS detail
      FROM islands GROUP BY island ORDER BY min(from_id) LIMIT $7) AS first_missing
    UNION ALL SELECT * FROM (SELECT 'late', from_id, to_id, detail FROM backwards ORDER BY from_id LIMIT $7) AS first_late
    UNION ALL SELECT * FROM (SELECT 'broken', from_id, to_id, concat(gap_id, ': ', absent, ' not stored')
      FROM broken ORDER BY from_id LIMIT $7) AS first_broken)
SELECT is_doubled AS "isDoubled", ${countOf('segments WHERE is_missing')} AS missing, ${countOf('unexplained')} AS unexplained,
  ${countOf('unexplained WHERE is_filled')} AS "saidFilled", (SELECT count(*)::float8 FROM backwards) AS late,
  (SELECT count(*)::float8 FROM broken) AS broken, list, ${EXAMPLE_COLUMNS}
FROM stored LEFT JOIN listed ON true ORDER BY list, from_id`

const CONTINUITY = { trades: continuity(OF_TRADES), depth: continuity(OF_DEPTH) }

/** Time outside the range that is searched for ids missing inside. */
export const ELSEWHERE_MS = 60 * 60_000

/** One row for each example, or a single one without. */
interface Row extends Omit<Figures, 'explained'>, ExampleRow {
  readonly isDoubled: boolean
  /** Rows that are earlier than the previous id. */
  readonly late: number
  /** Ranges that the ledger calls filled but that are not completely stored. */
  readonly broken: number
  readonly list: 'missing' | 'late' | 'broken' | null
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
 * @param letters the ids in dead letters
 * @param isRange whether later rows are excluded on request: then ledger ranges end at the last row
 */
export async function checkContinuity(
  { connection, scope, limit }: CheckContext,
  sequence: Sequence,
  letters: readonly IdRange[],
  isRange: boolean,
): Promise<Continuity> {
  const { symbol, eventType, epoch } = sequence
  const around = timeBounds(scope, ELSEWHERE_MS)
  const [froms, tos] = rangeValues(letters)
  const asked = [limit, ...around, isRange, sequence.begins ?? 0]
  const values = [...sequenceValues(scope, sequence), froms, ...asked, tos]
  const sql = eventType === 'depth' ? CONTINUITY.depth : CONTINUITY.trades
  const { rows } = await connection.query<Row>(sql, values)
  const [row] = rows
  if (row === undefined) throw new TypeError('An aggregate has one row')
  const { missing, unexplained, saidFilled, isDoubled, late, broken } = row
  const first = (list: Row['list']) => examplesIn(rows.filter((one) => one.list === list))
  const of = { check: 'continuity', symbol, eventType, epoch }
  const filled = saidFilled > 0 ? `; the ledger calls ${saidFilled} of them filled` : ''
  const absence = `missing without explanation${filled}`
  const order = 'more than a second earlier than the previous id'
  const claim = `${counted(broken, 'gap')} that the ledger calls filled, with ids that are not stored`
  const failed = { ...of, severity: 'failure' } as const
  const remarks = [
    finding({ ...failed, kind: 'missing', count: unexplained, summary: absence, examples: first('missing') }),
    finding({
      ...of,
      kind: 'backwards',
      severity: 'notice',
      count: late,
      summary: order,
      examples: first('late'),
    }),
    finding({
      ...failed,
      check: 'ledger',
      kind: 'filled',
      count: broken,
      summary: claim,
      examples: first('broken'),
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
      concat(count(*), ' rows, from ', min(trade_time), ' to ', max(trade_time)) AS detail
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
