import { LevelCursor } from './levels.ts'

/*
 * The levels of one side as bytes of a column. Byte 0 has the scales: how many decimals the prices (high
 * nibble) and the quantities (low nibble) have, the fewest that hold every level exactly. Then, for each
 * level, the difference of its price to that of the level before (0 before the first) as a zigzag varint,
 * and its quantity as a varint, both in units of their scale: with 2 decimals, 61837.63 is 6183763. No
 * levels are no bytes. The SQL function `unpack_levels` reads the same format.
 */

const ZERO = 0x30
const DOT = 0x2e

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

const cursor = new LevelCursor()

/**
 * Packs checked levels into `out` from `at` on; it needs {@link packedMaxBytes}.
 * @param start of the levels, like `EventFields.bidsStart`
 * @returns where the packed bytes end; −1 if a price or quantity has more than 2⁵³ − 1 units
 */
export function packLevels(
  bytes: Uint8Array,
  start: number,
  end: number,
  out: Uint8Array,
  at: number,
): number {
  if (start === end) return at
  let [priceScale, quantityScale] = [0, 0]
  cursor.begin(bytes, start, end)
  while (cursor.next()) {
    priceScale = Math.max(priceScale, scaleOf(bytes, cursor.priceStart, cursor.priceEnd))
    quantityScale = Math.max(quantityScale, scaleOf(bytes, cursor.quantityStart, cursor.quantityEnd))
  }
  out[at] = (priceScale << 4) | quantityScale
  let place = at + 1
  let before = 0
  cursor.begin(bytes, start, end)
  while (cursor.next()) {
    const price = unitsOf(bytes, cursor.priceStart, cursor.priceEnd, priceScale)
    const quantity = unitsOf(bytes, cursor.quantityStart, cursor.quantityEnd, quantityScale)
    if (price > Number.MAX_SAFE_INTEGER || quantity > Number.MAX_SAFE_INTEGER) return -1
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

/** Decimals of a text without its last zeros. */
function scaleOf(bytes: Uint8Array, start: number, end: number): number {
  let last = end
  while (last > start && bytes[last - 1] === ZERO) last--
  for (let at = last - 1; at >= start; at--) if (bytes[at] === DOT) return last - 1 - at
  return 0
}

/** Above 2⁵³ the result is inexact, but still above. */
function unitsOf(bytes: Uint8Array, start: number, end: number, scale: number): number {
  let units = 0
  let at = start
  for (; at < end && bytes[at] !== DOT; at++) units = units * 10 + ((bytes[at] ?? 0) - ZERO)
  const last = Math.min(end, at + 1 + scale)
  let decimals = 0
  for (at++; at < last; at++) {
    units = units * 10 + ((bytes[at] ?? 0) - ZERO)
    decimals++
  }
  return units * 10 ** (scale - decimals)
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
