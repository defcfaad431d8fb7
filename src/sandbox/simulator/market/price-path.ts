import { hash32 } from './random.ts'

/** Amplitude of the price over different numbers of blocks: calm hours within drifting days. */
const SWINGS: ReadonlyArray<readonly [blocks: number, amplitude: number]> = [
  [1, 0.0006],
  [7, 0.0018],
  [45, 0.005],
  [360, 0.014],
  [4_320, 0.05],
]

/**
 * The price at the start of a block relative to the symbol's long-run price, within ±8 %. Value
 * noise over several periods: it depends on no earlier block, and is continuous across their
 * borders.
 */
export function relativePriceAt(seed: number, symbol: string, block: number): number {
  let exponent = 0
  for (const [period, amplitude] of SWINGS) {
    const index = Math.floor(block / period)
    const within = block / period - index
    const smooth = within * within * (3 - 2 * within)
    const from = latticeValue(seed, symbol, period, index)
    const to = latticeValue(seed, symbol, period, index + 1)
    exponent += amplitude * (from + (to - from) * smooth)
  }
  return Math.exp(exponent)
}

/** Uniform in [-1, 1). */
function latticeValue(seed: number, symbol: string, period: number, index: number): number {
  return hash32('price', seed, symbol, period, index) / 0x8000_0000 - 1
}
