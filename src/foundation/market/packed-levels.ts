import type { EventFields } from './event-fields.ts'

/*
 * The levels of one side as bytes of a column. Byte 0 has the scales: how many decimals the prices (high
 * nibble) and the quantities (low nibble) have, the fewest that hold every level exactly. Then, for each
 * level, the difference of its price to that of the level before (0 before the first) as a zigzag varint,
 * and its quantity as a varint, both in units of their scale: with 2 decimals, 61837.63 is 6183763. No
 * levels are no bytes. The SQL function `unpack_levels` reads the same format.
 */

/** Reason of an event whose levels have no exact whole numbers: see {@link levelsFit}. */
export const LEVEL_DOES_NOT_FIT = 'a level does not fit'

/** With so many digits before the point and 8 after it, every number is below 2⁵³ units. */
export const SHORT_WHOLE_DIGITS = 7

const ZERO = 0x30
const DOT = 0x2e
const QUOTE = 0x22

/** A varint of 54 bits has at most 8 bytes. */
const LEVEL_MAX_BYTES = 16

/** Returns how many bytes so many levels may need. */
export function packedMaxBytes(levels: number): number {
  return levels === 0 ? 0 : 1 + levels * LEVEL_MAX_BYTES
}

export interface LevelScales {
  /** Decimals, 0 to 8. */
  readonly price: number
  readonly quantity: number
}

/** Returns the scales of packed levels; null if there are no levels. */
export function scalesOf(packed: Uint8Array): LevelScales | null {
  const [scales] = packed
  return scales === undefined ? null : { price: scales >> 4, quantity: scales & 15 }
}

/** The decimals of the levels being packed: price, quantity, price, …; each is a whole number of its scale. */
let numbers = new Float64Array(1024)
let scales = new Uint8Array(1024)
const POWERS = Float64Array.from({ length: 9 }, (_, exponent) => 10 ** exponent)

/**
 * Whether no price and no quantity of an event has more than 2⁵³ − 1 units, with the decimals that hold
 * every level of both sides. A double holds such units exactly, and so does an order book.
 */
export function levelsFit({
  bytes,
  bidsStart,
  bidsEnd,
  asksStart,
  asksEnd,
}: Pick<EventFields, 'bytes' | 'bidsStart' | 'bidsEnd' | 'asksStart' | 'asksEnd'>): boolean {
  return scalesOfDecimals(readDecimals(bytes, asksStart, asksEnd, readDecimals(bytes, bidsStart, bidsEnd)))
    .fit
}

/**
 * Packs checked levels into `out` from `at` on; it needs {@link packedMaxBytes}.
 * @param start of the levels, like `EventFields.bidsStart`
 * @returns where the packed bytes end
 * @throws RangeError if they do not fit ({@link levelsFit}); then they were not checked
 */
export function packLevels(
  bytes: Uint8Array,
  start: number,
  end: number,
  out: Uint8Array,
  at: number,
): number {
  if (start === end) return at
  const count = readDecimals(bytes, start, end)
  const { price: priceScale, quantity: quantityScale, fit } = scalesOfDecimals(count)
  if (!fit) throw new RangeError('A level has more than 2^53 - 1 units')
  out[at] = (priceScale << 4) | quantityScale
  let place = at + 1
  let before = 0
  for (let i = 0; i < count; i += 2) {
    const price = unitsOf(i, priceScale)
    const quantity = unitsOf(i + 1, quantityScale)
    place = writeDifference(out, place, price - before)
    place = writeVarint(out, place, quantity)
    before = price
  }
  return place
}

/**
 * Calls `visit` with the units of each level.
 * @throws RangeError if these are not packed levels
 */
export function unpackLevels(
  packed: Uint8Array,
  visit: (priceUnits: number, quantityUnits: number) => void,
): void {
  let price = 0
  for (let at = 1; at < packed.length; ) {
    const first = packed[at++] ?? 0
    // The lowest bit is the sign; the other six begin the number.
    let number = (first & 0x7f) >> 1
    if (first > 0x7f) {
      number += varintAt(packed, at) * 64
      at = varintEnd(packed, at)
    }
    price += (first & 1) === 0 ? number : -number - 1
    const quantity = varintAt(packed, at)
    at = varintEnd(packed, at)
    visit(price, quantity)
  }
}

