const MINUTE_MS = 60_000

/** What an IP may use in a minute, and how near to it the whole IP may be before we hold back. */
const IP_WEIGHT = 6000
const IP_WEIGHT_KEPT_FREE = 600

/**
 * The REST weight this process may spend: so much a minute of its own, and nothing while the whole IP, which others
 * share, is near its limit or the exchange has told us to wait.
 */
export class WeightBudget {
  readonly #perMinute: number
  readonly #spent: Array<{ readonly atMs: number; readonly weight: number }> = []
  /** The sum of what is in `#spent`. */
  #used = 0
  #notBeforeMs = 0
  #ip: { readonly weight: number; readonly atMs: number } | null = null
  /** Spent since the start. */
  spent = 0

  constructor(perMinute: number) {
    this.#perMinute = perMinute
  }

  /** Spends `weight` and answers 0, or answers how many milliseconds to wait before asking again. */
  take(weight: number, nowMs: number): number {
    // A wait that rounding makes 0 would count as leave to spend, or never end.
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

  /** The exchange told what the whole IP has used this minute. */
  used(ipWeight: number, nowMs: number): void {
    this.#ip = { weight: ipWeight, atMs: nowMs }
    if (ipWeight > IP_WEIGHT - IP_WEIGHT_KEPT_FREE) this.wait(MINUTE_MS, nowMs)
  }

  /** What may be spent in a minute. */
  get perMinute(): number {
    return this.#perMinute
  }

  /** What the whole IP had used of its minute when the exchange last said so; null where that is over a minute ago. */
  ipWeight(nowMs: number): number | null {
    return this.#ip === null || nowMs - this.#ip.atMs > MINUTE_MS ? null : this.#ip.weight
  }

  /** How long the exchange, or the nearness of its limit, still forbids to ask. */
  waitLeftMs(nowMs: number): number {
    return Math.max(0, this.#notBeforeMs - nowMs)
  }

  /** Nothing is asked for so long. */
  wait(waitMs: number, nowMs: number): void {
    this.#notBeforeMs = Math.max(this.#notBeforeMs, nowMs + waitMs)
  }
}
