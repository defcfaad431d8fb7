import { eventTypeOf, similarTo, streamName } from '../../foundation/market/event.ts'
import type { StreamStatus } from '../../foundation/telemetry/status.ts'

/**
 * Weights of the newest interval in the two means, of which the longer counts: a pause after a busy
 * minute is no stall, and a slow hour counts soon.
 */
const FAST_WEIGHT = 0.05
const SLOW_WEIGHT = 0.005

/** Events within this time count as one occurrence: a burst tells nothing about the next pause. */
const OCCURRENCE_MS = 1000

/** With fewer occurrences a stream has no rate. */
const MIN_OCCURRENCES = 20

/** A stream is quiet after so many mean intervals, and never before the minimum. */
const MEAN_INTERVALS = 30
const SHORTEST_MS = 30_000

const MINUTE_MS = 60_000

/** The patience with a connection none of whose streams has a rate. */
const UNKNOWN_RATE_MS = 600_000

/** Counts the events of the last monotonic minute, assuming an even rate in each minute. */
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

interface StreamState {
  events: number
  readonly lastMinute: MinuteCount
  lastSeenMs: number
  lastId: number
  /** 0 while the symbol does not trade: its next event starts a new rate. */
  occurrences: number
  occurrenceAtMs: number
  fastMeanMs: number
  slowMeanMs: number
  readonly lastSeenOn: Map<number, number>
}

/** Tracks when and how often streams deliver, so that slow ones raise no alarm. Specification: W1 to W3. */
export class StreamRates {
  readonly #streams = new Map<string, StreamState>()
  /** All frames, whether they are events or not. */
  readonly frames = new MinuteCount()

  seen(stream: string, id: number, nowMs: number, connection: number): void {
    const state = this.#stateOf(stream, nowMs)
    state.events++
    state.lastMinute.add(nowMs)
    state.lastSeenMs = nowMs
    state.lastId = id
    state.lastSeenOn.set(connection, nowMs)
    if (state.occurrences === 0) {
      state.occurrences = 1
      state.occurrenceAtMs = nowMs
      return
    }
    const intervalMs = nowMs - state.occurrenceAtMs
    if (intervalMs < OCCURRENCE_MS) return
    // An outage is no interval: after a day's outage, a stall would take days to show.
    const ownIntervalMs = Math.min(intervalMs, patienceOf(state))
    const even = 1 / state.occurrences
    state.fastMeanMs += Math.max(FAST_WEIGHT, even) * (ownIntervalMs - state.fastMeanMs)
    state.slowMeanMs += Math.max(SLOW_WEIGHT, even) * (ownIntervalMs - state.slowMeanMs)
    state.occurrences++
    state.occurrenceAtMs = nowMs
  }

  /** Events of the last minute; an event counts once per connection that delivered it. */
  lastMinute(stream: string, nowMs: number): number {
    return this.#streams.get(stream)?.lastMinute.at(nowMs) ?? 0
  }

  /** Resets rates when symbols stop trading: silence means nothing, and rates may differ. */
  halt(streams: readonly string[]): void {
    for (const stream of streams) {
      const state = this.#streams.get(stream)
      if (state !== undefined) Object.assign(state, { occurrences: 0, fastMeanMs: 0, slowMeanMs: 0 })
    }
  }

  /** Forgets a connection that has closed. */
  forget(connection: number, streams: readonly string[]): void {
    for (const stream of streams) this.#streams.get(stream)?.lastSeenOn.delete(connection)
  }

  #stateOf(stream: string, nowMs: number): StreamState {
    const known = this.#streams.get(stream)
    if (known !== undefined) return known
    const state = {
      events: 0,
      lastMinute: new MinuteCount(),
      lastSeenMs: nowMs,
      lastId: 0,
      occurrences: 1,
      occurrenceAtMs: nowMs,
      fastMeanMs: 0,
      slowMeanMs: 0,
      lastSeenOn: new Map<number, number>(),
    }
    this.#streams.set(stream, state)
    return state
  }

  /** When a connection last delivered the stream, on the monotonic clock; −∞ if it has not. */
  lastSeenOnMs(stream: string, connection: number): number {
    return this.#streams.get(stream)?.lastSeenOn.get(connection) ?? Number.NEGATIVE_INFINITY
  }

  /** When the stream last delivered, on the monotonic clock; −∞ if it never has. */
  lastSeenMs(stream: string): number {
    return this.#streams.get(stream)?.lastSeenMs ?? Number.NEGATIVE_INFINITY
  }

  /** The silence after which a stream is quiet, by a similar type if it has no rate; or infinite. */
  patienceMs(stream: string): number {
    const state = this.#streams.get(stream)
    if (state === undefined) return Number.POSITIVE_INFINITY
    const ownMs = patienceOf(state)
    if (ownMs !== Number.POSITIVE_INFINITY) return ownMs
    const sibling = this.#streams.get(siblingOf(stream) ?? '')
    return sibling === undefined ? Number.POSITIVE_INFINITY : patienceOf(sibling)
  }

  /** The silence after which a connection counts as still: the patience with its busiest stream. */
  connectionPatienceMs(streams: readonly string[]): number {
    const shortestMs = Math.min(...streams.map((stream) => this.patienceMs(stream)))
    return shortestMs === Number.POSITIVE_INFINITY ? UNKNOWN_RATE_MS : shortestMs
  }

  /** Whether no connection has delivered the stream for too long. */
  isQuiet(stream: string, nowMs: number): boolean {
    return nowMs - this.lastSeenMs(stream) > this.patienceMs(stream)
  }

  /** Returns the state of these streams, including those that have never delivered. */
  status(streams: readonly string[], nowMs: number): Record<string, StreamStatus> {
    return Object.fromEntries(streams.map((stream) => [stream, this.#statusOf(stream, nowMs)]))
  }

  #statusOf(stream: string, nowMs: number): StreamStatus {
    const state = this.#streams.get(stream)
    if (state === undefined) return { events: 0, lastSeenAgeMs: null, lastId: null, quiet: false }
    const { events, lastSeenMs, lastId } = state
    return {
      events,
      lastSeenAgeMs: Math.round(nowMs - lastSeenMs),
      lastId,
      quiet: this.isQuiet(stream, nowMs),
    }
  }
}

/** Returns the stream whose rate stands in for one without; null if none is as frequent. */
function siblingOf(stream: string): string | null {
  const type = eventTypeOf(stream)
  const similar = type === null ? null : similarTo(type)
  return similar === null ? null : streamName(stream.slice(0, stream.indexOf('@')), similar)
}

function patienceOf({ occurrences, fastMeanMs, slowMeanMs }: StreamState): number {
  if (occurrences < MIN_OCCURRENCES) return Number.POSITIVE_INFINITY
  return Math.max(SHORTEST_MS, MEAN_INTERVALS * Math.max(fastMeanMs, slowMeanMs))
}
