import type { AggTrade, HistoricalTrade, IdType, MarketPast } from './trade-history.ts'

/** The true events of the market, regardless of faults in REST, without weights or limits. */
export interface ExchangeTruth {
  readonly symbols: readonly string[]
  /**
   * Rows with ids from `fromId` to `toId`, both included, if the market still has them.
   *
   * @param epoch run of ids, counted from 0; default: the latest
   * @throws {RangeError} when this run does not exist yet
   */
  trades(symbol: string, fromId: number, toId: number, epoch?: number): readonly HistoricalTrade[]
  aggTrades(symbol: string, fromId: number, toId: number, epoch?: number): readonly AggTrade[]
  /** Number of runs of ids, at least 1. */
  epochCount(symbol: string, ids: IdType): number
}

export function truthOf(past: MarketPast): ExchangeTruth {
  const query = (fromId: number, toId: number, epoch: number | undefined) => ({
    fromId,
    limit: Math.max(0, toId - fromId + 1),
    epoch,
  })
  return {
    symbols: past.symbols,
    trades: (symbol, fromId, toId, epoch) =>
      past.historicalTrades(symbol, query(fromId, toId, epoch)).filter(({ id }) => id <= toId),
    aggTrades: (symbol, fromId, toId, epoch) =>
      past.aggTrades(symbol, query(fromId, toId, epoch)).filter(({ a }) => a <= toId),
    epochCount: (symbol, ids) => past.epochCount(symbol, ids),
  }
}
