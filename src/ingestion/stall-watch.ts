import type { StreamRates } from './stream-rates.ts'

/** Others on the connection have delivered within this time: so it is the stream, and not the market, that is still. */
const FLOWING_MS = 5000

/** How long a subscription that was renewed may take to show, before the connection is dropped. */
const RENEWED_MS = 30_000

/** A connection on which nothing at all comes but pings is replaced after so long; if that does not help, ever more seldom. */
const STILL_MS = 60_000
const STILL_MAX_MS = 3_600_000

export interface StallRemedies {
  /** Unsubscribes and subscribes anew. */
  resubscribe(streams: readonly string[]): void
  /** Replaces the connection, on which these streams are quiet. */
  reconnect(reason: string, streams: readonly string[]): void
}

/**
 * Watches the streams of one connection for single ones that go quiet while others flow, and acts: renews the
 * subscription first, and the connection when that did not help. Specification: W1 to W3.
 */
export class StallWatch {
  readonly #streams: readonly string[]
  readonly #rates: StreamRates
  readonly #remedies: StallRemedies
  readonly #renewedAtMs = new Map<string, number>()
  #stillLimitMs = STILL_MS

  constructor(streams: readonly string[], rates: StreamRates, remedies: StallRemedies) {
    this.#streams = streams
    this.#rates = rates
    this.#remedies = remedies
  }

  /**
   * To be called every few seconds while the connection is open and not paused.
   *
   * @param openedAtMs when the connection opened: what it has not delivered since then is not older
   */
  check(nowMs: number, connection: number, openedAtMs: number): void {
    const rates = this.#rates
    const lastSeenMs = (stream: string) => Math.max(openedAtMs, rates.lastSeenOnMs(stream, connection))
    const isQuiet = (stream: string) => nowMs - lastSeenMs(stream) > rates.patienceMs(stream)
    for (const stream of [...this.#renewedAtMs.keys()]) {
      if (!isQuiet(stream)) this.#renewedAtMs.delete(stream)
    }
    const heardMs = Math.max(...this.#streams.map((stream) => rates.lastSeenOnMs(stream, connection)))
    if (nowMs - heardMs >= FLOWING_MS) return this.#whileStill(nowMs - Math.max(openedAtMs, heardMs))
    this.#stillLimitMs = STILL_MS
    const quiet = this.#streams.filter(isQuiet)
    const hopeless = quiet.find((stream) => nowMs - (this.#renewedAtMs.get(stream) ?? nowMs) > RENEWED_MS)
    if (hopeless !== undefined) {
      // Its time starts again: a connection that brings it back clears it, one that does not is not dropped at once.
      for (const stream of quiet) this.#renewedAtMs.set(stream, nowMs)
      this.#remedies.reconnect(`${hopeless} has gone quiet while others flow`, quiet)
      return
    }
    const fresh = quiet.filter((stream) => !this.#renewedAtMs.has(stream))
    if (fresh.length === 0) return
    for (const stream of fresh) this.#renewedAtMs.set(stream, nowMs)
    this.#remedies.resubscribe(fresh)
  }

  /** Either the market stands still, or the exchange has forgotten this connection and only pings it. */
  #whileStill(silentMs: number): void {
    const patienceMs = Math.min(...this.#streams.map((stream) => this.#rates.patienceMs(stream)))
    if (patienceMs === Number.POSITIVE_INFINITY || silentMs < Math.max(patienceMs, this.#stillLimitMs)) return
    this.#stillLimitMs = Math.min(STILL_MAX_MS, this.#stillLimitMs * 2)
    const seconds = Math.round(silentMs / 1000)
    this.#remedies.reconnect(`no stream has delivered anything for ${seconds} s`, this.#streams)
  }
}
