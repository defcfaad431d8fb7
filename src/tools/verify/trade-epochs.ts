import type { Scope } from './scope.ts'
import type { Sequence } from './sequences.ts'

/**
 * trade and aggTrade ids are two sequences, and the exchange may restart one and not the other, or not at the same moment.
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

/**
 * For the aggTrades of one epoch.
 *
 * @param sequences of the audit's range: where it is cut, its first trades begin no epoch
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
    // No trade of such an epoch: none of its aggTrades has any that could be its.
    from: epoch === 0 ? '-infinity' : (own?.at ?? 'infinity'),
    until: starts.find((one) => one.epoch > epoch)?.at ?? 'infinity',
  }
}
