/** Ids from `from` to `to`, both inclusive. */
export interface IdRange {
  readonly from: number
  readonly to: number
}

/** Returns the ranges sorted and merged. */
export function normalise(ranges: readonly IdRange[]): IdRange[] {
  const sorted = ranges.filter(({ from, to }) => from <= to).sort((left, right) => left.from - right.from)
  const joined: Array<{ from: number; to: number }> = []
  for (const { from, to } of sorted) {
    const last = joined.at(-1)
    if (last !== undefined && from <= last.to + 1) last.to = Math.max(last.to, to)
    else joined.push({ from, to })
  }
  return joined
}

/** Returns the ids of `ranges` that are in none of `others`. */
export function subtract(ranges: readonly IdRange[], others: readonly IdRange[]): IdRange[] {
  const without = normalise(others)
  return normalise(ranges).flatMap((range) => {
    const left: IdRange[] = []
    let { from } = range
    for (const other of without) {
      if (other.to < from) continue
      if (other.from > range.to) break
      if (other.from > from) left.push({ from, to: other.from - 1 })
      from = Math.max(from, other.to + 1)
    }
    if (from <= range.to) left.push({ from, to: range.to })
    return left
  })
}

/** Counts the ids of the ranges, which must not overlap. */
export function countIds(ranges: readonly IdRange[]): number {
  return ranges.reduce((sum, { from, to }) => sum + to - from + 1, 0)
}
