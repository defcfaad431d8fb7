import { decimalFormat } from './decimals.ts'
import type { MarketBlock } from './market-block.ts'
import { blockStartMs, type SymbolIds, type SymbolPlan } from './market-plan.ts'

/** The stream names and the text of frames of one symbol, keys in the exchange's order. */
export interface FrameWriter {
  readonly tradeStream: string
  readonly aggTradeStream: string
  readonly bookTickerStream: string
  /** The frame of a trade that is part of an aggTrade; both arguments are indices in the block. */
  trade(block: MarketBlock, trade: number, aggTrade: number): string
  aggTrade(block: MarketBlock, aggTrade: number): string
  bookTicker(block: MarketBlock, quote: number): string
}

export function frameWriter(plan: SymbolPlan, ids: SymbolIds): FrameWriter {
  const { symbol, priceDecimals, quantityDecimals } = plan.instrument
  const price = decimalFormat(priceDecimals)
  const quantity = decimalFormat(quantityDecimals)
  const name = JSON.stringify(symbol)
  const streamOf = (type: 'trade' | 'aggTrade' | 'bookTicker') => `${symbol.toLowerCase()}@${type}`
  const tradeStream = streamOf('trade')
  const aggTradeStream = streamOf('aggTrade')
  const bookTickerStream = streamOf('bookTicker')
  const tradeHead = `{"stream":${JSON.stringify(tradeStream)},"data":{"e":"trade","E":`
  const aggTradeHead = `{"stream":${JSON.stringify(aggTradeStream)},"data":{"e":"aggTrade","E":`
  const bookTickerHead = `{"stream":${JSON.stringify(bookTickerStream)},"data":{"u":`
  return {
    tradeStream,
    aggTradeStream,
    bookTickerStream,
    trade(block, trade, aggTrade) {
      const startMs = blockStartMs(block.block)
      const { eventMs, tradeMs, ticks, buyerIsMaker } = block.aggTrades
      const id = ids.trade.idAt(block.block * plan.tradesPerBlock + trade)
      return `${tradeHead}${startMs + (eventMs[aggTrade] ?? 0)},"s":${name},"t":${id},"p":"${price(ticks[aggTrade] ?? 0)}","q":"${quantity(block.trades.steps[trade] ?? 0)}","T":${startMs + (tradeMs[aggTrade] ?? 0)},"m":${buyerIsMaker[aggTrade] === 1},"M":true}}`
    },
    aggTrade(block, aggTrade) {
      const startMs = blockStartMs(block.block)
      const { eventMs, tradeMs, ticks, buyerIsMaker, firstTrade } = block.aggTrades
      const id = ids.aggTrade.idAt(block.block * plan.aggTradesPerBlock + aggTrade)
      const first = block.block * plan.tradesPerBlock + (firstTrade[aggTrade] ?? 0)
      const last = block.block * plan.tradesPerBlock + (firstTrade[aggTrade + 1] ?? 0) - 1
      return `${aggTradeHead}${startMs + (eventMs[aggTrade] ?? 0)},"s":${name},"a":${id},"p":"${price(ticks[aggTrade] ?? 0)}","q":"${quantity(aggTradeSteps(block, aggTrade))}","f":${ids.trade.idAt(first)},"l":${ids.trade.idAt(last)},"T":${startMs + (tradeMs[aggTrade] ?? 0)},"m":${buyerIsMaker[aggTrade] === 1},"M":true}}`
    },
    bookTicker(block, quote) {
      const { updateOffset, bidTicks, bidSteps, askTicks, askSteps } = block.quotes
      const id = plan.firstUpdateId + block.block * plan.updateIdsPerBlock + (updateOffset[quote] ?? 0)
      return `${bookTickerHead}${id},"s":${name},"b":"${price(bidTicks[quote] ?? 0)}","B":"${quantity(bidSteps[quote] ?? 0)}","a":"${price(askTicks[quote] ?? 0)}","A":"${quantity(askSteps[quote] ?? 0)}"}}`
    },
  }
}

/** The quantity of an aggTrade in steps: the exact sum over its trades. */
export function aggTradeSteps(block: MarketBlock, aggTrade: number): number {
  let sum = 0
  const end = block.aggTrades.firstTrade[aggTrade + 1] ?? 0
  for (let trade = block.aggTrades.firstTrade[aggTrade] ?? 0; trade < end; trade++)
    sum += block.trades.steps[trade] ?? 0
  return sum
}
