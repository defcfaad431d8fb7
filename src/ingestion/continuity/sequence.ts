import { EPOCH_MAX } from '../../foundation/market/fields.ts'
import { type IdRange, normalise, subtract } from '../../foundation/market/id-ranges.ts'
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
 */
export class Sequence<Event extends Observed> {
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
  #holes: IdRange[] = []
  /** Null until an event contradicts the sequence. */
  #evidence: ResetEvidence<Event> | null = null
  /** The lowest id forwarded by {@link observe}; null before the first. */
  #observedFrom: number | null = null

  constructor(memory: SequenceMemory = { ...NOTHING, epoch: 0 }) {
    this.#begin(memory)
  }

  get memory(): SequenceMemory {
    const [epoch, first, last, last_time] = [this.#epoch, this.#first, this.#last, this.#lastTimeMs]
    return { epoch, first, last, last_time, holes: this.#holes }
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
    return this.#holes
  }

  observe(event: Event): Verdict<Event> {
    const { id, timeMs } = event
    if (this.#ended !== null && this.#isOf(this.#ended, event)) {
      const isUnseen = id > this.#ended.last && this.#evidence?.isNew(event) === true
      return { kind: isUnseen ? 'over' : 'duplicate' }
    }
    if (this.#last === null || id > this.#last) {
      const released = this.#evidence?.refute(event) ?? 0
      this.#observedFrom ??= id
      const before = Number.isFinite(this.#lastTradeId) ? this.#lastTradeId : 0
      const missing = this.#advance(id, timeMs)
      // Trade ids may restart while aggregate ids do not: earlier repeats then have higher trade
      // ids and remain repeats.
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
   * Returns held events that turned out to be second events under an id, each once: they are later
   * in time than all before them, so no repeats, yet the old sequence continued. Leaves out ids
   * that another instance may have forwarded, because their last trade time may be unknown here.
   */
  takeSecond(): readonly Event[] {
    return this.#evidence?.takeSecond().filter((event) => this.#wasObserved(event)) ?? []
  }

  /** Records a forwarded id of an epoch, in any order. */
  record(epoch: number, id: number, timeMs: number): void {
    if (!this.#follow(epoch)) return
    if (this.#last === null || id > this.#last) this.#advance(id, timeMs)
    else if (this.#first !== null && id < this.#first)
      this.#extendDown({ from: id + 1, to: this.#first - 1 }, id)
    else this.fill({ from: id, to: id }, timeMs)
  }

  /**
   * Records an id that was imported, in any order. Ids below the first were never expected: a day from
   * before the recording must not make those in between missing.
   */
  recordImported(epoch: number, id: number, timeMs: number): void {
    if (epoch === this.#epoch && this.#last !== null && id >= (this.#first ?? 0))
      this.record(epoch, id, timeMs)
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
    this.#holes = normalise([...this.#holes, range])
    this.#first = Math.min(this.#first ?? range.from, range.from)
  }

  /** Notes that the exchange has ids up to `to`. @returns the new hole @param timeMs 0 if unknown */
  expect(to: number, timeMs: number): IdRange | null {
    if (this.#last === null || to <= this.#last) return null
    const missing = { from: this.#last + 1, to }
    this.#holes.push(missing)
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
    this.#holes = normalise([...this.#holes, ...missing])
    this.#last = Math.max(this.#last, to)
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#noteTime(to, timeMs)
  }

  /** Makes forwarded ids missing again. */
  lose(epoch: number, range: IdRange): void {
    if (epoch !== this.#epoch || this.#last === null) return
    const known = { from: range.from, to: Math.min(range.to, this.#last) }
    if (known.from <= known.to)
      this.#holes.splice(0, Number.POSITIVE_INFINITY, ...normalise([...this.#holes, known]))
  }

  /** Extends the sequence to lower ids; `missing` of them were not forwarded. */
  #extendDown(missing: IdRange, first: number): void {
    if (missing.from <= missing.to) this.#holes.unshift(missing)
    this.#first = first
  }

  /** Returns the ids of a range that lie in holes. */
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
   * Removes ids from the holes that were forwarded another way. Returns how many.
   * @param timeMs of the trade. A ledger row may have raised the last id without a time; without
   *   this time, repeats of events since then would look like a new sequence
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

  /** Returns the index of the first hole that begins after an id. */
  #firstHoleBehind(id: number): number {
    let low = 0
    for (let high = this.#holes.length; low < high; ) {
      const middle = (low + high) >> 1
      if ((this.#holes[middle]?.from ?? 0) > id) high = middle
      else low = middle + 1
    }
    return low
  }

  #begin({ epoch, first = null, last, last_time, holes }: SequenceMemory): void {
    this.#epoch = epoch
    this.#first = first
    this.#last = last
    this.#lastTimeMs = last_time
    this.#timedTo = last ?? -1
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#observedFrom = null
    this.#ended = null
    this.#holes = [...holes]
  }

  /** @returns false if it knows a newer epoch */
  #follow(epoch: number): boolean {
    if (epoch > this.#epoch) this.#begin({ ...NOTHING, epoch })
    return epoch === this.#epoch
  }

  /** Raises the last id; skipped ids become a hole. */
  #advance(id: number, timeMs: number): IdRange | null {
    const missing = this.#last === null || id === this.#last + 1 ? null : { from: this.#last + 1, to: id - 1 }
    if (this.#last === null) {
      // Ids from the first event on arrive after it, or later events show that they are missing.
      this.#holes = subtract(this.#holes, [{ from: id, to: Number.MAX_SAFE_INTEGER }])
      this.#first = Math.min(this.#first ?? id, id)
    }
    if (missing !== null) this.#holes.push(missing)
    this.#last = id
    this.#lastTradeId = Number.POSITIVE_INFINITY
    this.#noteTime(id, timeMs)
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
    this.#evidence ??= new ResetEvidence()
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
    const events = [...byId.values()].sort((left, right) => left.id - right.id)
    const [first] = events
    if (first === undefined) throw new Error('A reset without events')
    const last = this.#last ?? 0
    const lastTimeMs = this.#lastTimeMs
    const isFar = first.id < last - farIds(last) * 2
    this.#follow(this.#epoch + 1)
    for (const { id, timeMs } of events) this.#advance(id, timeMs)
    this.#ended = {
      last,
      lastTimeMs,
      fromId: isFar ? last - farIds(last) : Number.POSITIVE_INFINITY,
      untilMs: this.#lastTimeMs + REORDERED_MS,
    }
    this.#lastTradeId = Math.max(...events.map(lastTradeIdOf))
    this.#observedFrom = first.id
    // All except the one that has just arrived were held.
    return { kind: 'reset', events, missing: [...this.#holes], released: suspects.length - events.length }
  }

  /** Whether an event belongs to the ended sequence: a lagging connection still delivers old ids. */
  #isOf({ lastTimeMs, fromId, untilMs }: EndedSequence, { id, timeMs }: Event): boolean {
    return timeMs <= lastTimeMs || (id >= fromId && id > (this.#last ?? id) + 1 && timeMs < untilMs)
  }

  #wasObserved({ id }: Event): boolean {
    return this.#observedFrom !== null && id >= this.#observedFrom
  }
}

/** +∞ if it has none, so that no later one is assumed. */
function lastTradeIdOf({ lastTradeId = -1 }: Observed): number {
  return lastTradeId < 0 ? Number.POSITIVE_INFINITY : lastTradeId
}