/** Appends checked levels to `before` {@link numbers} and {@link scales}. @returns how many there are */
function readDecimals(bytes: Uint8Array, start: number, end: number, before = 0): number {
  let count = before
  for (let at = start; at < end; at++) {
    // The text between a pair of quotes is a decimal.
    if (bytes[at] !== QUOTE) continue
    if (count === numbers.length) grow()
    let number = 0
    for (at++; ; at++) {
      const byte = bytes[at] ?? QUOTE
      if (byte === QUOTE || byte === DOT) break
      number = number * 10 + (byte - ZERO)
    }
    let scale = 0
    if (bytes[at] === DOT) {
      // The last zeros do not count.
      let zeros = 0
      for (at++; ; at++) {
        const byte = bytes[at] ?? QUOTE
        if (byte === QUOTE) break
        zeros++
        if (byte === ZERO) continue
        number = number * (POWERS[zeros] ?? 0) + (byte - ZERO)
        scale += zeros
        zeros = 0
      }
    }
    numbers[count] = number
    scales[count++] = scale
  }
  return count
}

/** The scales that hold so many decimals, and whether all of them {@link levelsFit fit}. */
function scalesOfDecimals(count: number): LevelScales & { readonly fit: boolean } {
  let [price, quantity] = [0, 0]
  for (let i = 0; i < count; i += 2) {
    price = Math.max(price, scales[i] ?? 0)
    quantity = Math.max(quantity, scales[i + 1] ?? 0)
  }
  let largest = 0
  for (let i = 0; i < count; i += 2) largest = Math.max(largest, unitsOf(i, price), unitsOf(i + 1, quantity))
  return { price, quantity, fit: largest <= Number.MAX_SAFE_INTEGER }
}

function grow(): void {
  const [fewer, fewerScales] = [numbers, scales]
  numbers = new Float64Array(fewer.length * 2)
  scales = new Uint8Array(fewer.length * 2)
  numbers.set(fewer)
  scales.set(fewerScales)
}

/** Above 2⁵³ the result is inexact, but still above. */
function unitsOf(index: number, scale: number): number {
  return (numbers[index] ?? 0) * (POWERS[scale - (scales[index] ?? 0)] ?? 0)
}

function writeDifference(out: Uint8Array, at: number, difference: number): number {
  const sign = difference < 0 ? 1 : 0
  // In these parts: twice a difference may exceed what a double represents exactly.
  const number = sign === 1 ? -difference - 1 : difference
  const rest = Math.floor(number / 64)
  const first = ((number - rest * 64) << 1) | sign
  if (rest === 0) {
    out[at] = first
    return at + 1
  }
  out[at] = first | 0x80
  return writeVarint(out, at + 1, rest)
}

function writeVarint(out: Uint8Array, start: number, value: number): number {
  let at = start
  let rest = value
  while (rest >= 0x80000000) {
    const next = Math.floor(rest / 128)
    out[at++] = (rest - next * 128) | 0x80
    rest = next
  }
  while (rest > 0x7f) {
    out[at++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  out[at++] = rest
  return at
}

function varintEnd(bytes: Uint8Array, start: number): number {
  let at = start
  while ((bytes[at] ?? 0) > 0x7f) at++
  return at + 1
}

function varintAt(bytes: Uint8Array, start: number): number {
  let value = 0
  let factor = 1
  for (let at = start; ; at++) {
    const byte = bytes[at]
    if (byte === undefined || factor > Number.MAX_SAFE_INTEGER)
      throw new RangeError(`Packed levels are damaged at byte ${at} of ${bytes.length}`)
    value += (byte & 0x7f) * factor
    if (byte <= 0x7f) return value
    factor *= 128
  }
}
