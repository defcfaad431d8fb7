import { type IdRange, normalise, subtract } from '../../foundation/market/id-ranges.ts'

/** The missing ids of a sequence, as ascending ranges. */
export class Holes {
  #ranges: IdRange[]
  /** The last id of the sequence at the previous {@link forgetOld}, and at the one before. */
  #before = -1
  #longBefore = -1

  constructor(ranges: readonly IdRange[]) {
    this.#ranges = [...ranges]
  }

  get ranges(): readonly IdRange[] {
    return this.#ranges
  }

  /** Adds ids above all others. */
  append(range: IdRange): void {
    this.#ranges.push(range)
  }

  /** Adds ids below all others, unless the range is empty. */
  prepend(range: IdRange): void {
    if (range.from <= range.to) this.#ranges.unshift(range)
  }

  add(ranges: readonly IdRange[]): void {
    this.#ranges = normalise([...this.#ranges, ...ranges])
  }

  /** Removes those from before the last call but one. @param last id of the sequence now */
  forgetOld(last: number): void {
    this.fill({ from: 0, to: this.#longBefore })
    this.#longBefore = this.#before
    this.#before = last
  }

  /** Removes an id and all above it. */
  endBefore(id: number): void {
    this.#ranges = subtract(this.#ranges, [{ from: id, to: Number.MAX_SAFE_INTEGER }])
  }

  /** Removes ids. @returns how many of them were missing */
  fill({ from, to }: IdRange): number {
    let filled = 0
    for (let i = this.#firstAfter(to) - 1; i >= 0; i--) {
      const hole = this.#ranges[i]
      if (hole === undefined || hole.to < from) break
      const rest: IdRange[] = []
      if (hole.from < from) rest.push({ from: hole.from, to: from - 1 })
      if (hole.to > to) rest.push({ from: to + 1, to: hole.to })
      filled += Math.min(hole.to, to) - Math.max(hole.from, from) + 1
      this.#ranges.splice(i, 1, ...rest)
    }
    return filled
  }

  /** Returns the missing ids of a range. */
  within({ from, to }: IdRange): IdRange[] {
    const inside: IdRange[] = []
    for (let i = this.#firstAfter(to) - 1; i >= 0; i--) {
      const hole = this.#ranges[i]
      if (hole === undefined || hole.to < from) break
      inside.unshift({ from: Math.max(hole.from, from), to: Math.min(hole.to, to) })
    }
    return inside
  }

  /** Returns the index of the first hole that begins after an id. */
  #firstAfter(id: number): number {
    let low = 0
    for (let high = this.#ranges.length; low < high; ) {
      const middle = (low + high) >> 1
      if ((this.#ranges[middle]?.from ?? 0) > id) high = middle
      else low = middle + 1
    }
    return low
  }
}
