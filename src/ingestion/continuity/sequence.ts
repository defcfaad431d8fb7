import { EPOCH_MAX } from '../../foundation/market/fields.ts'
import { type IdRange, normalise, subtract } from '../../foundation/market/id-ranges.ts'

/** An event of a sequence, as far as continuity is concerned. */
export interface Observed {
  /** Trade id or aggregate trade id. */
  readonly id: number
  /** Trade time `T`, milliseconds since the Unix epoch. */
  readonly timeMs: number
  /** The last trade id `l` of an aggTrade; negative or absent for a trade. */
  readonly lastTradeId?: number
  /** The connection that delivered it. */
  readonly connection: number
}

/** What to do with an observed event. Specification: S1 to S7, S10. */
export type Verdict<Event extends Observed> =
  /** Forward it; `missing` are the ids between it and what came before, if any. */
  | { readonly kind: 'next'; readonly missing: IdRange | null; readonly released: number }
  /** Forward it: it belongs into a hole. */
  | { readonly kind: 'late' }
  /** Drop it: it was forwarded before. */
  | { readonly kind: 'duplicate' }
  /** Drop it, and say so: another event was forwarded under its id. */
  | { readonly kind: 'second' }
  /** Keep it: it may be the beginning of a new sequence. */
  | { readonly kind: 'held'; readonly released: number }
  /** The exchange has begun a new sequence, and there is no epoch left for it. */
  | { readonly kind: 'exhausted' }
  /** The exchange has begun a new sequence: forward these, oldest first; `missing` lie before and between them. */
  | {
      readonly kind: 'reset'
      readonly events: readonly Event[]
      readonly missing: readonly IdRange[]
      readonly released: number
    }

/* `released`: how many events that were held before turn out to be duplicates. */

/** How many rising ids below the last, later in time, on one connection, make a reset. */
const RESET_EVENTS = 3

/**
 * The continuity of one sequence of ids: of one symbol and event type, in one epoch. Ids are contiguous at the
 * exchange, so a jump is a gap; and only ids that were forwarded are duplicates, so what lies in a hole passes
 * whenever it comes.
 */
export class Sequence<Event extends Observed> {
  #epoch: number
  /** The lowest id that was forwarded or is looked for; null before the first, or where memory does not tell. */
  #first: number | null
  #last: number | null
  #lastTimeMs: number
  /** The highest trade id in the aggTrades that came here; +∞ where memory does not tell, and for trades. */
  #lastTradeId = Number.POSITIVE_INFINITY
  /** When the exchange began these ids anew; −∞ where it is not known that it did. */
  #begunAtMs = Number.NEGATIVE_INFINITY
  #holes: IdRange[]
  /** Suspected first events of a new sequence, by connection. */
  readonly #candidates = new Map<number, Event[]>()
  /** The lowest id that was forwarded as it was observed; null before the first. */
  #observedFrom: number | null = null
  #second: Event[] = []

  /** @param memory what an earlier instance knew; nothing for a sequence never seen */
  constructor(memory?: {
    epoch: number
    first?: number | null | undefined
    last: number | null
    lastTimeMs: number
    holes: readonly IdRange[]
  }) {
    this.#epoch = memory?.epoch ?? 0
    this.#first = memory?.first ?? null
    this.#last = memory?.last ?? null
    this.#lastTimeMs = memory?.lastTimeMs ?? 0
    this.#holes = [...(memory?.holes ?? [])]
  }

  get epoch(): number {
    return this.#epoch
  }

  get first(): number | null {
    return this.#first
  }

  /** The highest id forwarded; null before the first. */
  get last(): number | null {
    return this.#last
  }

  get lastTimeMs(): number {
    return this.#lastTimeMs
  }

  /** Ids below the last that were not forwarded, in order. */
  get holes(): readonly IdRange[] {
    return this.#holes
  }

