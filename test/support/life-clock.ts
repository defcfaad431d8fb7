import type { Clock } from '../../src/foundation/runtime/clock.ts'

/** Smaller differences are rounding errors of virtual time. */
export const ROUNDING_MS = 0.001

/**
 * The clocks of one process. After its death none of its timers run. While it is stopped (SIGSTOP),
 * due timers wait until it continues. While the machine is suspended, monotonic time stands still
 * too.
 */
export class LifeClock implements Clock {
  readonly #clock: Clock
  readonly #wall: Pick<Clock, 'wallMicros'>
  readonly #bornMs: number
  isAlive = true
  #stoppedUntilMs = 0
  /** Total time of past suspends. */
  #suspendedMs = 0
  #suspended: { readonly sinceMs: number; readonly untilMs: number } | null = null

  /** @param wall the machine's wall clock, which may be wrong; default: the true time */
  constructor(clock: Clock, wall: Pick<Clock, 'wallMicros'> = clock) {
    this.#clock = clock
    this.#wall = wall
    this.#bornMs = clock.monotonicMs()
  }

  get ageMs(): number {
    return this.#clock.monotonicMs() - this.#bornMs
  }

  monotonicMs(): number {
    const nowMs = this.#clock.monotonicMs()
    const { sinceMs, untilMs } = this.#suspended ?? { sinceMs: nowMs, untilMs: nowMs }
    return nowMs - this.#suspendedMs - (Math.min(nowMs, untilMs) - sinceMs)
  }

  wallMicros(): number {
    return this.#wall.wallMicros()
  }

  schedule(delayMs: number, run: () => void): () => void {
    const dueAtMs = this.monotonicMs() + Math.max(0, delayMs)
    let cancel = this.#clock.schedule(delayMs, () => fire())
    const fire = () => {
      if (!this.isAlive) return
      const leftMs = Math.max(this.stoppedForMs, dueAtMs - this.monotonicMs())
      if (leftMs > ROUNDING_MS) cancel = this.#clock.schedule(leftMs, fire)
      else run()
    }
    return () => cancel()
  }

  /** Resolves after a while, but never after the process's death. */
  wait(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.schedule(delayMs, resolve)
    })
  }

  /** Remaining time of the stop; 0 while it runs. */
  get stoppedForMs(): number {
    return Math.max(0, this.#stoppedUntilMs - this.#clock.monotonicMs())
  }

  /** Time since it was last stopped; negative while it is. */
  get runningForMs(): number {
    return this.#clock.monotonicMs() - Math.max(this.#bornMs, this.#stoppedUntilMs)
  }

  /** Remaining time of the undetected suspend; 0 without one. */
  get asleepForMs(): number {
    return this.#stoppedUntilMs > (this.#suspended?.sinceMs ?? Number.POSITIVE_INFINITY)
      ? this.stoppedForMs
      : 0
  }

  stopFor(ms: number): void {
    this.#stoppedUntilMs = Math.max(this.#stoppedUntilMs, this.#clock.monotonicMs() + ms)
  }

  suspendFor(ms: number): void {
    const nowMs = this.#clock.monotonicMs()
    if (this.stoppedForMs > 0) return
    if (this.#suspended !== null) this.#suspendedMs += this.#suspended.untilMs - this.#suspended.sinceMs
    this.#suspended = { sinceMs: nowMs, untilMs: nowMs + ms }
    this.stopFor(ms)
  }

  die(): void {
    this.isAlive = false
  }
}
