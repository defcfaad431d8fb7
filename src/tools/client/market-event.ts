import type { FetchedMessage } from '../../foundation/kafka/codec/record-batch.ts'
import { Decoder } from '../../foundation/kafka/message-decoder.ts'
import type { Position } from '../../foundation/kafka/partition.ts'
import type { TradeType } from '../../foundation/market/event.ts'
import { ABSENT } from '../../foundation/market/event-fields.ts'

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
  /** Null for a trade backfilled from REST. */
  readonly eventTimeUs: number | null
  /** True: the taker sold. */
  readonly isBuyerMaker: boolean
  /** Rises when the exchange restarts the ids of this sequence. */
  readonly epoch: number
  /** `backfill`: backfilled from REST, so it comes late in the topic. */
  readonly source: 'stream' | 'backfill'
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

export type MarketEvent = TradeEvent | AggTradeEvent | BookTickerEvent

const decoder = new Decoder()

/**
 * Decodes the event of a message as the consumer does.
 *
 * @param kind of its topic
 * @returns a short text that names the missing or wrong field when it is not an event
 * @throws TapelineError `SCHEMA` when it has a newer schema than this version knows
 */
export function readEvent(
  kind: 'trades' | 'bookTicker',
  message: FetchedMessage,
  position: Position,
): MarketEvent | string {
  const reason = decoder.decode(kind, message)
  if (reason !== null) return reason
  const { event } = decoder
  const { type, id, price, quantity } = event
  const received = { symbol: event.symbol.text, ingestionTimestampUs: event.receivedUs, position }
  if (type === 'bookTicker') {
    const { askPrice, askQuantity } = event
    return { type, updateId: id, bidPrice: price, bidQuantity: quantity, askPrice, askQuantity, ...received }
  }
  const trade = {
    price,
    quantity,
    tradeTimeUs: event.tradeTimeUs,
    eventTimeUs: orNull(event.eventTimeUs),
    isBuyerMaker: event.isBuyerMaker,
    epoch: event.epoch,
    source: event.isBackfill ? ('backfill' as const) : ('stream' as const),
    ...received,
  }
  if (type !== 'aggTrade') return { type, tradeId: id, ...trade }
  const [firstTradeId, lastTradeId] = [orNull(event.firstTradeId), orNull(event.lastTradeId)]
  return { type, aggTradeId: id, firstTradeId, lastTradeId, ...trade }
}

const orNull = (value: number) => (value === ABSENT ? null : value)
