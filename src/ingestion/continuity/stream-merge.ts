import { isSequenced } from '../../foundation/market/event.ts'
import type { GapCause } from '../../foundation/market/gap-causes.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import type { StreamEvent } from './continuity.ts'
import {
  type ConnectionStream,
  HOLD_LIMIT_MS,
  isLive,
  liveSinceMs,
  type MergedConnection,
  takesOver,
} from './stream-connections.ts'

/** More held events of one stream are released: the missing ones are not coming. */
const HELD_LIMIT = 10_000

interface Held<Event> {
  readonly event: Event
  readonly sinceMs: number
}

interface StreamState<Event> {
  readonly legs: Map<number, ConnectionStream>
  /** The highest id passed on; null before the first. */
  last: number | null
  /** Ascending by first id: whatever any of them covers comes before what follows it. */
  held: Array<Held<Event>>
}

interface NextStage<Event> {
  /** @returns whether the event has shown that the ids of its stream restarted */
  deliver(event: Event, nowMs: number): boolean
}

interface Rates {
  /** The silence after which a stream counts as quiet. */
  patienceMs(stream: string): number
}

interface Interruptions {
  /** Called for streams with a break between their connections, before their next event. */
  interrupted(streams: readonly string[], cause: GapCause): void
}

/**
 * Orders the events of a stream that arrive over several live connections. It holds an
 * event with ids missing before it until another connection has delivered them or can no longer do
 * so, at most 5 s. Repeats pass: continuity drops them. Specification: M1 to M11.
 */
export class StreamMerge<Event extends StreamEvent> {
  readonly #clock: Clock
  readonly #next: NextStage<Event>
  readonly #rates: Rates
  readonly #continuity: Interruptions
  readonly #streams = new Map<string, StreamState<Event>>()
  readonly #sources = new Map<number, MergedConnection>()
  #cancelTimer: (() => void) | null = null
  held = 0

  constructor(clock: Clock, next: NextStage<Event>, rates: Rates, continuity: Interruptions) {
    this.#clock = clock
    this.#next = next
    this.#rates = rates
    this.#continuity = continuity
  }

  get connections(): number {
    return this.#sources.size
  }

  /** Whether a connection is subscribed to a stream, as the exchange has confirmed. */
  isSubscribed(stream: string): boolean {
    const legs = this.#streams.get(stream)?.legs.values() ?? []
    return [...legs].some(({ subscribedMs }) => subscribedMs < Number.POSITIVE_INFINITY)
  }

