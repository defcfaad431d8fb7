/** Hashes to 32 bits (FNV-1a over the characters, with the finalizer of murmur3). Order matters. */
export function hash32(...parts: ReadonlyArray<string | number>): number {
  let hash = 0x811c9dc5
  for (const part of parts) {
    const text = String(part)
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
    hash = Math.imul(hash ^ 0x1f, 0x01000193)
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

/** Uniform numbers in [0, 1), determined by a seed. Not for secrets. */
type Generator = (seed: number) => () => number

/** The generator of the served market and its faults. */
export const sfc32: Generator = (seed) => {
  let a = seed | 0
  let b = Math.imul(seed, 0x9e3779b1)
  let c = ~seed
  let counter = 1
  const next = () => {
    const sum = (a + b + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (((c << 21) | (c >>> 11)) + sum) | 0
    return (sum >>> 0) / 0x1_0000_0000
  }
  for (let i = 0; i < 12; i++) next()
  return next
}

/** The generator of the deterministic simulations: their fixed seeds depend on it. */
export const mulberry32: Generator = (seed) => {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

/** Draws from one seed: the same seed always gives the same draws. */
export class Random {
  readonly next: () => number
  readonly #generator: Generator

  constructor(seed: number, generator: Generator = sfc32) {
    this.#generator = generator
    this.next = generator(seed)
  }

  between(low: number, high: number): number {
    return low + this.next() * (high - low)
  }

  /** A whole number from `low` to `high`, both included. */
  whole(low: number, high: number): number {
    return Math.floor(this.between(low, high + 1))
  }

  chance(share: number): boolean {
    return this.next() < share
  }

  pick<Value>(values: readonly Value[]): Value {
    const value = this.pickIfAny(values)
    if (value === undefined) throw new Error('Nothing to pick from')
    return value
  }

  pickIfAny<Value>(values: readonly Value[]): Value | undefined {
    return values[Math.floor(this.next() * values.length)]
  }

  /** A waiting time: exponentially distributed, like the times between independent events. */
  interval(mean = 1): number {
    return -Math.log(1 - this.next()) * mean
  }

  /** Approximately normal, mean 0 and variance 1, within ±3. */
  bell(): number {
    return (this.next() + this.next() + this.next() - 1.5) * 2
  }

  /** At least 1, and sometimes very large: the smaller `alpha`, the heavier the tail. */
  pareto(alpha: number): number {
    return (1 - this.next()) ** (-1 / alpha)
  }

  /** A separate generator, so that the draws of one part do not change those of another. */
  fork(): Random {
    return new Random(Math.floor(this.next() * 2 ** 31), this.#generator)
  }
}
