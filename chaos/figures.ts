/** Statistics of some measurements; all 0 if there are none. */
export interface Figures {
  readonly n: number
  readonly median: number
  readonly p90: number
  readonly max: number
}

export function figuresOf(values: readonly number[]): Figures {
  const sorted = [...values].sort((a, b) => a - b)
  /** The smallest value that is not exceeded by this share of the values. */
  const at = (share: number) => Math.round(sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0)
  return { n: sorted.length, median: at(0.5), p90: at(0.9), max: at(1) }
}
