import type { Scope } from './scope.ts'
import type { Sequence } from './sequences.ts'

/**
 * Assigns trades to aggTrades across epochs. Trade ids and aggTrade ids are two sequences, and the
 * exchange may restart only one, or both at different moments. Then an aggTrade of epoch 1 covers
 * trades of epoch 0, or the reverse, and a comparison by ids alone would use the wrong trades. The
 * trades of an aggTrade have its time, so the start times of the trades' epochs decide.
 */
export interface TradeEpochs {
  /** Start times of the trades' epochs after epoch 0, as PostgreSQL takes them. */
  readonly starts: readonly string[]
  /**
   * From `from` and before `until`, the trades of an aggTrade have the aggTrade's epoch. Both may
   * be infinite.
   */
  readonly from: string
  readonly until: string
}

/**
 * Returns the epochs of trades for the aggTrades of one epoch.
 *
 * @param sequences those of the audited range; at its start, the first trades do not begin an epoch
 */
export function tradeEpochs(
  sequences: readonly Sequence[],
  scope: Scope,
  { symbol, epoch }: Pick<Sequence, 'symbol' | 'epoch'>,
): TradeEpochs {
  const trades = sequences.filter((one) => one.symbol === symbol && one.eventType === 'trade')
  const starts = trades
    .filter((one) => one.epoch > 0)
    .map((one) => ({
      epoch: one.epoch,
      at: scope.fromMs !== null && one === trades[0] ? '-infinity' : one.firstTime,
    }))
  const own = starts.find((one) => one.epoch === epoch)
  return {
    starts: starts.map(({ at }) => at),
    // Without trades of this epoch, none of its aggTrades can be checked.
    from: epoch === 0 ? '-infinity' : (own?.at ?? 'infinity'),
    until: starts.find((one) => one.epoch > epoch)?.at ?? 'infinity',
  }
}
