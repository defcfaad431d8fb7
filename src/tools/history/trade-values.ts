import { declarationOf, INVALIDATED, type Role } from '../../foundation/market/event.ts'
import { ABSENT } from '../../foundation/market/event-fields.ts'
import { MICROSECONDS_IN, type TimeUnit } from '../../foundation/market/time-unit.ts'
import type { DailyFile } from './daily-file.ts'
import type { DailyRows } from './daily-rows.ts'

/** The longest value: two decimals of 21 bytes, five integers of 16, names and stamps. */
export const VALUE_MAX_BYTES = 512

interface Part {
  /** The bytes before the value. */
  readonly literal: Buffer
  readonly role: Role
}

/** Digits that fit a small integer, the fastest to divide. */
const GROUP = 10 ** 8
const GROUP_DIGITS = 8
const ZERO = 0x30
const TRUE = Buffer.from('true')
const FALSE = Buffer.from('false')

/**
 * Writes the messages of a file's rows: the fields of the stream's event without `E`, which daily
 * files lack, with `"source":"archive"`. Nothing is made for a row but its bytes.
 */
export class TradeValues {
  readonly #parts: readonly Part[]
  readonly #unit: TimeUnit
  #end: Buffer
  /** Where {@link write} writes. */
  #into: Buffer = Buffer.alloc(0)
  #at = 0

  /** @param unit of the times in the messages: that of the deployment */
  constructor({ symbol, type }: DailyFile, unit: TimeUnit) {
    const parts: Part[] = []
    let literal = '{'
    for (const [name, role] of declarationOf(type).layout) {
      if (role === 'eventTime') continue
      literal += `${literal === '{' ? '' : ','}"${name}":`
      if (role === 'type' || role === 'symbol') literal += JSON.stringify(role === 'type' ? type : symbol)
      else {
        const isText = role === 'price' || role === 'quantity'
        parts.push({ literal: Buffer.from(isText ? `${literal}"` : literal), role })
        literal = isText ? '"' : ''
      }
    }
    this.#parts = parts
    this.#unit = unit
    this.#closing = literal
    this.#end = Buffer.alloc(0)
  }

  readonly #closing: string

  /** Sets the stamps of the rows that follow, in milliseconds since the Unix epoch. */
  stamp(nowMs: number): void {
    const stamps = `"source":"archive","ingestion_timestamp":${nowMs},"ingestion_timestamp_us":${nowMs * 1000}`
    this.#end = Buffer.from(`${this.#closing},${stamps}}`)
  }

  /** Writes the message of the current row. @returns its end; it has at most {@link VALUE_MAX_BYTES} bytes */
  write(rows: DailyRows, into: Buffer, at: number): number {
    const { fields } = rows
    this.#into = into
    this.#at = at
    for (const { literal, role } of this.#parts) {
      this.#bytes(literal, 0, literal.length)
      switch (role) {
        case 'id':
          this.#integer(fields.id)
          break
        case 'price':
          this.#bytes(fields.bytes, fields.priceStart, fields.priceEnd)
          break
        case 'quantity':
          this.#bytes(fields.bytes, fields.quantityStart, fields.quantityEnd)
          break
        case 'firstTradeId':
          this.#tile(fields.firstTradeId)
          break
        case 'lastTradeId':
          this.#tile(fields.lastTradeId)
          break
        case 'tradeTime':
          this.#integer(Math.floor(fields.tradeTimeUs / MICROSECONDS_IN[this.#unit]))
          break
        case 'isBuyerMaker':
          this.#flag(fields.isBuyerMaker)
          break
        case 'unused':
          this.#flag(rows.isBestMatch)
          break
        default:
          throw new Error(`A row of a daily file has no ${role}`)
      }
    }
    this.#bytes(this.#end, 0, this.#end.length)
    return this.#at
  }

  #tile(id: number): void {
    if (id !== ABSENT) this.#integer(id)
    else {
      this.#into.write(String(INVALIDATED), this.#at)
      this.#at += String(INVALIDATED).length
    }
  }

  #flag(isSet: boolean): void {
    const text = isSet ? TRUE : FALSE
    this.#bytes(text, 0, text.length)
  }

  /** A call of `copy` costs more than copying a few bytes. */
  #bytes(from: Uint8Array, start: number, end: number): void {
    const into = this.#into
    let at = this.#at
    for (let i = start; i < end; i++) into[at++] = from[i] ?? 0
    this.#at = at
  }

  /** @param value a safe integer, not negative */
  #integer(value: number): void {
    const high = Math.floor(value / GROUP)
    if (high > 0) this.#integer(high)
    let low = value - high * GROUP
    let digits = 1
    if (high > 0) digits = GROUP_DIGITS
    else for (let left = low; left > 9; left = Math.floor(left / 10)) digits++
    const into = this.#into
    for (let at = this.#at + digits - 1; at >= this.#at; at--) {
      const rest = Math.floor(low / 10)
      into[at] = ZERO + low - rest * 10
      low = rest
    }
    this.#at += digits
  }
}
