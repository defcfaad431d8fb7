import type { EventType } from './event.ts'
import type { TimeUnit } from './time-unit.ts'

/** A validated symbol, as text and as the bytes used in Kafka and in rows. */
export interface KnownSymbol {
  readonly text: string
  readonly bytes: Buffer
}

/**
 * Where an event came from: the exchange's stream, its REST (backfilled), or its daily files
 * (imported). Only the stream gives an event time, and only its events are in order.
 */
export const EVENT_SOURCES = ['stream', 'backfill', 'archive'] as const

export type EventSource = (typeof EVENT_SOURCES)[number]

/** Those that a message names; without one it came from the stream. */
export const LATE_SOURCES = ['backfill', 'archive'] as const satisfies readonly EventSource[]

/** Returns the source that a message names; null if there is none of that name. */
export function lateSource(value: unknown): (typeof LATE_SOURCES)[number] | null {
  return LATE_SOURCES.find((one) => one === value) ?? null
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
  /** Trade id, aggregate trade id or (last) update id. */
  id = 0
  /** The first update id that a depth update covers; otherwise {@link id}. */
  firstId = 0
  /** The unit in which the times were given, if it has any. */
  timeUnit: TimeUnit = 'microsecond'
  /** {@link ABSENT} unless it came from the stream: nothing else gives it. */
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
  /**
   * Levels of `depth` and `depthSnapshot`, for `levels.ts`: the bytes between the outer brackets of their
   * arrays, and how many there are. Only of these types.
   */
  bidsStart = 0
  bidsEnd = 0
  bidCount = 0
  asksStart = 0
  asksEnd = 0
  askCount = 0
  /** depthSnapshot only: the levels per side that were requested. */
  limit = 0
  /** Receipt by ingestion, in microseconds; only in stored messages. */
  receivedUs = 0
  source: EventSource = 'stream'
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
    this.firstId = this.eventTimeUs = this.firstTradeId = this.lastTradeId = ABSENT
    this.source = 'stream'
    this.bytes = NO_BYTES
    this.#decimals = 0
  }

  /** Adds price, quantity, ask price and ask quantity, in this order. */
  addDecimal(text: string): void {
    const start = this.#append(text)
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

  /** Adds the levels of a side, as the exchange writes them. */
  addLevels(side: 'bids' | 'asks', levels: ReadonlyArray<readonly [price: string, quantity: string]>): void {
    const start = this.#append(levels.map(([price, quantity]) => `["${price}","${quantity}"]`).join())
    const end = this.bytes.length
    if (side === 'bids') {
      this.bidsStart = start
      this.bidsEnd = end
      this.bidCount = levels.length
    } else {
      this.asksStart = start
      this.asksEnd = end
      this.askCount = levels.length
    }
  }

  /** @returns where the text begins */
  #append(text: string): number {
    const start = this.bytes.length
    this.bytes = Buffer.concat([this.bytes, Buffer.from(text, 'latin1')])
    return start
  }
}
