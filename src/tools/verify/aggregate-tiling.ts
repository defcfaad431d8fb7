import { counted } from '../../foundation/telemetry/plural.ts'
import type { DeadLetters } from './dead-letters.ts'
import { finding, firstCases, type Remark, readCases } from './findings.ts'
import { type CheckContext, IN_SEQUENCE, rangeValues, sequenceValues } from './scope.ts'
import type { Sequence, TradeEpochs } from './sequences.ts'

/**
 * Finds aggTrades that do not begin with the trade after the last one of their predecessor, or of
 * dead letters between the two. Skips pairs with a missing aggTrade or a restart of the trade ids
 * in between. Rows come in index order, by time. Where their ids are not consecutive, the first row
 * of one run is compared with the last row of another.
 */
const TILING = `WITH steps AS (
    SELECT trade_id, trade_time, first_trade_id, last_trade_id, lag(trade_id) OVER by_time AS previous_id,
      lag(trade_time) OVER by_time AS previous_time, lag(last_trade_id) OVER by_time AS previous_last,
      lead(trade_id) OVER by_time AS next_id
    FROM trades
    WHERE ${IN_SEQUENCE} AND first_trade_id IS NOT NULL
    WINDOW by_time AS (ORDER BY trade_time, trade_id)),
  odd AS MATERIALIZED (
    SELECT * FROM steps
    WHERE previous_id IS NULL OR next_id IS NULL OR trade_id <> previous_id + 1 OR next_id <> trade_id + 1
      OR first_trade_id <> previous_last + 1),
  pairs AS (
    SELECT trade_id, trade_time, first_trade_id, previous_time, previous_last FROM odd WHERE trade_id = previous_id + 1
    UNION ALL
    SELECT odd.trade_id, odd.trade_time, odd.first_trade_id, prior.trade_time, prior.last_trade_id
    FROM odd JOIN odd AS prior ON prior.trade_id = odd.trade_id - 1
    WHERE odd.trade_id IS DISTINCT FROM odd.previous_id + 1 AND prior.next_id IS DISTINCT FROM prior.trade_id + 1),
  letters AS (SELECT unnest($8::bigint[]) AS from_id, unnest($9::bigint[]) AS to_id),
  broken AS (
    SELECT $1 AS symbol, $2 AS event_type, $3 AS epoch, 'not tiling' AS kind, trade_id AS from_id, trade_id AS to_id,
      concat('begins with trade ', first_trade_id, ', the previous one ended with ', previous_last) AS detail
    FROM pairs WHERE first_trade_id <> previous_last + 1
      AND NOT EXISTS (SELECT 1 FROM letters
                      WHERE first_trade_id > previous_last AND letters.from_id <= previous_last + 1 AND letters.to_id >= first_trade_id - 1)
      AND NOT EXISTS (SELECT 1 FROM unnest($7::timestamptz[]) AS epochs (begins)
                      WHERE begins BETWEEN least(previous_time, trade_time) AND greatest(previous_time, trade_time))),
  ${firstCases('broken', '$6')}`

/** Checks that aggTrades cover the trade ids without holes or overlaps. */
export async function checkTiling(
  { connection, scope, limit }: CheckContext,
  sequence: Sequence,
  { starts }: TradeEpochs,
  letters: Pick<DeadLetters, 'tradesOfAggregates'>,
): Promise<Remark[]> {
  const covered = letters.tradesOfAggregates(sequence)
  const values = [...sequenceValues(scope, sequence), limit, starts, ...rangeValues(covered)]
  return (await readCases(connection, TILING, values)).map((cases) =>
    finding({
      check: 'aggregate tiling',
      severity: 'failure',
      ...cases,
      summary: `${counted(cases.count, 'that does', 'that do')} not begin where the previous one ended`,
    }),
  )
}
