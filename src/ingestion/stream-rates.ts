import type { StreamStatus } from '../telemetry/status.ts'

/** How much the newest interval weighs in the mean. */
const WEIGHT = 0.05

/** Before so many events a stream has no rate of its own yet. */
const MIN_EVENTS = 20

/**
 * A stream is quiet after so many of its mean intervals, and never before the shortest time: trades come in bursts,
 * and the pause after one is no stall.
 */
const MEAN_INTERVALS = 30
const SHORTEST_MS = 30_000

interface StreamState {
  events: number
  lastSeenMs: number
  lastId: number
  meanIntervalMs: number
}

/**
 * When each stream last delivered, and how often it does: what has gone quiet is judged by its own rate, so that a
 * symbol which trades once in ten minutes raises no alarm. Specification: W1 to W3.
 */
export class StreamRates {
  readonly #streams = new Map<string, StreamState>()

  seen(stream: string, id: number, nowMs: number): void {
    const state = this.#streams.get(stream)
    if (state === undefined) {
      this.#streams.set(stream, { events: 1, lastSeenMs: nowMs, lastId: id, meanIntervalMs: 0 })
      return
    }
    const intervalMs = nowMs - state.lastSeenMs
    const weight = Math.max(WEIGHT, 1 / state.events)
    state.meanIntervalMs += weight * (intervalMs - state.meanIntervalMs)
    state.events++
    state.lastSeenMs = nowMs
    state.lastId = id
  }

  /** On the monotonic clock; −∞ when it has never delivered. */
  lastSeenMs(stream: string): number {
    return this.#streams.get(stream)?.lastSeenMs ?? Number.NEGATIVE_INFINITY
  }

  /** After how long a silence the stream counts as quiet; infinite while its rate is not known. */
  patienceMs(stream: string): number {
    const state = this.#streams.get(stream)
    if (state === undefined || state.events < MIN_EVENTS) return Number.POSITIVE_INFINITY
    return Math.max(SHORTEST_MS, MEAN_INTERVALS * state.meanIntervalMs)
  }

  isQuiet(stream: string, nowMs: number): boolean {
    return nowMs - this.lastSeenMs(stream) > this.patienceMs(stream)
  }

  /** Of these streams; those that have never delivered too. */
  status(streams: readonly string[], nowMs: number): Record<string, StreamStatus> {
    return Object.fromEntries(
      streams.map((stream) => {
        const state = this.#streams.get(stream)
        const status: StreamStatus =
          state === undefined
            ? { events: 0, lastSeenAgeMs: null, lastId: null, quiet: false }
            : {
                events: state.events,
                lastSeenAgeMs: Math.round(nowMs - state.lastSeenMs),
                lastId: state.lastId,
                quiet: this.isQuiet(stream, nowMs),
              }
        return [stream, status]
      }),
    )
  }
}
