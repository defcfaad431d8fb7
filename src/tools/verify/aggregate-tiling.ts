import { counted } from '../../foundation/telemetry/plural.ts'
import type { DeadLetters } from './dead-letters.ts'
import { atId, finding } from './findings.ts'
import type { Finding } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'
import type { TradeEpochs } from './trade-epochs.ts'

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
    WHERE symbol = $1 AND event_type = 'aggTrade' AND epoch = $2 AND first_trade_id IS NOT NULL
      AND trade_time >= $3::timestamptz AND trade_time < $4::timestamptz
    WINDOW by_time AS (ORDER BY trade_time, trade_id)),
  odd AS MATERIALIZED (
    SELECT * FROM steps
    WHERE previous_id IS NULL OR next_id IS NULL OR trade_id <> previous_id + 1 OR next_id <> trade_id + 1
      OR first_trade_id <> previous_last + 1),
  pairs AS (
    SELECT trade_id, trade_time, first_trade_id, previous_time, previous_last FROM odd WHERE trade_id = previous_id + 1
    UNION ALL
    SELECT odd.trade_id, odd.trade_time, odd.first_trade_id, before.trade_time, before.last_trade_id
    FROM odd JOIN odd AS before ON before.trade_id = odd.trade_id - 1
    WHERE odd.trade_id IS DISTINCT FROM odd.previous_id + 1 AND before.next_id IS DISTINCT FROM before.trade_id + 1)
SELECT trade_id, first_trade_id, previous_last, (count(*) OVER ())::float8 AS total
FROM pairs WHERE first_trade_id <> previous_last + 1
  AND CASE WHEN first_trade_id > previous_last THEN NOT int8range(previous_last + 1, first_trade_id) <@ $7::int8multirange ELSE true END
  AND NOT EXISTS (SELECT FROM unnest($6::timestamptz[]) AS begins
                  WHERE begins BETWEEN least(previous_time, trade_time) AND greatest(previous_time, trade_time))
ORDER BY trade_id LIMIT $5`

/** Checks that aggTrades cover the trade ids without holes or overlaps; null when they do. */
export async function checkTiling(
  { connection, scope, limit }: CheckContext,
  { symbol, epoch }: Sequence,
  { starts }: TradeEpochs,
  letters: Pick<DeadLetters, 'tradesOfAggregates'>,
): Promise<Finding | null> {
  const { rows } = await connection.query<{
    trade_id: string
    first_trade_id: string
    previous_last: string
    total: number
  }>(TILING, [symbol, epoch, ...timeBounds(scope), limit, starts, letters.tradesOfAggregates(symbol, epoch)])
  const count = rows[0]?.total ?? 0
  if (count === 0) return null
  return finding({
    check: 'aggregate tiling',
    kind: 'not tiling',
    severity: 'failure',
    symbol,
    eventType: 'aggTrade',
    epoch,
    count,
    summary: `${counted(count, 'that does', 'that do')} not begin where the previous one ended`,
    examples: rows.map(({ trade_id, first_trade_id, previous_last }) =>
      atId(trade_id, `begins with trade ${first_trade_id}, the previous one ended with ${previous_last}`),
    ),
  })
}
