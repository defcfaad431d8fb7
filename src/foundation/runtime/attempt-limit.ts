import { sleep } from './backoff.ts'
import type { Clock } from './clock.ts'

/**
 * A sliding-window limit on attempts, for exchanges that count connections per IP.
 *
 * Binance allows 300 connection attempts in 5 minutes per IP; Tapeline stays at half of that.
 */
export class AttemptLimit {
  readonly #limit: number
  readonly #windowMs: number
  readonly #attempts: number[] = []

  constructor(limit: number, windowMs: number) {
    this.#limit = limit
    this.#windowMs = windowMs
  }

  /**
   * Records an attempt at `nowMs` if one is allowed; otherwise returns the milliseconds until the
   * next.
   */
  take(nowMs: number): { allowed: true } | { allowed: false; waitMs: number } {
    while (this.#attempts.length > 0 && nowMs - (this.#attempts[0] ?? 0) >= this.#windowMs)
      this.#attempts.shift()
    const oldest = this.#attempts[0]
    if (this.#attempts.length >= this.#limit && oldest !== undefined) {
      return { allowed: false, waitMs: oldest + this.#windowMs - nowMs }
    }
    this.#attempts.push(nowMs)
    return { allowed: true }
  }

  /** Waits until an attempt is allowed, and records it. */
  async wait(clock: Clock, signal: AbortSignal): Promise<void> {
    for (let taken = this.take(clock.monotonicMs()); !taken.allowed; taken = this.take(clock.monotonicMs())) {
      await sleep(taken.waitMs, signal, clock)
    }
  }
}
