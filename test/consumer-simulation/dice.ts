/** The source of all randomness, in the order of the seed. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 0
  }

  /** In [0, 1). */
  readonly random = (): number => {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }

  chance(share: number): boolean {
    return this.random() < share
  }

  /** Including fractions. */
  between(low: number, high: number): number {
    return low + this.random() * (high - low)
  }

  /** In [0, below). */
  integer(below: number): number {
    return Math.floor(this.random() * below)
  }

  pick<Item>(items: readonly Item[]): Item | undefined {
    return items[this.integer(items.length)]
  }

  /** Time to the next of random events with this mean interval. */
  interval(meanMs: number): number {
    return -Math.log(1 - this.random()) * meanMs
  }
}
