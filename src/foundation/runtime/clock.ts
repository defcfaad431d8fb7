/**
 * A source of time that tests and simulations can replace.
 *
 * Durations (flush, linger, age, backoff) use `monotonicMs` only. `wallMicros` is for stamps that
 * people and tables read, and may step when the machine's clock is corrected.
 */
export interface Clock {
  /** Milliseconds of a clock that never steps, from an arbitrary origin; fractions allowed. */
  monotonicMs(): number
  /** Integer microseconds since the Unix epoch, UTC. */
  wallMicros(): number
  /** Calls `run` once after `delayMs`; the returned function cancels it. */
  schedule(delayMs: number, run: () => void): () => void
}

/** Whole milliseconds since the Unix epoch. */
export function wallMs(clock: Pick<Clock, 'wallMicros'>): number {
  return Math.floor(clock.wallMicros() / 1000)
}

/** Maximum drift of the interpolated wall clock from the system's. */
const RESYNC_MS = 1

/**
 * The machine's clocks. `Date.now()` has whole milliseconds, so microseconds are interpolated from
 * the monotonic clock and re-anchored when the two differ by more than a millisecond (an NTP step).
 */
export function systemClock(): Clock {
  let anchorWallMs = Date.now()
  let anchorMonotonicMs = performance.now()
  return {
    monotonicMs: () => performance.now(),
    wallMicros() {
      const monotonicMs = performance.now()
      const systemMs = Date.now()
      let wallMs = anchorWallMs + (monotonicMs - anchorMonotonicMs)
      if (wallMs < systemMs - RESYNC_MS || wallMs > systemMs + 1 + RESYNC_MS) {
        anchorWallMs = systemMs
        anchorMonotonicMs = monotonicMs
        wallMs = systemMs
      }
      return Math.floor(wallMs * 1000)
    },
    schedule(delayMs, run) {
      const timer = setTimeout(run, delayMs)
      return () => clearTimeout(timer)
    },
  }
}

/** Wakes one waiting loop: a `ring` before `wait` is not lost, and several count as one. */
export class Wake {
  readonly #clock: Pick<Clock, 'schedule'>
  #rung = false
  #waiter: (() => void) | null = null

  constructor(clock: Pick<Clock, 'schedule'> = systemClock()) {
    this.#clock = clock
  }

  ring(): void {
    const waiter = this.#waiter
    this.#waiter = null
    if (waiter === null) this.#rung = true
    else waiter()
  }

  /** Resolves at the next ring, or after `timeoutMs` if that comes first. */
  wait(timeoutMs?: number): Promise<void> {
    if (this.#rung) {
      this.#rung = false
      return Promise.resolve()
    }
    return new Promise((resolve) => {
      const cancel = timeoutMs === undefined ? null : this.#clock.schedule(timeoutMs, () => this.ring())
      this.#waiter = () => {
        cancel?.()
        resolve()
      }
    })
  }
}
