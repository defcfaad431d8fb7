import { receiptSuffix } from '../../foundation/binance/stream-frame.ts'
import type { ByteSlice } from '../../foundation/runtime/byte-slice.ts'
import type { ReceiptStamp } from './receipt-clock.ts'

const SLAB_BYTES = 64 << 10

/**
 * Writes texts one after another into buffers; a buffer lives as long as one of its texts is used.
 */
export class ByteSlab {
  #bytes = Buffer.alloc(0)
  #at = 0

  /**
   * @param text without its last byte
   * @param tail written in its place
   */
  write(text: ByteSlice, tail: Uint8Array): ByteSlice {
    const room = text.end - text.start + tail.length
    if (this.#at + room > this.#bytes.length) {
      this.#bytes = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, room))
      this.#at = 0
    }
    const bytes = this.#bytes
    const start = this.#at
    const last = start + text.bytes.copy(bytes, start, text.start, text.end - 1)
    bytes.set(tail, last)
    const end = last + tail.length
    this.#at = end
    return { bytes, start, end }
  }
}

/** Digits of milliseconds since the Unix epoch from 2001 to 2286, and of microseconds. */
const MS_DIGITS = 13
const US_DIGITS = 16
const FIRST_MS = 10 ** (MS_DIGITS - 1)
const END_MS = 10 ** MS_DIGITS

/** So many digits fit a small integer, which is the fastest to increment. */
const GROUP_DIGITS = 8
const GROUP = 10 ** GROUP_DIGITS
const ZERO = 0x30

/**
 * Writes the suffix that replaces an event's closing brace: overwrites the digits of the previous
 * event without building a string.
 */
export class ReceiptSuffix {
  readonly #bytes = Buffer.from(receiptSuffix(FIRST_MS, FIRST_MS * 1000))
  readonly #usEnd = this.#bytes.length - 1
  readonly #msEnd = this.#bytes.indexOf(',', 1)
  #ms = FIRST_MS

  /** @returns bytes that are valid until the next call */
  of({ ms, us }: ReceiptStamp): Uint8Array {
    const latest = Math.max(ms, Math.floor(us / 1000))
    if (Math.min(ms, us / 1000) < FIRST_MS || latest >= END_MS) return Buffer.from(receiptSuffix(ms, us))
    if (ms !== this.#ms) this.#write(ms, this.#msEnd - MS_DIGITS, this.#msEnd)
    this.#ms = ms
    this.#write(us, this.#usEnd - US_DIGITS, this.#usEnd)
    return this.#bytes
  }

  #write(value: number, from: number, end: number): void {
    const high = Math.floor(value / GROUP)
    this.#digits(value - high * GROUP, end - GROUP_DIGITS, end)
    this.#digits(high, from, end - GROUP_DIGITS)
  }

  #digits(value: number, from: number, end: number): void {
    let left = value
    for (let at = end - 1; at >= from; at--) {
      const next = Math.floor(left / 10)
      this.#bytes[at] = ZERO + left - next * 10
      left = next
    }
  }
}
