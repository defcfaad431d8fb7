import type { CheckContext } from './scope.ts'

/**
 * trade and aggTrade ids are two sequences, and the exchange may begin one anew and not the other, or not at the same moment.
 * Then an aggTrade of epoch 1 covers trades of epoch 0, or the other way round, and ids alone would compare it with others of the
 * same ids. The trades of an aggTrade carry its time, so the times at which the trades' epochs begin tell which are its.
 */
export interface TradeEpochs {
  /** When each epoch of the trades after epoch 0 begins, by the trades that are stored, as PostgreSQL takes them. */
  readonly starts: readonly string[]
  /** From this time on, and before the other, the trades of an aggTrade are of its own epoch; both may be infinite. */
  readonly from: string
  readonly until: string
}

/** Epochs after 0 have an index of their own: where there are none, as nearly always, this looks at no row. */
const STARTS = `SELECT epoch, min(trade_time) AS begins FROM trades
  WHERE symbol = $1 AND event_type = 'trade' AND epoch > 0 GROUP BY epoch ORDER BY epoch`

/** For the aggTrades of one epoch. */
export async function tradeEpochs(
  { connection }: Pick<CheckContext, 'connection'>,
  symbol: string,
  epoch: number,
): Promise<TradeEpochs> {
  const { rows } = await connection.query<{ epoch: number; begins: Date }>(STARTS, [symbol])
  const starts = rows.map((row) => ({ epoch: row.epoch, at: row.begins.toISOString() }))
  const own = starts.find((one) => one.epoch === epoch)
  return {
    starts: starts.map(({ at }) => at),
    // No trade of such an epoch: none of its aggTrades has any that could be its.
    from: epoch === 0 ? '-infinity' : (own?.at ?? 'infinity'),
    until: starts.find((one) => one.epoch > epoch)?.at ?? 'infinity',
  }
}
