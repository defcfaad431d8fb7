import type { EventType } from './event.ts'
import type { TimeUnit } from './time-unit.ts'

/** A validated symbol, as text and as the bytes used in Kafka and in rows. */
export interface KnownSymbol {
  readonly text: string
  readonly bytes: Buffer
}

/** Replaces a time or id that an event does not have. */
export const ABSENT = -1

const NO_BYTES = Buffer.alloc(0)

/**
 * The fields of one event; decimals stay slices of its bytes. One instance is refilled for each event,
 * which saves an object. To keep a field, copy it. A bookTicker has its bid in `price` and `quantity`.
 */
export class EventFields {
  type: EventType = 'trade'
  symbol: KnownSymbol = { text: '', bytes: NO_BYTES }
  /** Trade id, aggregate trade id or update id. */
  id = 0
  /** Trades: the unit in which the times were given. */
  timeUnit: TimeUnit = 'microsecond'
  /** {@link ABSENT} in a backfilled trade, because REST does not give it. */
  eventTimeUs = ABSENT
  tradeTimeUs = 0
  /** aggTrade only; {@link ABSENT} if the exchange has invalidated it. */
  firstTradeId = ABSENT
  lastTradeId = ABSENT
  isBuyerMaker = false
  /** The buffer of the decimals, which reach from their start to before their end. */
  bytes: Buffer = NO_BYTES
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
  #decimals = 0

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

  /** Empties the fields for an event whose decimals are added as texts. */
  begin(type: EventType, timeUnit: TimeUnit): void {
    this.type = type
    this.timeUnit = timeUnit
    this.eventTimeUs = this.firstTradeId = this.lastTradeId = ABSENT
    this.isBackfill = false
    this.bytes = NO_BYTES
    this.#decimals = 0
  }

  /** Adds price, quantity, ask price and ask quantity, in this order. */
  addDecimal(text: string): void {
    const start = this.bytes.length
    this.bytes = Buffer.concat([this.bytes, Buffer.from(text, 'latin1')])
    const end = this.bytes.length
    switch (this.#decimals++) {
      case 0:
        this.priceStart = start
        this.priceEnd = end
        break
      case 1:
        this.quantityStart = start
        this.quantityEnd = end
        break
      case 2:
        this.askPriceStart = start
        this.askPriceEnd = end
        break
      default:
        this.askQuantityStart = start
        this.askQuantityEnd = end
    }
  }
}
