import { counted } from '../../foundation/telemetry/plural.ts'
import type { Finding } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'
import { tradeEpochs } from './trade-epochs.ts'

/**
 * Each aggTrade begins with the trade behind the last of the one before; where one is missing, or the trades' ids were begun anew
 * between the two, nothing is said.
 */
const TILING = `WITH steps AS (
    SELECT trade_id, trade_time, first_trade_id, last_trade_id, lag(trade_id) OVER by_id AS previous_id,
      lag(trade_time) OVER by_id AS previous_time,
      lag(last_trade_id) OVER by_id AS previous_last
    FROM trades
    WHERE symbol = $1 AND event_type = 'aggTrade' AND epoch = $2 AND first_trade_id IS NOT NULL
      AND trade_time >= $3::timestamptz AND trade_time < $4::timestamptz
    WINDOW by_id AS (ORDER BY trade_id, trade_time))
SELECT trade_id, first_trade_id, previous_last, (count(*) OVER ())::float8 AS total
FROM steps WHERE trade_id = previous_id + 1 AND first_trade_id <> previous_last + 1
  AND NOT EXISTS (SELECT FROM unnest($6::timestamptz[]) AS begins WHERE begins BETWEEN previous_time AND trade_time)
ORDER BY trade_id LIMIT $5`

/** aggTrades tile the trade ids; null when they do. */
export async function checkTiling(
  { connection, scope, limit }: CheckContext,
  { symbol, epoch }: Sequence,
): Promise<Finding | null> {
  const { starts } = await tradeEpochs({ connection }, symbol, epoch)
  const { rows } = await connection.query<{
    trade_id: string
    first_trade_id: string
    previous_last: string
    total: number
  }>(TILING, [symbol, epoch, ...timeBounds(scope), limit, starts])
  const count = rows[0]?.total ?? 0
  if (count === 0) return null
  return {
    check: 'aggregate tiling',
    kind: 'not tiling',
    severity: 'failure',
    symbol,
    eventType: 'aggTrade',
    epoch,
    count,
    summary: `${counted(count, 'that does', 'that do')} not begin where the one before ended`,
    examples: rows.map((row) => ({
      from: Number(row.trade_id),
      to: Number(row.trade_id),
      detail: `begins with trade ${row.first_trade_id}, the one before ended with ${row.previous_last}`,
    })),
  }
}
