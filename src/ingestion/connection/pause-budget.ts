/** Frames that wait in kernel buffers longer than this would be stamped too late. */
const LIMIT_MS = 5000

/**
 * Estimates how late frames are read: those of a paused socket wait in kernel buffers. The debt
 * grows while paused and shrinks as fast while reading, so many short pauses add up to a long one.
 */
export class PauseBudget {
  #debtMs = 0
  #atMs: number
  #paused = false

  constructor(nowMs: number) {
    this.#atMs = nowMs
  }

  get isPaused(): boolean {
    return this.#paused
  }

  /** Notes that reading pauses or resumes. */
  set(paused: boolean, nowMs: number): void {
    this.#debtMs = this.#ms(nowMs)
    this.#atMs = nowMs
    this.#paused = paused
  }

  /** Whether unread frames may be too old to be stamped. */
  isSpent(nowMs: number): boolean {
    return this.#ms(nowMs) > LIMIT_MS
  }

  #ms(nowMs: number): number {
    const elapsedMs = nowMs - this.#atMs
    return this.#paused ? this.#debtMs + elapsedMs : Math.max(0, this.#debtMs - elapsedMs)
  }
}
