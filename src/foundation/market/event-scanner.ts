import { isUtf8 } from 'node:buffer'
import { SharedBytes } from '../runtime/shared-bytes.ts'
import { ABSENT, EventFields, type KnownSymbol } from './event-fields.ts'
import { FIRST_TIME_MS, FIRST_TIME_US, isSymbol, LAST_TIME_MS, LAST_TIME_US } from './fields.ts'

/*
 * The exchange writes each kind of event in one layout: fixed order, no spaces, no escapes. This
 * scanner reads that layout directly from the bytes, without strings or objects, several times
 * faster than `JSON.parse` and without garbage. A deviation of one byte sends the event through
 * `JSON.parse` and `payload.ts`, which also report what is wrong. The scanner decides nothing: it
 * gives the same fields as that path (`test/market-event-scanner.test.ts`).
 */

const literal = (text: string): Uint8Array => Buffer.from(text)

const TRADE = literal('{"e":"trade","E":')
const AGG_TRADE = literal('{"e":"aggTrade","E":')
const BOOK_TICKER = literal('{"u":')
const SYMBOL = literal(',"s":"')
const TRADE_ID = literal('","t":')
const AGG_TRADE_ID = literal('","a":')
const PRICE = literal(',"p":"')
const QUANTITY = literal('","q":"')
const FIRST_TRADE_ID = literal('","f":')
const LAST_TRADE_ID = literal(',"l":')
const END_OF_STRING = literal('"')
const TRADE_TIME = literal(',"T":')
const IS_BUYER_MAKER = literal(',"m":')
const IGNORED = literal(',"M":')
const BID_PRICE = literal('","b":"')
const BID_QUANTITY = literal('","B":"')
const ASK_PRICE = literal('","a":"')
const ASK_QUANTITY = literal('","A":"')
const RECEIVED_MS = literal(',"ingestion_timestamp":')
const RECEIVED_US = literal(',"ingestion_timestamp_us":')
const TRUE = literal('true')
const FALSE = literal('false')

const QUOTE = 0x22
const DOT = 0x2e
const ZERO = 0x30
const CLOSING_BRACE = 0x7d
/** Position of the first byte that differs between the three kinds: `{"u`, `{"e":"t`, `{"e":"a`. */
const KEY_AT = 2
const TYPE_AT = 6
const LETTER_U = 0x75
const LETTER_T = 0x74

/**
 * Digits of 2⁵³ − 1, the largest integer that a double represents exactly; longer numbers are
 * rejected early.
 */
const INTEGER_DIGITS = 16
const WHOLE_DIGITS = 12
const FRACTION_DIGITS = 8

/** A symbol has at most 40 characters. */
const SYMBOL_MAX_BYTES = 160

/**
 * Reads events in the exchange's layout into {@link fields}, which are meaningless after a failed
 * read.
 */
export class EventScanner {
  readonly fields: EventFields
  readonly #symbols = new SharedBytes<KnownSymbol | null>((bytes) => knownSymbol(bytes))
  #bytes: Buffer = Buffer.alloc(0)
  #at = 0
  #end = 0

  constructor(fields: EventFields = new EventFields()) {
    this.fields = fields
  }

  /**
   * Reads an event as the exchange sends it.
   *
   * @param start of the opening brace
   * @param end after the closing brace
   * @returns false if it is not in the layout
   */
  readEvent(bytes: Buffer, start: number, end: number): boolean {
    return this.#readData(bytes, start, end) && this.#isClosedAtEnd()
  }

  /** Reads a stored event, whose fields are followed by ingestion's two stamps. */
  readStamped(bytes: Buffer, start: number, end: number): boolean {
    if (!this.#readData(bytes, start, end)) return false
    if (!this.#literal(RECEIVED_MS) || this.#integer() < 0 || !this.#literal(RECEIVED_US)) return false
    const receivedUs = this.#integer()
    this.fields.receivedUs = receivedUs
    return receivedUs >= FIRST_TIME_US && receivedUs < LAST_TIME_US && this.#isClosedAtEnd()
  }

  #readData(bytes: Buffer, start: number, end: number): boolean {
    this.#bytes = bytes
    this.#at = start
    this.#end = end
    if (end - start <= TYPE_AT) return false
    const { fields } = this
    fields.bytes = bytes
    fields.isBackfill = false
    if (bytes[start + KEY_AT] === LETTER_U) return this.#bookTicker()
    return bytes[start + TYPE_AT] === LETTER_T ? this.#trade() : this.#aggTrade()
  }

  #trade(): boolean {
    const { fields } = this
    fields.type = 'trade'
    fields.firstTradeId = ABSENT
    fields.lastTradeId = ABSENT
    return (
      this.#literal(TRADE) &&
      this.#eventTime() &&
      this.#literal(SYMBOL) &&
      this.#symbol() &&
      this.#literal(TRADE_ID) &&
      this.#id() &&
      this.#price() &&
      this.#literal(END_OF_STRING) &&
      this.#restOfTrade()
    )
  }

