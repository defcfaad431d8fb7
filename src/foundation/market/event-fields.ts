import type { EventType } from './event.ts'
import { type AggTradePayload, type BookTickerPayload, INVALIDATED, type TradePayload } from './payload.ts'
import { MICROSECONDS_IN, type TimeUnit } from './time-unit.ts'

/** A symbol that has been checked, as text and as the bytes that stand for it in Kafka and in a row. */
export interface KnownSymbol {
  readonly text: string
  readonly bytes: Buffer
}

/** In place of a time or an id that an event does not have. */
export const ABSENT = -1

/**
 * The fields of one event, decimals left where they stand in its bytes. One such object is filled again and again, so that
 * an event which passes through costs no object: whoever wants to keep a field copies it.
 *
 * A bookTicker has its bid in `price` and `quantity`, and its ask in the fields behind.
 */
export class EventFields {
  type: EventType = 'trade'
  symbol: KnownSymbol = { text: '', bytes: Buffer.alloc(0) }
  /** Trade id, aggregate trade id or update id. */
  id = 0
  /** Trades: what the times were given in. */
  timeUnit: TimeUnit = 'microsecond'
  /** Trades: microseconds. {@link ABSENT} in a backfilled one, of which REST does not give it. */
  eventTimeUs = ABSENT
  /** Trades: microseconds. */
  tradeTimeUs = 0
  /** Of an aggTrade; {@link ABSENT} in one that the exchange has invalidated. */
  firstTradeId = ABSENT
  lastTradeId = ABSENT
  isBuyerMaker = false
  /** Where the decimals stand, from the first byte up to the one behind the last. */
  bytes: Buffer = Buffer.alloc(0)
  priceStart = 0
  priceEnd = 0
  quantityStart = 0
  quantityEnd = 0
  askPriceStart = 0
  askPriceEnd = 0
  askQuantityStart = 0
  askQuantityEnd = 0
  /** When ingestion received it, in microseconds; of what is stored only. */
  receivedUs = 0
  /** Whether it came from REST. */
  isBackfill = false
  /** How often the exchange had begun the id sequence anew. */
  epoch = 0

  /** Whole milliseconds; not above the time, so no bound above it. {@link ABSENT} where there is none. */
  get eventTimeMs(): number {
    return Math.floor(this.eventTimeUs / 1000)
  }

  /** Likewise. */
  get tradeTimeMs(): number {
    return Math.floor(this.tradeTimeUs / 1000)
  }

  get price(): string {
    return this.bytes.toString('latin1', this.priceStart, this.priceEnd)
  }

  get quantity(): string {
    return this.bytes.toString('latin1', this.quantityStart, this.quantityEnd)
  }

  get askPrice(): string {
    return this.bytes.toString('latin1', this.askPriceStart, this.askPriceEnd)
  }

  get askQuantity(): string {
    return this.bytes.toString('latin1', this.askQuantityStart, this.askQuantityEnd)
  }

  /** Takes what was read by way of JSON. All but the stamps and the epoch. */
  take(type: EventType, payload: TradePayload | AggTradePayload | BookTickerPayload): void {
    this.type = type
    this.symbol = { text: payload.s, bytes: Buffer.from(payload.s) }
    if ('u' in payload) {
      this.id = payload.u
      this.#takeDecimals(payload.b, payload.B, payload.a, payload.A)
      return
    }
    const isAggTrade = 'a' in payload
    this.id = isAggTrade ? payload.a : payload.t
    this.timeUnit = payload.unit
    this.eventTimeUs = payload.E === null ? ABSENT : payload.E * MICROSECONDS_IN[payload.unit]
    this.tradeTimeUs = payload.T * MICROSECONDS_IN[payload.unit]
    this.firstTradeId = isAggTrade && payload.f !== INVALIDATED ? payload.f : ABSENT
    this.lastTradeId = isAggTrade && payload.l !== INVALIDATED ? payload.l : ABSENT
    this.isBuyerMaker = payload.m
    this.#takeDecimals(payload.p, payload.q)
  }

  #takeDecimals(price: string, quantity: string, askPrice = '', askQuantity = ''): void {
    this.bytes = Buffer.from(price + quantity + askPrice + askQuantity, 'latin1')
    this.priceStart = 0
    this.priceEnd = price.length
    this.quantityStart = this.priceEnd
    this.quantityEnd = this.quantityStart + quantity.length
    this.askPriceStart = this.quantityEnd
    this.askPriceEnd = this.askPriceStart + askPrice.length
    this.askQuantityStart = this.askPriceEnd
    this.askQuantityEnd = this.askQuantityStart + askQuantity.length
  }
}
