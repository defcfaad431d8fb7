import type { StreamRates } from './stream-rates.ts'

/** If others delivered within this time, the stream has stalled and not the market. */
const FLOWING_MS = 5000

/**
 * How long a renewed subscription may take before the connection is replaced: this share of the
 * stream's patience, at least the minimum. Doubles with each replacement that did not help.
 */
const RENEWED_SHARE = 1 / 6
const RENEWED_MS = 30_000
const HOPELESS_MAX_MS = 3_600_000

/** A connection that only pings is replaced after this time, which doubles up to the maximum. */
const STILL_MS = 60_000
const STILL_MAX_MS = 3_600_000

export interface StallRemedy {
  readonly streams: readonly string[]
  /** Why their connection must be replaced; null if only their subscription is renewed. */
  readonly reason: string | null
}

interface Treatment {
  readonly atMs: number
  readonly waitMs: number
}

/** Renews streams that are quiet alone, then replaces the connection. Specification: W1 to W5. */
export class StallDetector {
  readonly #rates: StreamRates
  /** Streams under treatment that have not delivered again. */
  readonly #treated = new Map<string, Treatment>()
  #stillLimitMs = STILL_MS
  #stillTreatedAtMs = Number.NEGATIVE_INFINITY

  constructor(rates: StreamRates) {
    this.#rates = rates
  }

  /**
   * Looks for quiet streams. Call it every few seconds while the connection is open, subscribed and
   * read.
   * @param sinceMs when its streams were subscribed; silence is counted from then
   */
  check(streams: readonly string[], nowMs: number, connection: number, sinceMs: number): StallRemedy | null {
    const rates = this.#rates
    const isQuiet = (stream: string) =>
      nowMs - Math.max(sinceMs, rates.lastSeenOnMs(stream, connection)) > rates.patienceMs(stream)
    for (const [stream, { atMs }] of this.#treated) {
      if (rates.lastSeenOnMs(stream, connection) > atMs) this.#treated.delete(stream)
    }
    const heardMs = Math.max(...streams.map((stream) => rates.lastSeenOnMs(stream, connection)))
    if (nowMs - heardMs >= FLOWING_MS) return this.#whileStill(streams, nowMs, Math.max(sinceMs, heardMs))
    this.#stillLimitMs = STILL_MS
    const quiet = streams.filter(isQuiet)
    const hopeless = quiet.find((stream) => {
      const treated = this.#treated.get(stream)
      return treated !== undefined && nowMs - treated.atMs > treated.waitMs
    })
    if (hopeless !== undefined) return this.#replace(hopeless, quiet, nowMs)
    const fresh = quiet.filter((stream) => !this.#treated.has(stream))
    if (fresh.length === 0) return null
    for (const stream of fresh) {
      const waitMs = Math.max(RENEWED_MS, rates.patienceMs(stream) * RENEWED_SHARE)
      this.#treated.set(stream, { atMs: nowMs, waitMs })
    }
    return { streams: fresh, reason: null }
  }

  /** Streams that are quiet together wait together: they must not replace it in turn. */
  #replace(hopeless: string, quiet: readonly string[], nowMs: number): StallRemedy {
    const waits = quiet.map((stream) => this.#treated.get(stream)?.waitMs ?? RENEWED_MS)
    const waitMs = Math.min(HOPELESS_MAX_MS, 2 * Math.max(...waits))
    for (const stream of quiet) this.#treated.set(stream, { atMs: nowMs, waitMs })
    return { streams: quiet, reason: `${hopeless} went quiet while others delivered` }
  }

  /** Without any data the market stands still, or a forgotten connection is only pinged. */
  #whileStill(streams: readonly string[], nowMs: number, sinceMs: number): StallRemedy | null {
    const waitedMs = nowMs - Math.max(sinceMs, this.#stillTreatedAtMs)
    const patienceMs = this.#rates.connectionPatienceMs(streams)
    if (waitedMs < Math.max(patienceMs, this.#stillLimitMs)) return null
    this.#stillLimitMs = Math.min(STILL_MAX_MS, this.#stillLimitMs * 2)
    this.#stillTreatedAtMs = nowMs
    const seconds = Math.round((nowMs - sinceMs) / 1000)
    return { streams, reason: `no stream delivered anything for ${seconds} s` }
  }
}
