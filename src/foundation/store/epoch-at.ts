import type { TradeType } from '../market/event.ts'
import { isoOfUs } from '../market/time-unit.ts'
import type { Queryable } from './database.ts'

const HOUR_US = 3_600_000_000

const EPOCH_AT = `SELECT (
    SELECT epoch FROM trades
    WHERE symbol = $1 AND event_type = $2 AND trade_time <= $3::timestamptz AND trade_time >= $4::timestamptz
    ORDER BY trade_time DESC, epoch DESC LIMIT 1) AS stored,
  (SELECT max(epoch) FROM gaps
   WHERE symbol = $1 AND event_type = $2 AND cause = 'reset' AND to_time <= $3::timestamptz) AS begun`

/**
 * Finds the epoch of a trade at this time: that of the last trade stored before, however old, or a
 * later one that the ledger names. The ledger is needed when retention has dropped the trades.
 * Reads the preceding hour first: a query without a bound is planned for each chunk, which takes a
 * second for 1,500 days.
 */
export async function epochAt(
  connection: Queryable,
  symbol: string,
  eventType: TradeType,
  tradeTimeUs: number,
): Promise<number> {
  const read = async (from: string) => {
    const values = [symbol, eventType, isoOfUs(tradeTimeUs), from]
    return (await connection.query<{ stored: number | null; begun: number | null }>(EPOCH_AT, values)).rows[0]
  }
  const near = await read(isoOfUs(tradeTimeUs - HOUR_US))
  const found = typeof near?.stored === 'number' ? near : await read('-infinity')
  return Math.max(0, found?.stored ?? 0, found?.begun ?? 0)
}
