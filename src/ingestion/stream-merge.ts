import type { Clock } from '../timing/clock.ts'
import type { StreamEvent } from './continuity.ts'

/** How long an event may wait for another connection to deliver what comes before it. */
export const HOLD_LIMIT_MS = 5000

/** So many held events of one stream are let go: what holds them up is not coming. */
const HELD_LIMIT = 10_000

interface Held<Event> {
  readonly event: Event
  readonly sinceMs: number
}

/** One connection's part in a stream. */
interface Leg {
  /** The highest id it has delivered of this stream; null before the first. */
  last: number | null
  /** bookTicker: its first events wait for the older connections to get there. */
  joining: boolean
}

interface StreamState<Event> {
  readonly legs: Map<number, Leg>
  /** The highest id that was passed on; null before the first. */
  last: number | null
  /** Rising by id. */
  held: Array<Held<Event>>
}

/**
 * Brings the events of a stream that come over several live connections into one order. An event that others must
 * precede is held until another connection has delivered up to it, or can no longer do so, or 5 s have passed.
 * Repeats pass: continuity drops them. Specification: M1 to M6.
 */
export class StreamMerge<Event extends StreamEvent> {
  readonly #clock: Clock
  readonly #pass: (event: Event) => void
  readonly #streams = new Map<string, StreamState<Event>>()
  #cancelTimer: (() => void) | null = null
  /** Events that are being held. */
  held = 0

  /** @param pass receives the events, each stream's in order */
  constructor(clock: Clock, pass: (event: Event) => void) {
    this.#clock = clock
    this.#pass = pass
  }

  /** A connection has begun to deliver these streams. @returns those that no other connection delivers */
  opened(connection: number, streams: readonly string[]): string[] {
    return streams.filter((stream) => {
      const state = this.#stateOf(stream)
      const alone = state.legs.size === 0
      state.legs.set(connection, { last: null, joining: !alone })
      return alone
    })
  }

  /** A connection delivers no more. @returns the streams that no other connection delivers */
  closed(connection: number, streams: readonly string[]): string[] {
    return streams.filter((stream) => {
      const state = this.#streams.get(stream)
      if (state === undefined || !state.legs.delete(connection)) return false
      this.#release(state)
      return state.legs.size === 0
    })
  }

  offer(event: Event): void {
    const state = this.#stateOf(event.stream)
    const leg = state.legs.get(event.connection)
    if (leg === undefined || state.legs.size === 1) {
      this.#passOn(state, event)
      return
    }
    leg.last = Math.max(leg.last ?? event.id, event.id)
    const first = state.held[0]?.event
    // What others wait for may pass them; what lies behind them may not.
    if ((first !== undefined && event.id > first.id) || this.#mustWait(state, event)) this.#hold(state, event)
    else this.#passOn(state, event)
    this.#release(state)
  }

  /** The ids of a stream have begun anew: how far its connections had got means nothing any more. */
  beginAnew(stream: string): void {
    const state = this.#stateOf(stream)
    state.last = null
    for (const leg of state.legs.values()) leg.last = null
  }

  stop(): void {
    this.#cancelTimer?.()
  }

  #mustWait(state: StreamState<Event>, { id, type, connection }: Event): boolean {
    const others = [...state.legs].filter(([other]) => other !== connection).map(([, { last }]) => last)
    if (type === 'bookTicker') {
      const leg = state.legs.get(connection)
      if (leg?.joining !== true) return false
      // Nothing counts quotes: only the older connection's own progress shows that it has caught up.
      leg.joining = others.length > 0 && !others.some((last) => last === null || last >= id)
      return leg.joining && others.some((last) => last !== null)
    }
    if (state.last === null || id <= state.last + 1) return false
    // Another connection that has not got past the missing ids, or has not begun, may still deliver them.
    return others.some((last) => last === null || last < id - 1)
  }

  #hold(state: StreamState<Event>, event: Event): void {
    const at = state.held.findLastIndex((one) => one.event.id <= event.id)
    state.held.splice(at + 1, 0, { event, sinceMs: this.#clock.monotonicMs() })
    this.held++
    this.#cancelTimer ??= this.#clock.schedule(HOLD_LIMIT_MS, () => this.#onTimer())
  }

  /** Lets go what need not wait any longer; `force` what has waited long enough. */
  #release(state: StreamState<Event>, dueBeforeMs = Number.NEGATIVE_INFINITY): void {
    for (let [first] = state.held; first !== undefined; [first] = state.held) {
      const late = first.sinceMs <= dueBeforeMs || state.held.length > HELD_LIMIT
      if (late) this.#endJoining(state, first.event.connection)
      if (!late && this.#mustWait(state, first.event)) return
      state.held.shift()
      this.held--
      this.#passOn(state, first.event)
    }
  }

  #endJoining(state: StreamState<Event>, connection: number): void {
    const leg = state.legs.get(connection)
    if (leg !== undefined) leg.joining = false
  }

  #passOn(state: StreamState<Event>, event: Event): void {
    state.last = Math.max(state.last ?? event.id, event.id)
    const leg = state.legs.get(event.connection)
    if (leg !== undefined) leg.last = Math.max(leg.last ?? event.id, event.id)
    this.#pass(event)
  }

  #onTimer(): void {
    this.#cancelTimer = null
    const dueBeforeMs = this.#clock.monotonicMs() - HOLD_LIMIT_MS
    let oldestMs = Number.POSITIVE_INFINITY
    for (const state of this.#streams.values()) {
      this.#release(state, dueBeforeMs)
      for (const { sinceMs } of state.held) oldestMs = Math.min(oldestMs, sinceMs)
    }
    if (oldestMs === Number.POSITIVE_INFINITY) return
    const waitMs = Math.max(1, oldestMs + HOLD_LIMIT_MS - this.#clock.monotonicMs())
    this.#cancelTimer = this.#clock.schedule(waitMs, () => this.#onTimer())
  }

  #stateOf(stream: string): StreamState<Event> {
    const known = this.#streams.get(stream)
    if (known !== undefined) return known
    const state: StreamState<Event> = { legs: new Map(), last: null, held: [] }
    this.#streams.set(stream, state)
    return state
  }
}
