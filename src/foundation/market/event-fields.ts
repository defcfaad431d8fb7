import type { EventType } from './event.ts'
import { type AggTradePayload, type BookTickerPayload, INVALIDATED, type TradePayload } from './payload.ts'
import { MICROSECONDS_IN, type TimeUnit } from './time-unit.ts'

/** A validated symbol, as text and as the bytes used in Kafka and in rows. */
export interface KnownSymbol {
  readonly text: string
  readonly bytes: Buffer
}

/** Replaces a time or id that an event does not have. */
export const ABSENT = -1

/**
 * The fields of one event; decimals stay slices of its bytes. One instance is refilled for each
 * event, which saves an object per event. To keep a field, copy it.
 *
 * A bookTicker has its bid in `price` and `quantity`, and its ask in the ask fields.
 */
export class EventFields {
  type: EventType = 'trade'
  symbol: KnownSymbol = { text: '', bytes: Buffer.alloc(0) }
  /** Trade id, aggregate trade id or update id. */
  id = 0
  /** Trades: the unit in which the times were given. */
  timeUnit: TimeUnit = 'microsecond'
  /** Trades: microseconds. {@link ABSENT} in a backfilled trade, because REST does not give it. */
  eventTimeUs = ABSENT
  /** Trades: microseconds. */
  tradeTimeUs = 0
  /** aggTrade only; {@link ABSENT} if the exchange has invalidated it. */
  firstTradeId = ABSENT
  lastTradeId = ABSENT
  isBuyerMaker = false
  /** The buffer of the decimals, which reach from their start to before their end. */
  bytes: Buffer = Buffer.alloc(0)
  priceStart = 0
  priceEnd = 0
  quantityStart = 0
  quantityEnd = 0
  askPriceStart = 0
  askPriceEnd = 0
  askQuantityStart = 0
  askQuantityEnd = 0
  /** Receipt by ingestion, in microseconds; only in stored messages. */
  receivedUs = 0
  /** Whether it came from REST. */
  isBackfill = false
  /** How often the exchange had restarted the id sequence. */
  epoch = 0

  /** Milliseconds, rounded down; {@link ABSENT} if there is none. */
  get eventTimeMs(): number {
    return Math.floor(this.eventTimeUs / 1000)
  }

  /** Milliseconds, rounded down. */
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

  /** Takes the fields of a payload parsed as JSON, except stamps and epoch. */
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