  #aggTrade(): boolean {
    this.fields.type = 'aggTrade'
    return (
      this.#literal(AGG_TRADE) &&
      this.#eventTime() &&
      this.#literal(SYMBOL) &&
      this.#symbol() &&
      this.#literal(AGG_TRADE_ID) &&
      this.#id() &&
      this.#price() &&
      this.#tradeRange() &&
      this.#restOfTrade()
    )
  }

  #bookTicker(): boolean {
    const { fields } = this
    fields.type = 'bookTicker'
    if (!(this.#literal(BOOK_TICKER) && this.#id() && this.#literal(SYMBOL) && this.#symbol())) return false
    if (!this.#literal(BID_PRICE)) return false
    fields.priceStart = this.#at
    if (!this.#decimal()) return false
    fields.priceEnd = this.#at
    if (!this.#literal(BID_QUANTITY)) return false
    fields.quantityStart = this.#at
    if (!this.#decimal()) return false
    fields.quantityEnd = this.#at
    if (!this.#literal(ASK_PRICE)) return false
    fields.askPriceStart = this.#at
    if (!this.#decimal()) return false
    fields.askPriceEnd = this.#at
    if (!this.#literal(ASK_QUANTITY)) return false
    fields.askQuantityStart = this.#at
    if (!this.#decimal()) return false
    fields.askQuantityEnd = this.#at
    return this.#literal(END_OF_STRING)
  }

  #eventTime(): boolean {
    const us = this.#time()
    this.fields.eventTimeUs = us
    return us !== ABSENT
  }

  /**
   * Reads a time in either unit, notes the unit, and returns microseconds; {@link ABSENT} if it is
   * not a time.
   */
  #time(): number {
    const time = this.#integer()
    const { fields } = this
    if (time >= FIRST_TIME_US && time < LAST_TIME_US) {
      fields.timeUnit = 'microsecond'
      return time
    }
    if (time < FIRST_TIME_MS || time >= LAST_TIME_MS) return ABSENT
    fields.timeUnit = 'millisecond'
    return time * 1000
  }

  #id(): boolean {
    const id = this.#integer()
    this.fields.id = id
    return id >= 0
  }

  #price(): boolean {
    const { fields } = this
    if (!this.#literal(PRICE)) return false
    fields.priceStart = this.#at
    if (!this.#decimal()) return false
    fields.priceEnd = this.#at
    if (!this.#literal(QUANTITY)) return false
    fields.quantityStart = this.#at
    if (!this.#decimal()) return false
    fields.quantityEnd = this.#at
    return true
  }

  #tradeRange(): boolean {
    const { fields } = this
    if (!this.#literal(FIRST_TRADE_ID)) return false
    const first = this.#integer()
    if (first < 0 || !this.#literal(LAST_TRADE_ID)) return false
    const last = this.#integer()
    fields.firstTradeId = first
    fields.lastTradeId = last
    return first <= last
  }

  /** Reads `T`, `m`, and the unused `M`. */
  #restOfTrade(): boolean {
    const { fields } = this
    if (!this.#literal(TRADE_TIME)) return false
    const { timeUnit } = fields
    const us = this.#time()
    fields.tradeTimeUs = us
    if (us === ABSENT || fields.timeUnit !== timeUnit || !this.#literal(IS_BUYER_MAKER)) return false
    fields.isBuyerMaker = this.#literal(TRUE)
    if (!fields.isBuyerMaker && !this.#literal(FALSE)) return false
    return this.#literal(IGNORED) && (this.#literal(TRUE) || this.#literal(FALSE))
  }

  #isClosedAtEnd(): boolean {
    return this.#at === this.#end - 1 && this.#bytes[this.#at] === CLOSING_BRACE
  }

  /** Skips these bytes if they are next. */
  #literal(expected: Uint8Array): boolean {
    const bytes = this.#bytes
    const at = this.#at
    const { length } = expected
    if (at + length > this.#end) return false
    for (let i = 0; i < length; i++) if (bytes[at + i] !== expected[i]) return false
    this.#at = at + length
    return true
  }

  /** @returns -1 if there is no integer, or not one that JSON and a double represent exactly */
  #integer(): number {
    const bytes = this.#bytes
    const start = this.#at
    const end = Math.min(this.#end, start + INTEGER_DIGITS)
    let at = start
    let value = 0
    for (; at < end; at++) {
      const digit = (bytes[at] ?? 0) - ZERO
      if (digit < 0 || digit > 9) break
      value = value * 10 + digit
    }
    this.#at = at
    const isPadded = at - start > 1 && bytes[start] === ZERO
    return at === start || isPadded || value > Number.MAX_SAFE_INTEGER ? -1 : value
  }

  /** Reads a decimal as `DECIMAL` in `fields.ts` defines it. */
  #decimal(): boolean {
    const whole = this.#digits(WHOLE_DIGITS)
    if (whole === 0) return false
    if (this.#bytes[this.#at] !== DOT) return true
    this.#at++
    return this.#digits(FRACTION_DIGITS) > 0
  }

  /** Skips digits. @returns how many; 0 if more than `most` */
  #digits(most: number): number {
    const bytes = this.#bytes
    const start = this.#at
    let at = start
    for (; at < this.#end; at++) {
      const digit = (bytes[at] ?? 0) - ZERO
      if (digit < 0 || digit > 9) break
    }
    this.#at = at
    return at - start > most ? 0 : at - start
  }

  #symbol(): boolean {
    const bytes = this.#bytes
    const start = this.#at
    const end = Math.min(this.#end, start + SYMBOL_MAX_BYTES + 1)
    let at = start
    while (at < end && bytes[at] !== QUOTE) at++
    if (at === end) return false
    const symbol = this.#symbols.of(bytes, start, at)
    if (symbol === null) return false
    this.fields.symbol = symbol
    this.#at = at
    return true
  }
}

/** Returns null if the bytes are not a symbol, for example with a JSON escape. */
export function knownSymbol(bytes: Buffer): KnownSymbol | null {
  const text = bytes.toString()
  return isUtf8(bytes) && isSymbol(text) ? { text, bytes } : null
}
