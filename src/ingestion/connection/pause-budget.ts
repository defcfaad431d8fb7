/**
 * How far reading lags behind, as far as it can be known: what a paused socket is sent waits in kernel buffers, and is
 * read, and stamped, later. Grows while paused and decays as fast while reading, so that many short pauses count like one
 * long one. Times are milliseconds of the monotonic clock.
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

  /** Reading stops or goes on. */
  set(paused: boolean, nowMs: number): void {
    this.#debtMs = this.ms(nowMs)
    this.#atMs = nowMs
    this.#paused = paused
  }

  ms(nowMs: number): number {
    const elapsedMs = nowMs - this.#atMs
    return this.#paused ? this.#debtMs + elapsedMs : Math.max(0, this.#debtMs - elapsedMs)
  }
}
