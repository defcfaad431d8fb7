/**
 * Hashes any number of strings and integers to 32 bits (FNV-1a over the characters, with the
 * finalizer of murmur3). Equal parts give equal hashes on every machine; order matters.
 */
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

/** A seeded generator (sfc32): the same seed always gives the same numbers. Not for secrets. */
export class Random {
  #a: number
  #b: number
  #c: number
  #counter = 1

  constructor(seed: number) {
    this.#a = seed | 0
    this.#b = Math.imul(seed, 0x9e3779b1)
    this.#c = ~seed
    for (let i = 0; i < 12; i++) this.next()
  }

  /** Uniform in [0, 1). */
  next(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0
    return (sum >>> 0) / 0x1_0000_0000
  }

  /** A waiting time with mean 1. */
  exponential(): number {
    return -Math.log(1 - this.next())
  }

  /** Approximately normal, mean 0 and variance 1, within ±3. */
  bell(): number {
    return (this.next() + this.next() + this.next() - 1.5) * 2
  }

  /** At least 1, and sometimes very large: the smaller `alpha`, the heavier the tail. */
  pareto(alpha: number): number {
    return (1 - this.next()) ** (-1 / alpha)
  }
}
