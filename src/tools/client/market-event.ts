import type { Position } from '../../foundation/kafka/position.ts'

export interface Received {
  /** Upper-case, like `BTCUSDT`. */
  readonly symbol: string
  /**
   * When ingestion received it, microseconds since the Unix epoch; rises strictly within one ingestion process until its
   * clock is set, which is a row of the ledger with the cause `clock`. Order events by `position` across that.
   */
  readonly ingestionTimestampUs: number
  /** Where the message stands: reading can go on behind it. */
  readonly position: Position
}

export interface OfTrades extends Received {
  /** The exchange's digits. */
  readonly price: string
  readonly quantity: string
  /** Microseconds since the Unix epoch; whole milliseconds where it was recorded in these. */
  readonly tradeTimeUs: number
  /** Null where it was filled from REST. */
  readonly eventTimeUs: number | null
  /** True: the taker sold. */
  readonly isBuyerMaker: boolean
  /** Rises when the exchange begins the ids of this sequence anew. */
  readonly epoch: number
  /** `backfill`: filled from REST, and late in the order of the topic. */
  readonly source: 'stream' | 'backfill'
}

export interface TradeEvent extends OfTrades {
  readonly type: 'trade'
  readonly tradeId: number
}

export interface AggTradeEvent extends OfTrades {
  readonly type: 'aggTrade'
  readonly aggTradeId: number
  /** Null in rows that the exchange has invalidated. */
  readonly firstTradeId: number | null
  readonly lastTradeId: number | null
}

export interface BookTickerEvent extends Received {
  readonly type: 'bookTicker'
  readonly updateId: number
  readonly bidPrice: string
  readonly bidQuantity: string
  readonly askPrice: string
  readonly askQuantity: string
}

export type MarketEvent = TradeEvent | AggTradeEvent | BookTickerEvent
