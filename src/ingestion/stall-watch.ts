import type { StreamRates } from './stream-rates.ts'

/** Others on the connection have delivered within this time: so it is the stream, and not the market, that is still. */
const FLOWING_MS = 5000

/** How long a subscription that was renewed may take to show, before the connection is dropped. */
const RENEWED_MS = 30_000

export interface StallRemedies {
  /** Unsubscribes and subscribes anew. */
  resubscribe(streams: readonly string[]): void
  /** Drops the connection and opens another. */
  reconnect(reason: string): void
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

  constructor(streams: readonly string[], rates: StreamRates, remedies: StallRemedies) {
    this.#streams = streams
    this.#rates = rates
    this.#remedies = remedies
  }

  /** To be called every few seconds while the connection is open and not paused. */
  check(nowMs: number): void {
    for (const stream of [...this.#renewedAtMs.keys()]) {
      if (!this.#rates.isQuiet(stream, nowMs)) this.#renewedAtMs.delete(stream)
    }
    if (!this.#streams.some((stream) => nowMs - this.#rates.lastSeenMs(stream) < FLOWING_MS)) return
    const quiet = this.#streams.filter((stream) => this.#rates.isQuiet(stream, nowMs))
    const hopeless = quiet.find((stream) => nowMs - (this.#renewedAtMs.get(stream) ?? nowMs) > RENEWED_MS)
    if (hopeless !== undefined) {
      // Its time starts again: a connection that brings it back clears it, one that does not is not dropped at once.
      for (const stream of quiet) this.#renewedAtMs.set(stream, nowMs)
      this.#remedies.reconnect(`${hopeless} has gone quiet while others flow`)
      return
    }
    const fresh = quiet.filter((stream) => !this.#renewedAtMs.has(stream))
    if (fresh.length === 0) return
    for (const stream of fresh) this.#renewedAtMs.set(stream, nowMs)
    this.#remedies.resubscribe(fresh)
  }
}
