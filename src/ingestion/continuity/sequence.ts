import { EPOCH_MAX } from '../../foundation/market/fields.ts'
import { type IdRange, normalise, subtract } from '../../foundation/market/id-ranges.ts'
import { Holes } from './holes.ts'
import { farIds, REORDERED_MS, ResetEvidence } from './reset-evidence.ts'
import type { Observed, Verdict } from './verdict.ts'

/** A sequence ended by a reset, whose events a lagging connection may still deliver. */
interface EndedSequence {
  readonly last: number
  readonly lastTimeMs: number
  /** Ids from here on cannot be new ones: they belong to this sequence until the time `untilMs`. */
  readonly fromId: number
  readonly untilMs: number
}

/** The memory of a sequence, in the format of checkpoints. */
export interface SequenceMemory {
  readonly epoch: number
  /** The lowest id that was forwarded or is missing; null before the first, and if unknown. */
  readonly first?: number | null | undefined
  /** The highest id forwarded; null before the first. */
  readonly last: number | null
  /** 0 if unknown. */
  readonly last_time: number
  /** Ids below the last that were not forwarded, in order. */
  readonly holes: readonly IdRange[]
}

const NOTHING = { last: null, last_time: 0, holes: [] }

/**
 * Tracks the ids of one symbol, event type and epoch. Ids are contiguous at the exchange, so a jump
 * is a gap. Only forwarded ids are duplicates, so an event in a hole passes whenever it arrives.
 * An event may cover a range of ids; it is a duplicate only if all of them were forwarded.
 */
export class Sequence<Event extends Observed> {
  readonly #ofRanges: boolean
  #epoch = 0
  #first: number | null = null
  #last: number | null = null
  #lastTimeMs = 0
  /** The highest id that the last trade time covers. Higher ids are known only from the ledger. */
  #timedTo = -1
  /** The highest trade id in the aggTrades observed; +∞ if unknown, and for trades. */
  #lastTradeId = Number.POSITIVE_INFINITY
  /** The sequence before a reset that this process recognised. */
  #ended: EndedSequence | null = null
  #holes = new Holes([])
  /** Null until an event contradicts the sequence. */
  #evidence: ResetEvidence<Event> | null = null
  /** The lowest id forwarded by {@link observe}; null before the first. */
  #observedFrom: number | null = null
  /** From here on no id is missing; null before the first event that shows it. */
  #joinedFrom: number | null = null

  /** @param ofRanges whether events cover ranges of ids, which connections may cut differently */
  constructor(memory: SequenceMemory = { ...NOTHING, epoch: 0 }, ofRanges = false) {
    this.#ofRanges = ofRanges
    this.#begin(memory)
  }

