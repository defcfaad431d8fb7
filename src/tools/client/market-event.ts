import type { Position } from '../../foundation/kafka/partition.ts'
import type { TradeType } from '../../foundation/market/event.ts'
import type { EventSource } from '../../foundation/market/event-fields.ts'

interface Received {
  /** Upper-case, like `BTCUSDT`. */
  readonly symbol: string
  /**
   * Receipt time at ingestion, microseconds since the Unix epoch. It rises strictly within one
   * ingestion process until its clock is set, which the ledger records with the cause `clock`.
   * Order events by `position` across such a change.
   */
  readonly ingestionTimestampUs: number
  /** Position of the message. Reading can resume after it. */
  readonly position: Position
}

interface OfTrades extends Received {
  /** With the exchange's digits. */
  readonly price: string
  readonly quantity: string
  /** Microseconds since the Unix epoch; whole milliseconds if it was recorded in milliseconds. */
  readonly tradeTimeUs: number
  /** Null for a trade that did not come from the stream. */
  readonly eventTimeUs: number | null
  /** True: the taker sold. */
  readonly isBuyerMaker: boolean
  /** Rises when the exchange restarts the ids of this sequence. */
  readonly epoch: number
  /**
   * `backfill`: backfilled from REST; `archive`: imported from a daily file of the exchange. Both come
   * late in the topic.
   */
  readonly source: EventSource
}

export interface TradeEvent extends OfTrades {
  readonly type: Exclude<TradeType, 'aggTrade'>
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

/** A level of an order book, with the exchange's digits. */
export type BookLevel = readonly [price: string, quantity: string]

interface OfBook extends Received {
  readonly bids: readonly BookLevel[]
  readonly asks: readonly BookLevel[]
  /** Rises when the exchange restarts the update ids of this symbol. */
  readonly epoch: number
}

/** The levels that changed. A quantity is the new one; 0 removes the level. */
export interface DepthEvent extends OfBook {
  readonly type: 'depth'
  /** It covers the update ids from the first to the last. */
  readonly firstUpdateId: number
  readonly lastUpdateId: number
  /** Microseconds since the Unix epoch. */
  readonly eventTimeUs: number
}

/** An order book up to a number of levels per side; it contains the updates up to `lastUpdateId`. */
export interface DepthSnapshotEvent extends OfBook {
  readonly type: 'depthSnapshot'
  readonly lastUpdateId: number
  /** A side with fewer levels is complete. */
  readonly limit: number
}

export type MarketEvent = TradeEvent | AggTradeEvent | BookTickerEvent | DepthEvent | DepthSnapshotEvent
