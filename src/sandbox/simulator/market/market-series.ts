import type { EventType, TradeType } from '../../../foundation/market/event.ts'
import type { MarketBlock } from './market-block.ts'
import type { QuoteEvent, TradeEvent } from './market-event.ts'
import { blockStartMs, eventsBefore, type SymbolIds } from './market-plan.ts'

/** How the events of one type follow from a block. Times are milliseconds since its start. */
interface Series<Event> {
  /** The time of sending, `E`. Never falls. */
  eventMs(block: MarketBlock, index: number): number
  event(block: MarketBlock, index: number, ids: SymbolIds): Event
}

interface TradeSeries extends Series<TradeEvent> {
  /** The time `T`. Never falls. */
  tradeMs(block: MarketBlock, index: number): number
}

/** The trades of an aggTrade have its times, price and side. */
const aggTradeOf = ({ trades }: MarketBlock, trade: number) => trades.aggTrade[trade] ?? 0

function sharedFields({ block, plan, aggTrades }: MarketBlock, aggTrade: number) {
  const startMs = blockStartMs(block)
  return {
    eventTime: startMs + (aggTrades.eventMs[aggTrade] ?? 0),
    tradeTime: startMs + (aggTrades.tradeMs[aggTrade] ?? 0),
    price: plan.instrument.price(aggTrades.ticks[aggTrade] ?? 0),
    isBuyerMaker: aggTrades.buyerIsMaker[aggTrade] === 1,
  }
}

export const TRADE_SERIES: Readonly<Record<TradeType, TradeSeries>> = {
  trade: {
    eventMs: (block, trade) => block.aggTrades.eventMs[aggTradeOf(block, trade)] ?? 0,
    tradeMs: (block, trade) => block.aggTrades.tradeMs[aggTradeOf(block, trade)] ?? 0,
    event: (block, trade, ids) => ({
      ...sharedFields(block, aggTradeOf(block, trade)),
      id: ids.trade.idAt(eventsBefore(block.plan, 'trade', block.block) + trade),
      quantity: block.plan.instrument.quantity(block.trades.steps[trade] ?? 0),
    }),
  },
  aggTrade: {
    eventMs: ({ aggTrades }, index) => aggTrades.eventMs[index] ?? 0,
    tradeMs: ({ aggTrades }, index) => aggTrades.tradeMs[index] ?? 0,
    event(block, index, ids) {
      const { plan, aggTrades, trades } = block
      const [first, end] = [aggTrades.firstTrade[index] ?? 0, aggTrades.firstTrade[index + 1] ?? 0]
      // The exact sum over its trades.
      let steps = 0
      for (let trade = first; trade < end; trade++) steps += trades.steps[trade] ?? 0
      const before = eventsBefore(plan, 'trade', block.block)
      return {
        ...sharedFields(block, index),
        id: ids.aggTrade.idAt(eventsBefore(plan, 'aggTrade', block.block) + index),
        quantity: plan.instrument.quantity(steps),
        firstTradeId: ids.trade.idAt(before + first),
        lastTradeId: ids.trade.idAt(before + end - 1),
      }
    },
  },
}

export const SERIES: Readonly<Record<EventType, Series<TradeEvent | QuoteEvent>>> = {
  ...TRADE_SERIES,
  bookTicker: {
    eventMs: ({ quotes }, index) => quotes.eventMs[index] ?? 0,
    event({ block, plan, quotes }, index) {
      const { price, quantity } = plan.instrument
      return {
        id: plan.firstUpdateId + block * plan.updateIdsPerBlock + (quotes.updateOffset[index] ?? 0),
        price: price(quotes.bidTicks[index] ?? 0),
        quantity: quantity(quotes.bidSteps[index] ?? 0),
        askPrice: price(quotes.askTicks[index] ?? 0),
        askQuantity: quantity(quotes.askSteps[index] ?? 0),
      }
    },
  },
}