  observe(event: Event): Verdict<Event> {
    const { id, timeMs } = event
    // A connection that lags still delivers ids of before; the row of the reset covers those that nobody forwarded.
    if (timeMs < this.#begunAtMs) return { kind: 'duplicate' }
    if (this.#last === null || id > this.#last) {
      const released = this.#releaseAll()
      this.#observedFrom ??= id
      const before = Number.isFinite(this.#lastTradeId) ? this.#lastTradeId : 0
      const missing = this.#advance(id, timeMs)
      // Trade ids may restart without these: repeats of before then have higher ones, and stay repeats.
      this.#lastTradeId = Math.max(before, lastTradeIdOf(event))
      return { kind: 'next', missing, released }
    }
    if (this.fill({ from: id, to: id }, timeMs) > 0) return { kind: 'late' }
    if (timeMs > this.#lastTimeMs) return this.#suspect(event)
    const { lastTradeId = -1 } = event
    if (lastTradeId <= this.#lastTradeId) return { kind: 'duplicate' }
    this.#lastTradeId = lastTradeId
    return { kind: 'second' }
  }

  /**
   * Events that came under an id of which another event had been forwarded: later in time than all before them, they are no
   * repeats, and the old sequence has continued. Each once; gone after this.
   */
  takeSecond(): readonly Event[] {
    const taken = this.#second
    if (taken.length > 0) this.#second = []
    return taken
  }

  /** Notes an id of which it is known that it was forwarded, in which epoch, and in no particular order. */
  record(epoch: number, id: number, timeMs: number): void {
    // Of a sequence that is over.
    if (epoch < this.#epoch) return
    if (epoch > this.#epoch) this.#begin(epoch)
    if (this.#last === null || id > this.#last) this.#advance(id, timeMs)
    else if (this.#first !== null && id < this.#first)
      this.#extendDown({ from: id + 1, to: this.#first - 1 }, id)
    else this.fill({ from: id, to: id }, timeMs)
  }

  /** Ids are to be looked for once more, whether they were forwarded before or not. */
  reopen(epoch: number, range: IdRange): void {
    if (epoch > this.#epoch && this.#last === null) this.#begin(epoch)
    if (epoch !== this.#epoch) return
    // Without a last id, nobody knows whether the ids after the range are missing: the next event begins there.
    if (this.#last !== null) this.expect(range.to, this.#lastTimeMs)
    this.#holes = normalise([...this.#holes, range])
    this.#first = Math.min(this.#first ?? range.from, range.from)
  }

  /** The exchange has ids up to `to` that have not come: they are a hole now, returned, or null when there is none. */
  expect(to: number, timeMs: number): IdRange | null {
    if (this.#last === null || to <= this.#last) return null
    const missing = { from: this.#last + 1, to }
    this.#holes.push(missing)
    this.#last = to
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#lastTimeMs = Math.max(this.#lastTimeMs, timeMs)
    return missing
  }

  /** It is known that ids of a range are to be looked for: those that are not known to be there become holes. */
  lack(epoch: number, { from, to }: IdRange): void {
    if (epoch < this.#epoch) return
    if (epoch > this.#epoch) this.#begin(epoch)
    // Nothing is known of these ids but a request to reopen them.
    if (this.#last === null && this.#first !== null) {
      this.reopen(epoch, { from, to })
      return
    }
    if (this.#last === null) {
      // What comes before the range is not known to be missing.
      this.#first = from
      this.#last = from - 1
    }
    if (this.#first !== null && from < this.#first)
      this.#extendDown({ from, to: Math.min(to, this.#first - 1) }, from)
    this.expect(to, this.#lastTimeMs)
  }

  /**
   * Ids up to the end of a range had been forwarded, but for some holes. Those of the range that are above the last that is
   * known now may be missing.
   */
  hadReached(epoch: number, { from, to }: IdRange, holes: readonly IdRange[], timeMs: number): void {
    if (epoch < this.#epoch) return
    if (epoch > this.#epoch) this.#begin(epoch)
    if (this.#last === null) {
      this.#first = Math.min(this.#first ?? from, from)
      this.#last = from - 1
    }
    const missing = subtract(normalise([...holes, { from, to }]), [{ from: 0, to: this.#last }])
    this.#holes = normalise([...this.#holes, ...missing])
    this.#last = Math.max(this.#last, to)
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#lastTimeMs = Math.max(this.#lastTimeMs, timeMs)
  }

  /** Ids that were forwarded are missing all the same. */
  lose(epoch: number, range: IdRange): void {
    if (epoch !== this.#epoch || this.#last === null) return
    const known = { from: range.from, to: Math.min(range.to, this.#last) }
    if (known.from <= known.to)
      this.#holes.splice(0, Number.POSITIVE_INFINITY, ...normalise([...this.#holes, known]))
  }

  /** Lower ids than any before are known of; `missing` of them were not forwarded. */
  #extendDown(missing: IdRange, first: number): void {
    if (missing.from <= missing.to) this.#holes.unshift(missing)
    this.#first = first
  }

  /** The ids of a range that lie in holes. */
  holesIn({ from, to }: IdRange): IdRange[] {
    const inside: IdRange[] = []
    for (let i = this.#firstHoleBehind(to) - 1; i >= 0; i--) {
      const hole = this.#holes[i]
      if (hole === undefined || hole.to < from) break
      inside.unshift({ from: Math.max(hole.from, from), to: Math.min(hole.to, to) })
    }
    return inside
  }

  /**
   * Takes ids out of the holes that were forwarded by another way (backfill, a replayed topic); how many those were.
   *
   * @param timeMs of the trade. A row of the ledger may have raised the last id without a time: without this,
   *   repeats of what has come since would pass for a new sequence
   */
  fill({ from, to }: IdRange, timeMs = 0): number {
    let filled = 0
    for (let i = this.#firstHoleBehind(to) - 1; i >= 0; i--) {
      const hole = this.#holes[i]
      if (hole === undefined || hole.to < from) break
      const rest: IdRange[] = []
      if (hole.from < from) rest.push({ from: hole.from, to: from - 1 })
      if (hole.to > to) rest.push({ from: to + 1, to: hole.to })
      filled += Math.min(hole.to, to) - Math.max(hole.from, from) + 1
      this.#holes.splice(i, 1, ...rest)
    }
    if (filled > 0) this.#lastTimeMs = Math.max(this.#lastTimeMs, timeMs)
    return filled
  }

  /** The index of the first hole that begins behind an id. */
  #firstHoleBehind(id: number): number {
    let low = 0
    for (let high = this.#holes.length; low < high; ) {
      const middle = (low + high) >> 1
      if ((this.#holes[middle]?.from ?? 0) > id) high = middle
      else low = middle + 1
    }
    return low
  }

  #begin(epoch: number): void {
    this.#epoch = epoch
    this.#first = null
    this.#last = null
    this.#lastTimeMs = 0
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#observedFrom = null
    this.#holes = []
  }

  /** Moves the last id up; the ids that were jumped over become a hole. */
  #advance(id: number, timeMs: number): IdRange | null {
    const missing = this.#last === null || id === this.#last + 1 ? null : { from: this.#last + 1, to: id - 1 }
    // Ids from the first event on come with the events after it, or are found missing by them.
    if (this.#last === null) this.#holes = subtract(this.#holes, [{ from: id, to: Number.MAX_SAFE_INTEGER }])
    if (missing !== null) this.#holes.push(missing)
    if (this.#last === null) this.#first = Math.min(this.#first ?? id, id)
    this.#last = id
    this.#lastTradeId = Number.POSITIVE_INFINITY
    // The later of two trades may have the earlier time: by that, repeats of those before it would look like a new sequence.
    this.#lastTimeMs = Math.max(this.#lastTimeMs, timeMs)
    return missing
  }

  /** An id that was forwarded before comes with a later time: a defect, or the first of a new sequence. */
  #suspect(event: Event): Verdict<Event> {
    const before = this.#candidates.get(event.connection) ?? []
    const previous = before.at(-1)
    const continues = previous === undefined || (previous.id < event.id && previous.timeMs <= event.timeMs)
    const candidates = continues ? [...before, event] : [event]
    this.#candidates.set(event.connection, candidates)
    if (!continues) this.#noteSecond(before)
    if (candidates.length < RESET_EVENTS) return { kind: 'held', released: continues ? 0 : before.length }
    return this.#epoch === EPOCH_MAX ? { kind: 'exhausted' } : this.#reset()
  }

  /** One connection has shown a new sequence; the others may have delivered parts of it. */
  #reset(): Verdict<Event> {
    const byId = new Map([...this.#candidates.values()].flat().map((event) => [event.id, event]))
    const events = [...byId.values()].sort((left, right) => left.id - right.id)
    // All but the one that has just arrived were held.
    const released = this.#releaseAll() - events.length
    this.#second = []
    this.#begin(this.#epoch + 1)
    // The first of the new ids were not forwarded, if there are any before these: nobody knows where they begin.
    this.#begunAtMs = Math.min(...events.map(({ timeMs }) => timeMs))
    this.#first = 0
    this.#last = -1
    for (const { id, timeMs } of events) this.#advance(id, timeMs)
    this.#lastTradeId = Math.max(...events.map(lastTradeIdOf))
    this.#observedFrom = events[0]?.id ?? null
    return { kind: 'reset', events, missing: [...this.#holes], released }
  }

  #releaseAll(): number {
    if (this.#candidates.size === 0) return 0
    const released = [...this.#candidates.values()].flat()
    this.#noteSecond(released)
    this.#candidates.clear()
    return released.length
  }

  /** Ids that another instance may have forwarded are left out: its last trade time need not be known here. */
  #noteSecond(released: readonly Event[]): void {
    for (const event of released) {
      const isCopy = this.#second.some(({ id, timeMs }) => id === event.id && timeMs === event.timeMs)
      if (!isCopy && this.#observedFrom !== null && event.id >= this.#observedFrom) this.#second.push(event)
    }
  }
}

/** +∞ where it has none: nothing is known to be later. */
function lastTradeIdOf({ lastTradeId = -1 }: Observed): number {
  return lastTradeId < 0 ? Number.POSITIVE_INFINITY : lastTradeId
}
