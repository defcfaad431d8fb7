import type { StreamRates } from './stream-rates.ts'

/** Others on the connection have delivered within this time: so it is the stream, and not the market, that is still. */
const FLOWING_MS = 5000

/**
 * How long a subscription that was renewed may take to show, before the connection is replaced: so many shares of the
 * stream's patience, and no less than the shortest time. Doubles with every connection that did not help either.
 */
const RENEWED_SHARE = 1 / 6
const RENEWED_MS = 30_000
const HOPELESS_MAX_MS = 3_600_000

/** A connection on which nothing at all comes but pings is replaced after so long; if that does not help, ever more seldom. */
const STILL_MS = 60_000
const STILL_MAX_MS = 3_600_000

export interface StallRemedies {
  /** Unsubscribes and subscribes anew. */
  resubscribe(streams: readonly string[]): void
  /** Replaces the connection, on which these streams are quiet. */
  reconnect(reason: string, streams: readonly string[]): void
}

interface Treatment {
  readonly atMs: number
  /** Until the next. */
  readonly waitMs: number
}

/**
 * Watches the streams of one connection for single ones that go quiet while others flow, and acts: renews the
 * subscription first, and the connection when that did not help. Specification: W1 to W5.
 */
export class StallDetector {
  readonly #rates: StreamRates
  readonly #remedies: StallRemedies
  /** Streams that were acted upon and have not come back. */
  readonly #treated = new Map<string, Treatment>()
  #stillLimitMs = STILL_MS
  #stillTreatedAtMs = Number.NEGATIVE_INFINITY

  constructor(rates: StreamRates, remedies: StallRemedies) {
    this.#rates = rates
    this.#remedies = remedies
  }

  /**
   * To be called every few seconds while the connection is open, its streams are subscribed, and it is not paused.
   *
   * @param streams of the connection
   * @param sinceMs when its streams were subscribed: what it has not delivered since then is not older
   */
  check(streams: readonly string[], nowMs: number, connection: number, sinceMs: number): void {
    const rates = this.#rates
    const isQuiet = (stream: string) =>
      nowMs - Math.max(sinceMs, rates.lastSeenOnMs(stream, connection)) > rates.patienceMs(stream)
    for (const [stream, { atMs }] of this.#treated) {
      if (rates.lastSeenOnMs(stream, connection) > atMs) this.#treated.delete(stream)
    }
    const heardMs = Math.max(...streams.map((stream) => rates.lastSeenOnMs(stream, connection)))
    if (nowMs - heardMs >= FLOWING_MS) {
      this.#whileStill(streams, nowMs, Math.max(sinceMs, heardMs))
      return
    }
    this.#stillLimitMs = STILL_MS
    const quiet = streams.filter(isQuiet)
    const hopeless = quiet.find((stream) => {
      const treated = this.#treated.get(stream)
      return treated !== undefined && nowMs - treated.atMs > treated.waitMs
    })
    if (hopeless !== undefined) {
      this.#replace(hopeless, quiet, nowMs)
      return
    }
    const fresh = quiet.filter((stream) => !this.#treated.has(stream))
    if (fresh.length === 0) return
    for (const stream of fresh) {
      const waitMs = Math.max(RENEWED_MS, rates.patienceMs(stream) * RENEWED_SHARE)
      this.#treated.set(stream, { atMs: nowMs, waitMs })
    }
    this.#remedies.resubscribe(fresh)
  }

  /** Those that are quiet together are given the same time, so that many do not take turns in replacing it. */
  #replace(hopeless: string, quiet: readonly string[], nowMs: number): void {
    const waits = quiet.map((stream) => this.#treated.get(stream)?.waitMs ?? RENEWED_MS)
    const waitMs = Math.min(HOPELESS_MAX_MS, 2 * Math.max(...waits))
    for (const stream of quiet) this.#treated.set(stream, { atMs: nowMs, waitMs })
    this.#remedies.reconnect(`${hopeless} has gone quiet while others flow`, quiet)
  }

  /** Either the market stands still, or the exchange has forgotten this connection and only pings it. */
  #whileStill(streams: readonly string[], nowMs: number, sinceMs: number): void {
    const waitedMs = nowMs - Math.max(sinceMs, this.#stillTreatedAtMs)
    const patienceMs = this.#rates.connectionPatienceMs(streams)
    if (waitedMs < Math.max(patienceMs, this.#stillLimitMs)) return
    this.#stillLimitMs = Math.min(STILL_MAX_MS, this.#stillLimitMs * 2)
    this.#stillTreatedAtMs = nowMs
    const seconds = Math.round((nowMs - sinceMs) / 1000)
    this.#remedies.reconnect(`no stream has delivered anything for ${seconds} s`, streams)
  }
}
