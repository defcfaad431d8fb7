/** Digits after the point in every price and quantity of the exchange's spot market. */
const WIRE_DECIMALS = 8

/** Formats a count of `10^-decimals` with 8 decimals: with 2, 6183763 is `61837.63000000`. */
export function decimalFormat(decimals: number): (units: number) => string {
  const scale = 10 ** decimals
  const zeros = '0'.repeat(WIRE_DECIMALS - decimals)
  if (decimals === 0) return (units) => `${units}.${zeros}`
  return (units) => {
    const whole = Math.floor(units / scale)
    // The leading 1 keeps leading zeros of the fraction, and is then removed.
    return `${whole}.${String(scale + units - whole * scale).slice(1)}${zeros}`
  }
}

const UNITS_PER_ONE = 10n ** BigInt(WIRE_DECIMALS)

const DECIMAL = /^(\d+)(?:\.(\d{1,8}))?$/

/** Parses a decimal to a whole number of 1e-8 units. Throws when the text is not a decimal. */
export function toUnits(decimal: string): bigint {
  const match = DECIMAL.exec(decimal)
  if (match === null) throw new RangeError(`"${decimal}" is not a decimal with at most 8 places`)
  return BigInt(match[1] ?? '0') * UNITS_PER_ONE + BigInt((match[2] ?? '').padEnd(WIRE_DECIMALS, '0'))
}

/** Formats 1e-8 units with 8 decimals. */
export function fromUnits(units: bigint): string {
  return `${units / UNITS_PER_ONE}.${String(units % UNITS_PER_ONE).padStart(WIRE_DECIMALS, '0')}`
}

/** Price times quantity with 8 decimals, rounded down, as in the exchange's `quoteQty`. */
export function multiply(price: string, quantity: string): string {
  return fromUnits((toUnits(price) * toUnits(quantity)) / UNITS_PER_ONE)
}
