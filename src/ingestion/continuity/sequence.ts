import { EPOCH_MAX } from '../../foundation/market/fields.ts'
import { type IdRange, normalise, subtract } from '../../foundation/market/id-ranges.ts'
import { farIds, REORDERED_MS, ResetEvidence } from './reset-evidence.ts'
import type { Observed, Verdict } from './verdict.ts'

/** A sequence that a reset has ended, as far as a connection that lags may still deliver it. */
interface EndedSequence {
  readonly last: number
  /** The highest trade time seen of it. */
  readonly lastTimeMs: number
  /** Its ids from here on, where they cannot be confused with the new ones, are its own until the trade time `untilMs`. */
  readonly fromId: number
  readonly untilMs: number
}

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
  /** The highest id that this time, or a lower one, is of. Above are ids of which only the ledger tells. */
  #timedTo: number
  /** The highest trade id in the aggTrades that came here; +∞ where memory does not tell, and for trades. */
  #lastTradeId = Number.POSITIVE_INFINITY
  /** What came before a reset that was recognised here. */
  #ended: EndedSequence | null = null
  #holes: IdRange[]
  readonly #evidence = new ResetEvidence<Event>()
  /** The lowest id that was forwarded as it was observed; null before the first. */
  #observedFrom: number | null = null

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
    this.#timedTo = memory?.last ?? -1
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
    if (this.#ended !== null && this.#isOf(this.#ended, event)) {
      const isUnseen = id > this.#ended.last && this.#evidence.isNew(event)
      return { kind: isUnseen ? 'over' : 'duplicate' }
    }
    if (this.#last === null || id > this.#last) {
      const released = this.#evidence.refute(event)
      this.#observedFrom ??= id
      const before = Number.isFinite(this.#lastTradeId) ? this.#lastTradeId : 0
      const missing = this.#advance(id, timeMs)
      // Trade ids may restart without these: repeats of before then have higher ones, and stay repeats.
      this.#lastTradeId = Math.max(before, lastTradeIdOf(event))
      return { kind: 'next', missing, released }
    }
    if (this.fill({ from: id, to: id }, timeMs) > 0) return { kind: 'late' }
    if (timeMs > this.#lastTimeMs) return this.#suspect(event)
    if (this.#ended !== null && this.#first !== null && id < this.#first) {
      const missing = { from: id + 1, to: this.#first - 1 }
      this.#extendDown(missing, id)
      this.#observedFrom = Math.min(this.#observedFrom ?? id, id)
      return { kind: 'next', missing: missing.from > missing.to ? null : missing, released: 0 }
    }
    const { lastTradeId = -1 } = event
    if (lastTradeId <= this.#lastTradeId) return { kind: 'duplicate' }
    this.#lastTradeId = lastTradeId
    return { kind: 'second' }
  }

  /**
   * Events that were held, and came under an id of which another event had been forwarded: later in time than all before them,
   * they are no repeats, and the old sequence has continued. Each once. An id that another instance may have forwarded is left
   * out: its last trade time need not be known here.
   */
  takeSecond(): readonly Event[] {
    return this.#evidence.takeSecond().filter((event) => this.#wasObserved(event))
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

  /** All ids from 0 on are to be forwarded. */
  beginAtFirstId(): void {
    this.#first = 0
    this.#last = -1
  }

  /** Ids are to be looked for once more, whether they were forwarded before or not. */
  reopen(epoch: number, range: IdRange): void {
    if (epoch > this.#epoch && this.#last === null) this.#begin(epoch)
    if (epoch !== this.#epoch) return
    // Without a last id, nobody knows whether the ids after the range are missing: the next event begins there.
    if (this.#last !== null) this.expect(range.to, 0)
    this.#holes = normalise([...this.#holes, range])
    this.#first = Math.min(this.#first ?? range.from, range.from)
  }

  /**
   * The exchange has ids up to `to` that have not come: they are a hole now, returned, or null when there is none.
   *
   * @param timeMs of the last of them; 0 where it is not known
   */
  expect(to: number, timeMs: number): IdRange | null {
    if (this.#last === null || to <= this.#last) return null
    const missing = { from: this.#last + 1, to }
    this.#holes.push(missing)
    this.#last = to
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#noteTime(to, timeMs)
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
    // As above the last id: nobody knows that those between were forwarded.
    if (this.#first !== null && from < this.#first) this.#extendDown({ from, to: this.#first - 1 }, from)
    this.expect(to, 0)
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
    this.#noteTime(to, timeMs)
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
    if (filled > 0) this.#noteTime(to, timeMs)
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
    this.#timedTo = -1
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#observedFrom = null
    this.#ended = null
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
    this.#noteTime(id, timeMs)
    return missing
  }

  #noteTime(id: number, timeMs: number): void {
    if (timeMs === 0) return
    this.#timedTo = Math.max(this.#timedTo, id)
    // The later of two trades may have the earlier time: by that, repeats of those before it would look like a new sequence.
    this.#lastTimeMs = Math.max(this.#lastTimeMs, timeMs)
  }

  /** An id that was forwarded before comes with a later time: a defect, or the first of a new sequence. */
  #suspect(event: Event): Verdict<Event> {
    const isTimed = event.id <= this.#timedTo
    const { kind, released } = this.#evidence.add(event, this.#last ?? 0, this.#lastTimeMs, isTimed)
    switch (kind) {
      case 'held':
        return { kind, released }
      case 'duplicate':
        return { kind }
      case 'second':
        return { kind: this.#wasObserved(event) ? 'second' : 'duplicate' }
      case 'reset':
        return this.#epoch === EPOCH_MAX ? { kind: 'exhausted' } : this.#reset()
    }
  }

  /** One connection has shown a new sequence; the others may have delivered parts of it. It begins with its first id. */
  #reset(): Verdict<Event> {
    const suspects = this.#evidence.takeSuspects()
    const byId = new Map(suspects.map((event) => [event.id, event]))
    const events = [...byId.values()].sort((left, right) => left.id - right.id)
    const [first] = events
    if (first === undefined) throw new Error('A reset without events')
    const last = this.#last ?? 0
    const lastTimeMs = this.#lastTimeMs
    const isFar = first.id < last - farIds(last) * 2
    this.#begin(this.#epoch + 1)
    for (const { id, timeMs } of events) this.#advance(id, timeMs)
    this.#ended = {
      last,
      lastTimeMs,
      fromId: isFar ? last - farIds(last) : Number.POSITIVE_INFINITY,
      untilMs: this.#lastTimeMs + REORDERED_MS,
    }
    this.#lastTradeId = Math.max(...events.map(lastTradeIdOf))
    this.#observedFrom = first.id
    // All but the one that has just arrived were held.
    return { kind: 'reset', events, missing: [...this.#holes], released: suspects.length - events.length }
  }

  /** A connection that lags still delivers ids of before. */
  #isOf({ lastTimeMs, fromId, untilMs }: EndedSequence, { id, timeMs }: Event): boolean {
    return timeMs <= lastTimeMs || (id >= fromId && id > (this.#last ?? id) + 1 && timeMs < untilMs)
  }

  #wasObserved({ id }: Event): boolean {
    return this.#observedFrom !== null && id >= this.#observedFrom
  }
}

/** +∞ where it has none: nothing is known to be later. */
function lastTradeIdOf({ lastTradeId = -1 }: Observed): number {
  return lastTradeId < 0 ? Number.POSITIVE_INFINITY : lastTradeId
}
