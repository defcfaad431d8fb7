import type { Level } from './order-book.ts'

/** Returns for each level the exact sum of the quantities up to it. The best level is the first. */
export function cumulative(levels: readonly Level[]): string[] {
  const decimals = levels.reduce((most, { quantity }) => Math.max(most, fractionOf(quantity).length), 0)
  let sum = 0n
  return levels.map(({ quantity }) => {
    const fraction = fractionOf(quantity)
    const whole = fraction === '' ? quantity : quantity.slice(0, -fraction.length - 1)
    sum += BigInt(whole + fraction.padEnd(decimals, '0'))
    return textOf(sum, decimals)
  })
}

/** The digits after the point. */
function fractionOf(text: string): string {
  return text.split('.')[1] ?? ''
}

function textOf(units: bigint, decimals: number): string {
  const digits = String(units).padStart(decimals + 1, '0')
  if (decimals === 0) return digits
  const fraction = digits.slice(-decimals).replace(/0+$/, '')
  const whole = digits.slice(0, -decimals)
  return fraction === '' ? whole : `${whole}.${fraction}`
}
