import type { TickType, TradeType } from '../../../foundation/market/event.ts'
import type { MarketBlock } from './market-block.ts'
import type { QuoteEvent, TradeEvent } from './market-event.ts'
import { BLOCK_MS, blockStartMs, eventsBefore, type SymbolIds } from './market-plan.ts'
import { relativePriceAt } from './price-path.ts'
import { hash32, Random } from './random.ts'

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

/** A large trade at the price of its minute. It depends on no other event. */
function drawBlockTrade({ plan, block }: MarketBlock, index: number) {
  const { symbol, referenceTicks, typicalSteps } = plan.instrument
  const random = new Random(hash32('blockTrade', plan.seed, symbol, block, index))
  const count = eventsBefore(plan, 'blockTrade', block + 1) - eventsBefore(plan, 'blockTrade', block)
  return {
    atMs: Math.floor(((index + random.next()) / count) * BLOCK_MS),
    ticks: Math.max(1, Math.round(referenceTicks * relativePriceAt(plan.seed, symbol, block))),
    steps: typicalSteps * random.whole(200, 1_000),
    isBuyerMaker: random.chance(0.5),
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
  blockTrade: {
    eventMs: (block, index) => drawBlockTrade(block, index).atMs,
    tradeMs: (block, index) => drawBlockTrade(block, index).atMs,
    event(block, index, ids) {
      const { plan, block: number } = block
      const { atMs, ticks, steps, isBuyerMaker } = drawBlockTrade(block, index)
      return {
        id: ids.blockTrade.idAt(eventsBefore(plan, 'blockTrade', number) + index),
        eventTime: blockStartMs(number) + atMs,
        tradeTime: blockStartMs(number) + atMs,
        price: plan.instrument.price(ticks),
        quantity: plan.instrument.quantity(steps),
        isBuyerMaker,
      }
    },
  },
}

export const SERIES: Readonly<Record<TickType, Series<TradeEvent | QuoteEvent>>> = {
  ...TRADE_SERIES,
  bookTicker: {
    eventMs: ({ quotes }, index) => quotes.eventMs[index] ?? 0,
    event({ block, plan, quotes }, index, ids) {
      const { price, quantity } = plan.instrument
      return {
        id: ids.update.idAt(block * plan.updateIdsPerBlock + (quotes.updateOffset[index] ?? 0)),
        price: price(quotes.bidTicks[index] ?? 0),
        quantity: quantity(quotes.bidSteps[index] ?? 0),
        askPrice: price(quotes.askTicks[index] ?? 0),
        askQuantity: quantity(quotes.askSteps[index] ?? 0),
      }
    },
  },
}
