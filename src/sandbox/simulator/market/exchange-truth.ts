import type { AggTrade, HistoricalTrade, IdType, MarketPast } from './trade-history.ts'

/** What happened on the market, whatever REST says while faults hold, without weights or limits. */
export interface ExchangeTruth {
  readonly symbols: readonly string[]
  /**
   * Rows of the ids from `fromId` to `toId`, both included, as far as the market still knows them.
   *
   * @param epoch which run of ids, counted from 0; the latest unless given
   * @throws {RangeError} when there was no such run yet
   */
  trades(symbol: string, fromId: number, toId: number, epoch?: number): readonly HistoricalTrade[]
  aggTrades(symbol: string, fromId: number, toId: number, epoch?: number): readonly AggTrade[]
  /** How many runs of ids there were, at least 1. */
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
