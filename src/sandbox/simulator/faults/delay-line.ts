import type { Clock } from '../../../foundation/runtime/clock.ts'

/** Delays the actions of one connection without changing their order. */
export class DelayLine {
  readonly #clock: Clock
  readonly #queue: Array<{ readonly dueMs: number; readonly run: () => void }> = []
  #cancelTimer: (() => void) | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get isEmpty(): boolean {
    return this.#queue.length === 0
  }

  /** Runs the action at once when there is neither a delay nor an earlier action. */
  enter(delayMs: number, run: () => void): void {
    if (delayMs === 0 && this.isEmpty) {
      run()
      return
    }
    this.#queue.push({
      dueMs: Math.max(this.#clock.monotonicMs() + delayMs, this.#queue.at(-1)?.dueMs ?? 0),
      run,
    })
    this.#schedule()
  }

  clear(): void {
    this.#queue.length = 0
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
  }

  #schedule(): void {
    const first = this.#queue[0]
    if (first === undefined || this.#cancelTimer !== undefined) return
    const waitMs = Math.max(0, Math.ceil(first.dueMs - this.#clock.monotonicMs()))
    this.#cancelTimer = this.#clock.schedule(waitMs, () => {
      this.#cancelTimer = undefined
      this.#release()
    })
  }

  #release(): void {
    const nowMs = this.#clock.monotonicMs()
    const waiting = this.#queue.findIndex(({ dueMs }) => dueMs > nowMs)
    for (const { run } of this.#queue.splice(0, waiting === -1 ? this.#queue.length : waiting)) run()
    this.#schedule()
  }
}
