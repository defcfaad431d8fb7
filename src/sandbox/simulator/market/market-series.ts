import type { EventType } from '../../../foundation/market/event.ts'
import type { MarketBlock } from './market-block.ts'
import { blockStartMs, eventsBefore, type SymbolIds } from './market-plan.ts'
import type { IdType, MarketData } from './stream-data.ts'

/** How one stream type's events of a block become data. Times are ms since the start of the block. */
interface Series<Data> {
  /** The time of sending, `E`. Never falls. */
  eventMs(block: MarketBlock, index: number): number
  data(block: MarketBlock, index: number, ids: SymbolIds): Data
}

interface TradeSeries<Data> extends Series<Data> {
  /** The time `T`. Never falls. */
  tradeMs(block: MarketBlock, index: number): number
}

/** The trades of an aggTrade have its times, price and side. */
const aggTradeOf = ({ trades }: MarketBlock, trade: number) => trades.aggTrade[trade] ?? 0

function sharedData({ block, plan, aggTrades }: MarketBlock, aggTrade: number) {
  const startMs = blockStartMs(block)
  return {
    E: startMs + (aggTrades.eventMs[aggTrade] ?? 0),
    s: plan.instrument.symbol,
    p: plan.instrument.price(aggTrades.ticks[aggTrade] ?? 0),
    T: startMs + (aggTrades.tradeMs[aggTrade] ?? 0),
    m: aggTrades.buyerIsMaker[aggTrade] === 1,
  }
}

export const TRADE_SERIES: { readonly [Type in IdType]: TradeSeries<MarketData[Type]> } = {
  trade: {
    eventMs: (block, trade) => block.aggTrades.eventMs[aggTradeOf(block, trade)] ?? 0,
    tradeMs: (block, trade) => block.aggTrades.tradeMs[aggTradeOf(block, trade)] ?? 0,
    data(block, trade, ids) {
      const { E, s, p, T, m } = sharedData(block, aggTradeOf(block, trade))
      const t = ids.trade.idAt(eventsBefore(block.plan, 'trade', block.block) + trade)
      const q = block.plan.instrument.quantity(block.trades.steps[trade] ?? 0)
      return { e: 'trade', E, s, t, p, q, T, m, M: true }
    },
  },
  aggTrade: {
    eventMs: ({ aggTrades }, index) => aggTrades.eventMs[index] ?? 0,
    tradeMs: ({ aggTrades }, index) => aggTrades.tradeMs[index] ?? 0,
    data(block, index, ids) {
      const { plan, aggTrades, trades } = block
      const [first, end] = [aggTrades.firstTrade[index] ?? 0, aggTrades.firstTrade[index + 1] ?? 0]
      // The exact sum over its trades.
      let steps = 0
      for (let trade = first; trade < end; trade++) steps += trades.steps[trade] ?? 0
      const { E, s, p, T, m } = sharedData(block, index)
      const a = ids.aggTrade.idAt(eventsBefore(plan, 'aggTrade', block.block) + index)
      const before = eventsBefore(plan, 'trade', block.block)
      const [f, l] = [ids.trade.idAt(before + first), ids.trade.idAt(before + end - 1)]
      return { e: 'aggTrade', E, s, a, p, q: plan.instrument.quantity(steps), f, l, T, m, M: true }
    },
  },
}

export const SERIES: { readonly [Type in EventType]: Series<MarketData[Type]> } = {
  ...TRADE_SERIES,
  bookTicker: {
    eventMs: ({ quotes }, index) => quotes.eventMs[index] ?? 0,
    data({ block, plan, quotes }, index) {
      const { symbol, price, quantity } = plan.instrument
      return {
        u: plan.firstUpdateId + block * plan.updateIdsPerBlock + (quotes.updateOffset[index] ?? 0),
        s: symbol,
        b: price(quotes.bidTicks[index] ?? 0),
        B: quantity(quotes.bidSteps[index] ?? 0),
        a: price(quotes.askTicks[index] ?? 0),
        A: quantity(quotes.askSteps[index] ?? 0),
      }
    },
  },
}
