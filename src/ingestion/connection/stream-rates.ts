import { streamName } from '../../foundation/market/event.ts'
import type { StreamStatus } from '../../foundation/telemetry/status.ts'
import { MinuteCount } from './minute-count.ts'

/**
 * How much the newest interval weighs in the two means. The longer of them counts: a busy minute must not make an
 * ordinary pause behind it a stall, and a slow hour is known soon.
 */
const FAST_WEIGHT = 0.05
const SLOW_WEIGHT = 0.005

/** Events so close together are one occurrence: trades come in bursts, and a burst says nothing of the next pause. */
const OCCURRENCE_MS = 1000

/** Before so many occurrences a stream has no rate of its own yet. */
const MIN_OCCURRENCES = 20

/** A stream is quiet after so many of its mean intervals, and never before the shortest time. */
const MEAN_INTERVALS = 30
const SHORTEST_MS = 30_000

/** A connection none of whose streams has a rate yet is waited for so long. */
const UNKNOWN_RATE_MS = 600_000

interface StreamState {
  events: number
  readonly lastMinute: MinuteCount
  lastSeenMs: number
  lastId: number
  /** 0 while the symbol does not trade: its next event begins a rate again. */
  occurrences: number
  occurrenceAtMs: number
  fastMeanMs: number
  slowMeanMs: number
  /** By the connection that delivered. */
  readonly lastSeenOn: Map<number, number>
}

/**
 * When each stream last delivered, and how often it does: what has gone quiet is judged by its own rate, so that a
 * symbol which trades once in ten minutes raises no alarm. Specification: W1 to W3.
 */
export class StreamRates {
  readonly #streams = new Map<string, StreamState>()

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
    // An outage is not the stream's way: after a day without it, it would otherwise be waited for for days.
    const ownIntervalMs = Math.min(intervalMs, patienceOf(state))
    const even = 1 / state.occurrences
    state.fastMeanMs += Math.max(FAST_WEIGHT, even) * (ownIntervalMs - state.fastMeanMs)
    state.slowMeanMs += Math.max(SLOW_WEIGHT, even) * (ownIntervalMs - state.slowMeanMs)
    state.occurrences++
    state.occurrenceAtMs = nowMs
  }

  /** Events of the last minute, those that several connections delivered counted for each. */
  lastMinute(stream: string, nowMs: number): number {
    return this.#streams.get(stream)?.lastMinute.at(nowMs) ?? 0
  }

  /** Symbols do not trade: that their streams are silent means nothing, and what follows is another market. */
  halt(streams: readonly string[]): void {
    for (const stream of streams) {
      const state = this.#streams.get(stream)
      if (state !== undefined) Object.assign(state, { occurrences: 0, fastMeanMs: 0, slowMeanMs: 0 })
    }
  }

  /** A connection delivers no more. */
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

  /** When a connection last delivered the stream, on the monotonic clock; −∞ when it has not. */
  lastSeenOnMs(stream: string, connection: number): number {
    return this.#streams.get(stream)?.lastSeenOn.get(connection) ?? Number.NEGATIVE_INFINITY
  }

  /** On the monotonic clock; −∞ when it has never delivered. */
  lastSeenMs(stream: string): number {
    return this.#streams.get(stream)?.lastSeenMs ?? Number.NEGATIVE_INFINITY
  }

  /**
   * After how long a silence the stream counts as quiet. While too little is known of its own rate, that of its
   * symbol's trades stands for it, since all three types move together; infinite where that is not known either.
   */
  patienceMs(stream: string): number {
    const state = this.#streams.get(stream)
    if (state === undefined) return Number.POSITIVE_INFINITY
    const ownMs = patienceOf(state)
    if (ownMs !== Number.POSITIVE_INFINITY) return ownMs
    const sibling = this.#streams.get(siblingOf(stream))
    return sibling === undefined ? Number.POSITIVE_INFINITY : patienceOf(sibling)
  }

  /** After how long a silence a connection with these streams counts as still: the patience of the busiest. */
  connectionPatienceMs(streams: readonly string[]): number {
    const shortestMs = Math.min(...streams.map((stream) => this.patienceMs(stream)))
    return shortestMs === Number.POSITIVE_INFINITY ? UNKNOWN_RATE_MS : shortestMs
  }

  /** No connection has delivered it for too long. */
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

/** Trades and aggTrades stand for each other, and trades for quotes, of which there are more. */
function siblingOf(stream: string): string {
  const symbol = stream.slice(0, stream.indexOf('@'))
  return streamName(symbol, stream.endsWith('@trade') ? 'aggTrade' : 'trade')
}

function patienceOf({ occurrences, fastMeanMs, slowMeanMs }: StreamState): number {
  if (occurrences < MIN_OCCURRENCES) return Number.POSITIVE_INFINITY
  return Math.max(SHORTEST_MS, MEAN_INTERVALS * Math.max(fastMeanMs, slowMeanMs))
}
