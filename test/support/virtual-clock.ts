import type { Clock } from '../../src/timing/clock.ts'

/** A clock that stands still until it is moved; what is scheduled runs in the order of its times. */
export class VirtualClock implements Clock {
  #nowMs = 0
  /** Rising by time; equal times in the order in which they were scheduled. */
  readonly #due: Array<{ readonly atMs: number; run: (() => void) | null }> = []
  readonly #epochMs: number

  constructor(epochMs = Date.UTC(2026, 0, 1)) {
    this.#epochMs = epochMs
  }

  monotonicMs(): number {
    return this.#nowMs
  }

  wallMicros(): number {
    return Math.floor((this.#epochMs + this.#nowMs) * 1000)
  }

  schedule(delayMs: number, run: () => void): () => void {
    const entry: { readonly atMs: number; run: (() => void) | null } = {
      atMs: this.#nowMs + Math.max(0, delayMs),
      run,
    }
    let low = 0
    for (let high = this.#due.length; low < high; ) {
      const middle = (low + high) >> 1
      if ((this.#due[middle]?.atMs ?? 0) <= entry.atMs) low = middle + 1
      else high = middle
    }
    this.#due.splice(low, 0, entry)
    return () => {
      entry.run = null
    }
  }

  /** Moves on, running what is due and letting promises settle after each. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms
    await settle()
    for (let [next] = this.#due; next !== undefined && next.atMs <= untilMs; [next] = this.#due) {
      this.#due.shift()
      this.#nowMs = next.atMs
      if (next.run === null) continue
      next.run()
      await settle()
    }
    this.#nowMs = untilMs
  }
}

/** Lets every promise that can settle do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
