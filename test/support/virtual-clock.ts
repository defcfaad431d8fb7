import type { Clock } from '../../src/timing/clock.ts'

/** A clock that stands still until it is moved; what is scheduled runs in the order of its times. */
export class VirtualClock implements Clock {
  #nowMs = 0
  #due: Array<{ readonly atMs: number; readonly order: number; readonly run: () => void }> = []
  #order = 0
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
    const entry = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, run }
    this.#due.push(entry)
    return () => {
      this.#due = this.#due.filter((one) => one !== entry)
    }
  }

  /** Moves on, running what is due and letting promises settle after each. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms
    await settle()
    for (;;) {
      const next = this.#due
        .filter(({ atMs }) => atMs <= untilMs)
        .sort((left, right) => left.atMs - right.atMs || left.order - right.order)[0]
      if (next === undefined) break
      this.#due = this.#due.filter((one) => one !== next)
      this.#nowMs = next.atMs
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