  get memory(): SequenceMemory {
    const [epoch, first, last, last_time] = [this.#epoch, this.#first, this.#last, this.#lastTimeMs]
    return { epoch, first, last, last_time, holes: this.holes }
  }

  get epoch(): number {
    return this.#epoch
  }

  get last(): number | null {
    return this.#last
  }

  get lastTimeMs(): number {
    return this.#lastTimeMs
  }

  get holes(): readonly IdRange[] {
    return this.#holes.ranges
  }

  /** The first id since which this process has forwarded all; null before its first event. */
  get joinedFrom(): number | null {
    return this.#joinedFrom
  }

  observe(event: Event): Verdict<Event> {
    const { firstId, id, timeMs } = event
    if (this.#ended !== null && this.#isOf(this.#ended, event)) {
      const isUnseen = id > this.#ended.last && this.#evidence?.isNew(event) === true
      return { kind: isUnseen ? 'over' : 'duplicate' }
    }
    if (this.#last === null || id > this.#last) {
      const released = this.#evidence?.refute(event) ?? 0
      if (this.#observedFrom === null) this.#observedFrom = this.#joinedFrom = firstId
      const before = Number.isFinite(this.#lastTradeId) ? this.#lastTradeId : 0
      const missing = this.#advance(firstId, id, timeMs)
      // Trade ids may restart while aggregate ids do not: earlier repeats then have higher trade
      // ids and remain repeats.
      this.#lastTradeId = Math.max(before, lastTradeIdOf(event))
      return { kind: 'next', missing, released }
    }
    if (this.fill({ from: firstId, to: id }, timeMs) > 0) return { kind: 'late' }
    if (timeMs > this.#lastTimeMs) return this.#suspect(event)
    if (this.#ended !== null && this.#first !== null && firstId < this.#first) {
      const missing = { from: id + 1, to: this.#first - 1 }
      this.#extendDown(missing, firstId)
      this.#observedFrom = Math.min(this.#observedFrom ?? firstId, firstId)
      return { kind: 'next', missing: missing.from > missing.to ? null : missing, released: 0 }
    }
    const { lastTradeId = -1 } = event
    if (lastTradeId <= this.#lastTradeId) return { kind: 'duplicate' }
    this.#lastTradeId = lastTradeId
    return { kind: 'second' }
  }

  /**
   * Returns held events that turned out to be second events under an id, each once: they are later
   * in time than all before them, so no repeats, yet the old sequence continued. Leaves out ids
   * that another instance may have forwarded, because their last trade time may be unknown here.
   */
  takeSecond(): readonly Event[] {
    return this.#evidence?.takeSecond().filter((event) => this.#wasObserved(event)) ?? []
  }

  /** Records forwarded ids of an epoch, in any order. */
  record(epoch: number, { from, to }: IdRange, timeMs: number): void {
    if (!this.#follow(epoch)) return
    if (this.#last === null || to > this.#last) this.#advance(from, to, timeMs)
    else this.fill({ from, to }, timeMs)
    if (this.#first !== null && from < this.#first)
      this.#extendDown({ from: to + 1, to: this.#first - 1 }, from)
  }

  /**
   * Records an id that was imported, in any order. Ids below the first were never expected: a day from
   * before the recording must not make those in between missing.
   */
  recordImported(epoch: number, id: number, timeMs: number): void {
    if (epoch === this.#epoch && this.#last !== null && id >= (this.#first ?? 0))
      this.record(epoch, { from: id, to: id }, timeMs)
  }

  /** Expects all ids from 0 on. */
  beginAtFirstId(): void {
    this.#first = 0
    this.#last = -1
  }

  /** Makes ids missing again, whether they were forwarded before or not. */
  reopen(epoch: number, range: IdRange): void {
    if (epoch !== this.#epoch && (this.#last !== null || !this.#follow(epoch))) return
    // Without a last id, it is unknown whether ids after the range are missing: the next event
    // decides.
    if (this.#last !== null) this.expect(range.to, 0)
    this.#holes.add([range])
    if (this.#joinedFrom !== null) this.#joinedFrom = Math.max(this.#joinedFrom, range.to + 1)
    this.#first = Math.min(this.#first ?? range.from, range.from)
  }

  /** Notes that the exchange has ids up to `to`. @returns the new hole @param timeMs 0 if unknown */
  expect(to: number, timeMs: number): IdRange | null {
    if (this.#last === null || to <= this.#last) return null
    const missing = { from: this.#last + 1, to }
    this.#holes.append(missing)
    this.#last = to
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#noteTime(to, timeMs)
    return missing
  }

  /** Notes that ids of a range are missing. Those not known to be there become holes. */
  lack(epoch: number, { from, to }: IdRange): void {
    if (!this.#follow(epoch)) return
    // These ids are known only from a request to reopen them.
    if (this.#last === null && this.#first !== null) {
      this.reopen(epoch, { from, to })
      return
    }
    if (this.#last === null) {
      // Ids before the range are not known to be missing.
      this.#first = from
      this.#last = from - 1
    }
    // As above the last id: the ids in between are not known to be forwarded.
    if (this.#first !== null && from < this.#first) this.#extendDown({ from, to: this.#first - 1 }, from)
    this.expect(to, 0)
  }

  /** Notes that a range, except holes, was forwarded; its ids above the last one known may be missing. */
  hadReached(epoch: number, { from, to }: IdRange, holes: readonly IdRange[], timeMs: number): void {
    if (!this.#follow(epoch)) return
    if (this.#last === null) {
      this.#first = Math.min(this.#first ?? from, from)
      this.#last = from - 1
    }
    const missing = subtract(normalise([...holes, { from, to }]), [{ from: 0, to: this.#last }])
    this.#holes.add(missing)
    this.#last = Math.max(this.#last, to)
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#noteTime(to, timeMs)
  }

  /** Forgets holes from before the last call but one. For types of which nothing fills a hole later. */
  forgetOldHoles(): void {
    this.#holes.forgetOld(this.#last ?? -1)
  }

  /** Makes forwarded ids missing again. */
  lose(epoch: number, range: IdRange): void {
    if (epoch !== this.#epoch || this.#last === null) return
    const known = { from: range.from, to: Math.min(range.to, this.#last) }
    if (known.from > known.to) return
    if (this.#joinedFrom !== null) this.#joinedFrom = Math.max(this.#joinedFrom, known.to + 1)
    this.#holes.add([known])
  }

  /** Extends the sequence to lower ids; `missing` of them were not forwarded. */
  #extendDown(missing: IdRange, first: number): void {
    this.#holes.prepend(missing)
    this.#first = first
  }

  /** Returns the ids of a range that lie in holes. */
  holesIn(range: IdRange): IdRange[] {
    return this.#holes.within(range)
  }

  /**
   * Removes ids from the holes that were forwarded another way. Returns how many.
   * @param timeMs of the trade. A ledger row may have raised the last id without a time; without
   *   this time, repeats of events since then would look like a new sequence
   */
  fill(range: IdRange, timeMs = 0): number {
    const filled = this.#holes.fill(range)
    if (filled > 0) this.#noteTime(range.to, timeMs)
    return filled
  }

  #begin({ epoch, first = null, last, last_time, holes }: SequenceMemory): void {
    this.#epoch = epoch
    this.#first = first
    this.#last = last
    this.#lastTimeMs = last_time
    this.#timedTo = last ?? -1
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#observedFrom = null
    this.#joinedFrom = null
    this.#ended = null
    this.#holes = new Holes(holes)
  }

  /** @returns false if it knows a newer epoch */
  #follow(epoch: number): boolean {
    if (epoch > this.#epoch) this.#begin({ ...NOTHING, epoch })
    return epoch === this.#epoch
  }

  /** Raises the last id to that of an event from `from` to `id`; skipped ids become a hole. */
  #advance(from: number, id: number, timeMs: number): IdRange | null {
    const last = this.#last
    const missing = last === null || from === last + 1 ? null : this.#skip(last, from)
    if (last === null) {
      // Ids from the first event on arrive after it, or later events show that they are missing.
      this.#holes.endBefore(from)
      this.#first = Math.min(this.#first ?? from, from)
    }
    this.#last = id
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#noteTime(id, timeMs)
    return missing
  }

  /** Handles an event that does not begin right after the last id. @returns the new hole, if it begins later */
  #skip(last: number, from: number): IdRange | null {
    // If it overlaps, the overlap may have been missing.
    if (from <= last) this.fill({ from, to: last })
    if (from <= last) return null
    const missing = { from: last + 1, to: from - 1 }
    this.#holes.append(missing)
    if (this.#joinedFrom !== null) this.#joinedFrom = from
    return missing
  }

  #noteTime(id: number, timeMs: number): void {
    if (timeMs === 0) return
    this.#timedTo = Math.max(this.#timedTo, id)
    // The later of two trades may have the earlier time, with which repeats would look like new ids.
    this.#lastTimeMs = Math.max(this.#lastTimeMs, timeMs)
  }

  /** Handles a forwarded id with a later time: a defect, or the start of a new sequence. */
  #suspect(event: Event): Verdict<Event> {
    const isTimed = event.id <= this.#timedTo
    this.#evidence ??= new ResetEvidence(this.#ofRanges)
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

  /** Begins a sequence that one connection has proven, with what others have delivered of it. */
  #reset(): Verdict<Event> {
    const suspects = this.#evidence?.takeSuspects() ?? []
    const byId = new Map(suspects.map((event) => [event.id, event]))
    const events = [...byId.values()].sort(
      (left, right) => left.firstId - right.firstId || left.id - right.id,
    )
    const [first] = events
    if (first === undefined) throw new Error('A reset without events')
    const last = this.#last ?? 0
    const lastTimeMs = this.#lastTimeMs
    const isFar = first.id < last - farIds(last) * 2
    this.#follow(this.#epoch + 1)
    for (const { firstId, id, timeMs } of events) this.record(this.#epoch, { from: firstId, to: id }, timeMs)
    this.#joinedFrom = 1 + (this.holes.at(-1)?.to ?? first.firstId - 1)
    this.#ended = {
      last,
      lastTimeMs,
      fromId: isFar ? last - farIds(last) : Number.POSITIVE_INFINITY,
      untilMs: this.#lastTimeMs + REORDERED_MS,
    }
    this.#lastTradeId = Math.max(...events.map(lastTradeIdOf))
    this.#observedFrom = first.firstId
    // All except the one that has just arrived were held.
    return { kind: 'reset', events, missing: [...this.holes], released: suspects.length - events.length }
  }

  /** Whether an event belongs to the ended sequence: a lagging connection still delivers old ids. */
  #isOf({ lastTimeMs, fromId, untilMs }: EndedSequence, { firstId, id, timeMs }: Event): boolean {
    return timeMs <= lastTimeMs || (id >= fromId && firstId > (this.#last ?? id) + 1 && timeMs < untilMs)
  }

  #wasObserved({ id }: Event): boolean {
    return this.#observedFrom !== null && id >= this.#observedFrom
  }
}

/** +∞ if it has none, so that no later one is assumed. */
function lastTradeIdOf({ lastTradeId = -1 }: Observed): number {
  return lastTradeId < 0 ? Number.POSITIVE_INFINITY : lastTradeId
}
