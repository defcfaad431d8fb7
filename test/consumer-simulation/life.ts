import type { Clock } from '../../src/foundation/runtime/clock.ts'

/** The clock of one process: after its death none of its timers run. */
export class Life implements Clock {
  readonly #clock: Clock
  isAlive = true

  constructor(clock: Clock) {
    this.#clock = clock
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs()
  }

  wallMicros(): number {
    return this.#clock.wallMicros()
  }

  schedule(delayMs: number, run: () => void): () => void {
    return this.#clock.schedule(delayMs, () => {
      if (this.isAlive) run()
    })
  }

  /** Resolves after a while, but never after the process's death. */
  wait(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.schedule(delayMs, resolve)
    })
  }
}
