import { TRADE_TYPES, type TradeType } from '../../../foundation/market/event.ts'
import type { Market, SymbolMarket } from './market.ts'
import type { TradeEvent } from './market-event.ts'
import { blockAt, blockOf, blockStartMs, eventsBefore } from './market-plan.ts'
import { TRADE_SERIES } from './market-series.ts'
import {
  firstIndex,
  type HistoryQuery,
  type IdType,
  type MarketPast,
  type RowIndex,
  selectRows,
  TRADING,
} from './trade-history.ts'

/**
 * The past of the simulated market, recreated from its blocks: the last `historyMinutes` (whole
 * blocks) up to the events sent by now (`E`), whether or not a client was connected.
 */
export class MarketHistory implements MarketPast {
  readonly symbols: readonly string[]
  readonly nowMs: () => number
  readonly #markets: Market
  readonly #historyMs: number

  constructor(options: { markets: Market; historyMinutes: number; nowMs: () => number }) {
    this.symbols = [...options.markets.keys()]
    this.nowMs = options.nowMs
    this.#markets = options.markets
    this.#historyMs = options.historyMinutes * 60_000
  }

  status(symbol: string): string | null {
    return this.#markets.has(symbol) ? TRADING : null
  }

  events(type: TradeType, symbol: string, query: HistoryQuery): readonly TradeEvent[] {
    return selectRows(this.#rows(type, this.#marketOf(symbol), query.epoch), query)
  }

  restartIds(symbol: string, types: readonly IdType[], firstId: number): void {
    const market = this.#marketOf(symbol)
    // All restart at the same moment; otherwise an aggTrade would have trades of two runs.
    const nowMs = this.nowMs()
    for (const type of types) {
      const end = type === 'update' ? market.clock.positionAt(nowMs) + 1 : this.#endAt(type, market, nowMs)
      market.ids[type].restart(end, firstId)
    }
  }

  /** A halted symbol has no events. After it resumes, its ids continue where they ended. */
  setTrading(symbol: string, isTrading: boolean, nowMs: number): void {
    const market = this.#marketOf(symbol)
    if (isTrading) market.clock.resume(nowMs)
    else market.clock.pause(nowMs)
    for (const type of TRADE_TYPES) {
      const end = this.#endAt(type, market, nowMs)
      if (isTrading) market.ids[type].resume(end)
      else market.ids[type].halt(end)
    }
  }

  epochCount(symbol: string, type: IdType): number {
    return this.#marketOf(symbol).ids[type].epochCount
  }

  #marketOf(symbol: string): SymbolMarket {
    const market = this.#markets.get(symbol)
    if (market === undefined) throw new Error(`${symbol} is not listed; the caller must check`)
    return market
  }

  #rows(type: TradeType, market: SymbolMarket, epoch: number | undefined): RowIndex<TradeEvent> {
    const { plan, ids } = market
    const { fromPosition, toPosition, firstId } = ids[type].epoch(epoch)
    const nowMs = this.nowMs()
    const rowsUpTo = (position: number) => ids[type].eventsBetween(fromPosition, position)
    return {
      begin: rowsUpTo(Math.max(fromPosition, eventsBefore(plan, type, this.#oldestBlock(nowMs)))),
      end: rowsUpTo(Math.min(toPosition, this.#endAt(type, market, nowMs))),
      positionOfId: (id) => id - firstId,
      positionOfTime: (timeMs) => rowsUpTo(this.#positionAt(type, market, 'tradeMs', timeMs, nowMs)),
      row: (events) => {
        const position = ids[type].positionAfter(fromPosition, events)
        const number = blockOf(plan, type, position)
        const index = position - eventsBefore(plan, type, number)
        return TRADE_SERIES[type].event(market.block(number), index, ids)
      },
    }
  }

  /** The position after that of the newest event sent. */
  #endAt(type: TradeType, market: SymbolMarket, nowMs: number): number {
    return this.#positionAt(type, market, 'eventMs', nowMs + 1, nowMs)
  }

  /** The position of the first event whose `column` time is at or after `timeMs`. */
  #positionAt(
    type: TradeType,
    { plan, block }: SymbolMarket,
    column: 'tradeMs' | 'eventMs',
    timeMs: number,
    nowMs: number,
  ): number {
    const [oldestBlock, newestBlock] = [this.#oldestBlock(nowMs), blockAt(nowMs)]
    const number = Math.max(oldestBlock, Math.min(newestBlock, blockAt(timeMs)))
    const [first, end] = [eventsBefore(plan, type, number), eventsBefore(plan, type, number + 1)]
    const sinceStartMs = timeMs - blockStartMs(number)
    const events = block(number)
    const isReached = (index: number) => TRADE_SERIES[type][column](events, index) >= sinceStartMs
    return first + firstIndex(0, end - first, isReached)
  }

  #oldestBlock(nowMs: number): number {
    return Math.max(0, blockAt(nowMs - this.#historyMs))
  }
}
