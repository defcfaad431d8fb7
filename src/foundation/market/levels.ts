import { decimalEnd } from '../runtime/bytes.ts'
import { DECIMAL_DIGITS } from './fields.ts'
import { SHORT_WHOLE_DIGITS } from './packed-levels.ts'

/*
 * Levels as the exchange writes them, `["61837.63000000","0.02000000"],["61837.62000000","0.00000000"]`: a
 * range of bytes between the outer brackets of their array, without spaces.
 */

const QUOTE = 0x22
const DOT = 0x2e
const COMMA = 0x2c
const OPENING_BRACKET = 0x5b
const CLOSING_BRACKET = 0x5d

/** Finds the end of levels, and counts them. */
export class LevelChecker {
  /** Levels of the last call. */
  count = 0
  /** Whether a decimal of the last call may have too many digits for `levelsFit`; false: all of them fit. */
  hasLong = false

  /** Returns where the array closes after levels that start at `start`; −1 if they are not levels. */
  endOf(bytes: Uint8Array, start: number, end: number): number {
    this.count = 0
    this.hasLong = false
    if (bytes[start] === CLOSING_BRACKET) return start
    let count = 0
    for (let at = start; ; at++) {
      if (bytes[at] !== OPENING_BRACKET || bytes[at + 1] !== QUOTE) return -1
      let from = at + 2
      at = decimalEnd(bytes, from, end, DECIMAL_DIGITS)
      if (at < 0 || bytes[at] !== QUOTE || bytes[at + 1] !== COMMA || bytes[at + 2] !== QUOTE) return -1
      this.hasLong ||= isLong(bytes, from, at)
      from = at + 3
      at = decimalEnd(bytes, from, end, DECIMAL_DIGITS)
      if (at < 0 || bytes[at] !== QUOTE || bytes[at + 1] !== CLOSING_BRACKET) return -1
      this.hasLong ||= isLong(bytes, from, at)
      at += 2
      count++
      if (bytes[at] === COMMA) continue
      this.count = count
      return bytes[at] === CLOSING_BRACKET && at < end ? at : -1
    }
  }
}

/** The exchange writes 8 digits after the point. With fewer, too many digits before it are assumed. */
function isLong(bytes: Uint8Array, start: number, end: number): boolean {
  const point = end - DECIMAL_DIGITS.fraction - 1
  return (point > start && bytes[point] === DOT ? point : end) - start > SHORT_WHOLE_DIGITS
}

/** Steps through levels that were checked; nothing is allocated. */
export class LevelCursor {
  /** The decimals of the level, in the bytes that {@link begin} was given. */
  priceStart = 0
  priceEnd = 0
  quantityStart = 0
  quantityEnd = 0
  #bytes: Uint8Array = new Uint8Array(0)
  #at = 0
  #end = 0

  /** @param start of levels that `EventScanner` or `readPayload` has read, like `bidsStart` */
  begin(bytes: Uint8Array, start: number, end: number): void {
    this.#bytes = bytes
    this.#at = start
    this.#end = end
  }

  /** Moves to the next level. @returns false after the last one */
  next(): boolean {
    if (this.#at >= this.#end) return false
    const bytes = this.#bytes
    let at = this.#at + 2
    this.priceStart = at
    while (bytes[at] !== QUOTE) at++
    this.priceEnd = at
    at += 3
    this.quantityStart = at
    while (bytes[at] !== QUOTE) at++
    this.quantityEnd = at
    this.#at = at + 3
    return true
  }
}
