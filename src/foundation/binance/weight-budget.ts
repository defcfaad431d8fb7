const MINUTE_MS = 60_000

/** Weight that an IP may use per minute, and the reserve at which we stop. */
const IP_WEIGHT = 6000
const IP_WEIGHT_KEPT_FREE = 600

/** The REST weight of this process per minute; none while the IP must wait or is near its limit. */
export class WeightBudget {
  readonly #perMinute: number
  readonly #spent: Array<{ readonly atMs: number; readonly weight: number }> = []
  /** The sum of `#spent`. */
  #used = 0
  #notBeforeMs = 0
  #ip: { readonly weight: number; readonly atMs: number } | null = null
  /** Used since the start. */
  spent = 0

  constructor(perMinute: number) {
    this.#perMinute = perMinute
  }

  /** Spends `weight` and returns 0, or returns how many milliseconds to wait before trying again. */
  take(weight: number, nowMs: number): number {
    // Rounded to 0, the wait would count as permission, or never end.
    if (nowMs < this.#notBeforeMs) return Math.max(1, this.#notBeforeMs - nowMs)
    for (let oldest = this.#spent[0]; oldest !== undefined && nowMs - oldest.atMs >= MINUTE_MS; ) {
      this.#used -= oldest.weight
      this.#spent.shift()
      oldest = this.#spent[0]
    }
    const [oldest] = this.#spent
    if (oldest !== undefined && this.#used + weight > this.#perMinute)
      return Math.max(1, oldest.atMs + MINUTE_MS - nowMs)
    this.#spent.push({ atMs: nowMs, weight })
    this.#used += weight
    this.spent += weight
    return 0
  }

  /** Notes the weight that the whole IP has used this minute, as the exchange reports it. */
  used(ipWeight: number, nowMs: number): void {
    this.#ip = { weight: ipWeight, atMs: nowMs }
    if (ipWeight > IP_WEIGHT - IP_WEIGHT_KEPT_FREE) this.wait(MINUTE_MS, nowMs)
  }

  get perMinute(): number {
    return this.#perMinute
  }

  /** Returns the last report of the IP's weight; null if it is over a minute old. */
  ipWeight(nowMs: number): number | null {
    return this.#ip === null || nowMs - this.#ip.atMs > MINUTE_MS ? null : this.#ip.weight
  }

  /** Returns the remaining wait, because the exchange refuses requests or its limit is near. */
  waitLeftMs(nowMs: number): number {
    return Math.max(0, this.#notBeforeMs - nowMs)
  }

  /** Forbids requests for this time. */
  wait(waitMs: number, nowMs: number): void {
    this.#notBeforeMs = Math.max(this.#notBeforeMs, nowMs + waitMs)
  }
}
