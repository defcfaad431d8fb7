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
 * The machine's clocks. The system's has whole milliseconds, so microseconds are interpolated from
 * the monotonic clock and re-anchored when the two differ by more than a millisecond (an NTP step).
 */
export function systemClock(monotonicMs = () => performance.now(), systemMs = () => Date.now()): Clock {
  let anchorWallMs = systemMs()
  let anchorMonotonicMs = monotonicMs()
  const interpolated = (nowMs: number) => anchorWallMs + (nowMs - anchorMonotonicMs)
  const hasStepped = (nowMs: number, wallMs: number) =>
    interpolated(nowMs) < wallMs - RESYNC_MS || interpolated(nowMs) > wallMs + 1 + RESYNC_MS
  return {
    monotonicMs,
    wallMicros() {
      let nowMs = monotonicMs()
      if (hasStepped(nowMs, systemMs())) {
        // A pause between the two readings looks like a step too, so both are read once more.
        nowMs = monotonicMs()
        const wallMs = systemMs()
        if (hasStepped(nowMs, wallMs)) {
          anchorWallMs = wallMs
          anchorMonotonicMs = nowMs
        }
      }
      return Math.floor(interpolated(nowMs) * 1000)
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
