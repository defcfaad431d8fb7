const MINUTE_MS = 60_000

/**
 * Counts events of the last minute, assuming an even rate within each counted minute. Times are of
 * the monotonic clock.
 */
export class MinuteCount {
  #sinceMs = Number.NEGATIVE_INFINITY
  #current = 0
  #previous = 0

  add(nowMs: number): void {
    if (nowMs - this.#sinceMs >= MINUTE_MS) this.#turn(nowMs)
    this.#current++
  }

  at(nowMs: number): number {
    if (nowMs - this.#sinceMs >= MINUTE_MS) this.#turn(nowMs)
    return this.#current + this.#previous * (1 - (nowMs - this.#sinceMs) / MINUTE_MS)
  }

  #turn(nowMs: number): void {
    const isNext = nowMs - this.#sinceMs < 2 * MINUTE_MS
    this.#previous = isNext ? this.#current : 0
    this.#current = 0
    this.#sinceMs = isNext ? this.#sinceMs + MINUTE_MS : nowMs
  }
}