  /** Adds a connection. @param later streams not subscribed yet @returns those that only it delivers */
  opened(connection: number, streams: readonly string[], later: readonly string[] = []): string[] {
    this.#sources.set(connection, {
      ...{ id: connection, flowingMs: Number.POSITIVE_INFINITY, heardMs: Number.NEGATIVE_INFINITY },
      ...{ generation: 0, met: new Set<number>() },
    })
    return this.joined(connection, streams, later)
  }

  /** Like {@link opened}, for further streams of an open connection. */
  joined(connection: number, streams: readonly string[], later: readonly string[]): string[] {
    const source = this.#sources.get(connection)
    if (source === undefined) return []
    const nowMs = this.#clock.monotonicMs()
    const unconfirmed = new Set(later)
    return streams.filter((stream) => {
      const state = this.#stateOf(stream)
      const patienceMs = this.#rates.patienceMs(stream)
      const alone = ![...state.legs.values()].some((leg) => isLive(leg, nowMs, patienceMs))
      const subscribedMs = unconfirmed.has(stream) ? Number.POSITIVE_INFINITY : nowMs
      state.legs.set(connection, {
        ...{ source, subscribedMs, last: null, past: null, lastMs: Number.NEGATIVE_INFINITY },
        // Two connections that open together wait for each other too.
        ...{ first: null, generation: -1, joining: state.legs.size > 0 },
      })
      return alone
    })
  }

  /** Notes that the exchange has confirmed streams that did not fit in the URL. */
  subscribed(connection: number, streams: readonly string[]): void {
    const source = this.#sources.get(connection)
    if (source === undefined) return
    source.generation++
    source.met.clear()
    const nowMs = this.#clock.monotonicMs()
    for (const stream of streams) {
      const leg = this.#streams.get(stream)?.legs.get(connection)
      if (leg !== undefined) leg.subscribedMs = Math.min(leg.subscribedMs, nowMs)
    }
  }

  /** Removes a connection. @returns the streams that it interrupts, because no other has delivered them */
  closed(connection: number, streams: readonly string[], cause: GapCause): string[] {
    this.#sources.delete(connection)
    return this.left(connection, streams, cause)
  }

  /** Like {@link closed}, for streams of a connection that stays open. */
  left(connection: number, streams: readonly string[], cause: GapCause): string[] {
    const nowMs = this.#clock.monotonicMs()
    const left = streams.flatMap((stream) => {
      const state = this.#streams.get(stream)
      const leg = state?.legs.get(connection)
      return state === undefined || leg === undefined ? [] : [{ stream, state, leg }]
    })
    for (const { state } of left) state.legs.delete(connection)
    const out = left
      .filter(({ stream, state, leg }) => {
        const patienceMs = this.#rates.patienceMs(stream)
        return ![...state.legs.values()].some((other) => takesOver(other, leg, nowMs, patienceMs))
      })
      .map(({ stream }) => stream)
    this.#continuity.interrupted(out, cause)
    for (const { stream, state } of left) this.#release(stream, state, nowMs)
    return out
  }

  /** @param nowMs on the monotonic clock; reading it per event would cost more than the event */
  offer(event: Event, nowMs: number): void {
    const state = this.#stateOf(event.stream)
    const leg = state.legs.get(event.connection)
    if (leg !== undefined) noteDelivery(leg, event, nowMs, state.legs.values())
    const first = state.held[0]?.event
    // A closed connection may have left held events, which the only one left must not pass.
    if (first === undefined && (leg === undefined || state.legs.size === 1)) {
      this.#passOn(state, event, nowMs)
      return
    }
    // Events that others wait for may pass them; events after them may not.
    if ((first !== undefined && event.firstId > first.firstId) || this.#mustWait(state, event))
      this.#hold(state, event, nowMs)
    else this.#passOn(state, event, nowMs)
    this.#release(event.stream, state, nowMs)
  }

  /** Passes on all held events: whatever comes next belongs after them. */
  flush(): void {
    const nowMs = this.#clock.monotonicMs()
    for (const [stream, state] of this.#streams) this.#release(stream, state, nowMs, Number.POSITIVE_INFINITY)
  }

  stop(): void {
    this.#cancelTimer?.()
  }

  #mustWait(state: StreamState<Event>, { firstId, id, type, connection }: Event): boolean {
    const others = [...state.legs.values()].filter(({ source }) => source.id !== connection)
    if (!isSequenced(type)) {
      const leg = state.legs.get(connection)
      if (leg?.joining !== true) return false
      // Quotes have no contiguous ids: only an older connection's progress shows that it has caught
      // up.
      const older = others.filter((other) => liveSinceMs(other) <= liveSinceMs(leg))
      // An older connection that is joining too proves nothing about those older than both.
      leg.joining =
        older.length > 0 && !older.some(({ last, joining }) => !joining && last !== null && last >= id)
      return leg.joining
    }
    if (state.last === null || firstId <= state.last + 1) return false
    // A connection that has not passed the missing ids, or has not begun, may still deliver them.
    return others.some(({ last }) => last === null || last < firstId - 1)
  }

  #hold(state: StreamState<Event>, event: Event, sinceMs: number): void {
    const at = state.held.findLastIndex((one) => one.event.firstId <= event.firstId)
    state.held.splice(at + 1, 0, { event, sinceMs })
    this.held++
    this.#cancelTimer ??= this.#clock.schedule(HOLD_LIMIT_MS, () => this.#onTimer())
  }

  /** Releases events that need not wait any longer or have waited too long. */
  #release(
    stream: string,
    state: StreamState<Event>,
    nowMs: number,
    dueBeforeMs = Number.NEGATIVE_INFINITY,
  ): void {
    for (let [first] = state.held; first !== undefined; [first] = state.held) {
      const late = first.sinceMs <= dueBeforeMs || state.held.length > HELD_LIMIT
      if (late) this.#endJoining(stream, state, first.event)
      if (!late && this.#mustWait(state, first.event)) return
      state.held.shift()
      this.held--
      this.#passOn(state, first.event, nowMs)
    }
  }

  /** Ends the wait for an older connection: no connection may have received what it did not deliver. */
  #endJoining(stream: string, state: StreamState<Event>, { type, connection }: Event): void {
    const leg = state.legs.get(connection)
    if (leg === undefined || isSequenced(type) || !leg.joining) return
    leg.joining = false
    this.#continuity.interrupted([stream], 'stall')
  }

  #passOn(state: StreamState<Event>, event: Event, nowMs: number): void {
    state.last = Math.max(state.last ?? event.id, event.id)
    if (!this.#next.deliver(event, nowMs)) return
    state.last = null
    for (const leg of state.legs.values()) {
      // Other connections may lag and still deliver the old ids.
      leg.past = leg.source.id === event.connection ? null : leg.last
      leg.last = null
    }
  }

  #onTimer(): void {
    this.#cancelTimer = null
    const nowMs = this.#clock.monotonicMs()
    const dueBeforeMs = nowMs - HOLD_LIMIT_MS
    let oldestMs = Number.POSITIVE_INFINITY
    for (const [stream, state] of this.#streams) {
      this.#release(stream, state, nowMs, dueBeforeMs)
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

/** Records an event, and which connections have met through it. */
function noteDelivery(
  leg: ConnectionStream,
  { firstId, id }: StreamEvent,
  nowMs: number,
  legs: Iterable<ConnectionStream>,
): void {
  const { source } = leg
  source.flowingMs = Math.min(source.flowingMs, nowMs)
  source.heardMs = nowMs
  leg.subscribedMs = Math.min(leg.subscribedMs, nowMs)
  leg.lastMs = nowMs
  if (leg.past !== null && id > leg.past) {
    leg.past = id
    return
  }
  leg.past = null
  leg.last = Math.max(leg.last ?? id, id)
  if (leg.generation !== source.generation) {
    leg.generation = source.generation
    leg.first = firstId
  }
  for (const other of legs) {
    if (other === leg) continue
    const [older, younger] = liveSinceMs(leg) <= liveSinceMs(other) ? [leg, other] : [other, leg]
    if (younger.source.met.has(older.source.id)) continue
    if (younger.generation !== younger.source.generation || younger.first === null) continue
    if (older.last !== null && older.last >= younger.first) younger.source.met.add(older.source.id)
  }
}
