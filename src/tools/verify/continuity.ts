import type { Example, Finding, SequenceReport } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'

/**
 * Set arithmetic on ranges of ids, exact and in the database: a table that has lost every second row would otherwise
 * come over the wire. Per sequence, so that rows come in the order of the index.
 *
 * Ids are trusted to rise with time only roughly: one that seems missing where the range cuts may be stored outside
 * it, which is looked up (`elsewhere`); without a range that scan is excluded when it is planned.
 */
const CONTINUITY = `WITH steps AS (
    SELECT trade_id, trade_time, lag(trade_id) OVER by_id AS previous_id, lag(trade_time) OVER by_id AS previous_time
    FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $4::timestamptz AND trade_time < $5::timestamptz
    WINDOW by_id AS (ORDER BY trade_id, trade_time)),
  odd AS MATERIALIZED (
    SELECT * FROM steps WHERE trade_id > previous_id + 1 OR trade_time < previous_time - interval '1 second'),
  absent AS MATERIALIZED (
    SELECT coalesce(range_agg(int8range(previous_id + 1, trade_id)), '{}') AS ids FROM odd WHERE trade_id > previous_id + 1),
  elsewhere AS (
    SELECT coalesce(range_agg(int8range(trade_id, trade_id, '[]')), '{}') AS ids FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND (trade_time < $4::timestamptz OR trade_time >= $5::timestamptz)
      AND trade_id >= (SELECT lower(ids) FROM absent) AND trade_id < (SELECT upper(ids) FROM absent)
      AND trade_id <@ (SELECT ids FROM absent)),
  ledger AS (
    SELECT coalesce(range_agg(int8range(from_id, to_id, '[]')) FILTER (WHERE status <> 'filled'), '{}') AS named,
      coalesce(range_agg(int8range(from_id, to_id, '[]')) FILTER (WHERE status = 'filled'), '{}') AS filled
    FROM gaps WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND from_id <= to_id),
  result AS MATERIALIZED (
    SELECT absent.ids - elsewhere.ids AS missing, absent.ids - elsewhere.ids - named - $6::int8multirange AS unexplained,
      filled
    FROM absent, elsewhere, ledger)
SELECT
  (SELECT coalesce(sum(upper(r) - lower(r)), 0)::float8 FROM unnest(missing) AS r) AS missing,
  (SELECT coalesce(sum(upper(r) - lower(r)), 0)::float8 FROM unnest(unexplained) AS r) AS unexplained,
  (SELECT coalesce(sum(upper(r) - lower(r)), 0)::float8 FROM unnest(unexplained * filled) AS r) AS said_filled,
  (SELECT coalesce(jsonb_agg(jsonb_build_object('from', lower(r), 'to', upper(r) - 1, 'filled', filled && r)), '[]')
    FROM (SELECT r FROM unnest(unexplained) AS r ORDER BY r LIMIT $7) AS first_ones) AS examples,
  (SELECT count(*)::float8 FROM odd WHERE trade_time < previous_time - interval '1 second') AS backwards,
  (SELECT coalesce(jsonb_agg(jsonb_build_object('from', trade_id, 'to', trade_id,
      'detail', format('%s, after %s of id %s', trade_time, previous_time, previous_id))), '[]')
    FROM (SELECT * FROM odd WHERE trade_time < previous_time - interval '1 second' ORDER BY trade_id LIMIT $7) AS first_ones)
    AS backwards_examples
FROM result`

interface Row {
  readonly missing: number
  readonly unexplained: number
  readonly said_filled: number
  readonly examples: ReadonlyArray<{ readonly from: number; readonly to: number; readonly filled: boolean }>
  readonly backwards: number
  readonly backwards_examples: Example[]
}

/** What was found of a sequence's ids; `doubled` is another check's. */
export interface Continuity {
  readonly figures: Omit<SequenceReport, 'doubled'>
  readonly findings: Finding[]
}

/** Every id between the first and the last row is there, or the ledger or a dead letter names it. */
export async function checkContinuity(
  { connection, scope, limit }: CheckContext,
  sequence: Sequence,
  letters: string,
): Promise<Continuity> {
  const { symbol, eventType, epoch } = sequence
  const { rows } = await connection.query<Row>(CONTINUITY, [
    symbol,
    eventType,
    epoch,
    ...timeBounds(scope),
    letters,
    limit,
  ])
  return interpretContinuity(sequence, rows[0])
}

function interpretContinuity(sequence: Sequence, row: Row | undefined): Continuity {
  const { symbol, eventType, epoch, rows, firstId, lastId } = sequence
  const { missing = 0, unexplained = 0, said_filled = 0, backwards = 0 } = row ?? {}
  const about = { check: 'continuity', symbol, eventType, epoch }
  const findings: Finding[] = []
  if (unexplained > 0) {
    const filled = said_filled > 0 ? `, of which the ledger says that ${said_filled} are filled` : ''
    findings.push({
      ...about,
      kind: 'missing',
      severity: 'failure',
      count: unexplained,
      summary: `missing, and nothing explains it${filled}`,
      examples: (row?.examples ?? []).map(({ from, to, filled }) => ({
        from,
        to,
        detail: filled ? 'the ledger says filled' : '',
      })),
    })
  }
  if (backwards > 0) {
    findings.push({
      ...about,
      kind: 'backwards',
      severity: 'notice',
      count: backwards,
      summary: 'earlier than the id before by more than a second',
      examples: row?.backwards_examples ?? [],
    })
  }
  return {
    figures: {
      symbol,
      eventType,
      epoch,
      rows,
      firstId,
      lastId,
      missing,
      explained: missing - unexplained,
      unexplained,
      saidFilled: said_filled,
      leastLatencyMs: sequence.leastLatencyMs,
    },
    findings,
  }
}
