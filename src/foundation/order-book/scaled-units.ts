import { TapelineError } from '../runtime/errors.ts'

/*
 * A price or quantity as a whole number of units of 10^-scale, so that sums of rounding errors cannot
 * occur. Units reach 2^53 - 1: a double holds them exactly.
 */

const DECIMAL = /^(\d+)(?:\.(\d+))?$/

/** A decimal as units of 10^-scale. */
export interface Scaled {
  readonly units: number
  readonly scale: number
}

/** Reads a decimal with the smallest scale that holds it; null if it has too many digits, or is no decimal. */
export function scaledOf(text: string): Scaled | null {
  const [, whole, fraction = ''] = DECIMAL.exec(text) ?? []
  const digits = fraction.replace(/0+$/, '')
  const units = whole === undefined ? Number.NaN : Number(whole + digits)
  return Number.isSafeInteger(units) ? { units, scale: digits.length } : null
}

/** Returns the units at a scale; null if they are not exact. */
export function unitsAt(text: string, scale: number): number | null {
  const scaled = scaledOf(text)
  if (scaled === null || scaled.scale > scale) return null
  const units = scaled.units * 10 ** (scale - scaled.scale)
  return Number.isSafeInteger(units) ? units : null
}

/** Writes a decimal exactly, without zeros at its end: `0.5`, `100`. */
export function decimalText(units: number, scale: number): string {
  if (scale === 0) return String(units)
  const digits = String(units).padStart(scale + 1, '0')
  const fraction = digits.slice(-scale).replace(/0+$/, '')
  const whole = digits.slice(0, -scale)
  return fraction === '' ? whole : `${whole}.${fraction}`
}

/** @throws a TapelineError if units of this size would not be exact at the scale */
export function assertFits(units: number, scale: number, grownTo: number): void {
  if (units * 10 ** (grownTo - scale) <= Number.MAX_SAFE_INTEGER) return
  throw new TapelineError(
    'INPUT',
    `The order book cannot hold ${decimalText(units, scale)} together with values of ${grownTo} decimals exactly`,
    { fix: 'Read the stored levels instead of the book: they are exact' },
  )
}
