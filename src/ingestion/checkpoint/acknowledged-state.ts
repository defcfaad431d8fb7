import { deleteTopic, keyOf } from '../../foundation/kafka/partition.ts'
import type { BaseOffset } from '../../foundation/kafka/record-sender.ts'
import {
  bySequencedType,
  isSequenced,
  isTradeType,
  SEQUENCED_TYPES,
  type SequencedType,
  type StreamType,
} from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import { type IdRange, normalise } from '../../foundation/market/id-ranges.ts'
import { setNewest } from '../../foundation/runtime/bounded-map.ts'
import type { QuoteMemory } from '../continuity/continuity.ts'
import { asIdGap, type GapSequence, type IdGap, rangeOf } from '../continuity/gap-rows.ts'
import { Sequence, type SequenceMemory } from '../continuity/sequence.ts'
import type { EventMark, OutgoingMessage } from '../messages/message.ts'
import type { Checkpoint } from './checkpoint.ts'

/** Ledger rows of a symbol that a checkpoint keeps until Kafka takes them: about 400 bytes each. */
const PENDING_MAX = 1000
/** The limit over all symbols, about 20 MiB. */
const PENDING_ALL_MAX = 50_000

/** Most recently closed rows over all symbols: an older instance may still enter them as open. */
const CLOSED_MAX = 10_000

interface EndedSequence {
  readonly type: SequencedType
  readonly sequence: Sequence<never>
}

interface SymbolState {
  readonly sequences: Record<SequencedType, Sequence<never>>
  /** Sequences of earlier epochs. Kafka may lack the rows of their holes. */
  readonly ended: EndedSequence[]
  bookTicker: QuoteMemory | null
  readonly openGaps: Map<string, IdGap>
  /** The newest revision of published rows that Kafka does not have yet, by gap id. */
  readonly pendingGaps: Map<string, Gap>
  /** Whether something was acknowledged since the last checkpoint. */
  changed: boolean
}

/** The part of a checkpoint that describes a symbol. */
export type SymbolMemory = Pick<Checkpoint, StreamType | 'open_gaps' | 'pending_gaps'>

/**
 * Tracks what Kafka has: events and ledger rows by symbol, and the offset of each partition.
 * Acknowledgements build it while ingestion runs; a checkpoint and the messages after it build it
 * at start. Any order gives the same result. Specification: C1, C2.
 */
export class AcknowledgedState {
  readonly #symbols = new Map<string, SymbolState>()
  readonly #nextOffsets = new Map<string, number>()
  /** Revisions at which ledger rows were closed, by gap id; at most {@link CLOSED_MAX}. */
  readonly #closedRevisions = new Map<string, number>()
  /** Rows of all symbols that Kafka does not have yet. */
  #pending = 0
  /** Published rows that are in no checkpoint, because more wait for Kafka than one holds. */
  unsavedRows = 0

  restore(symbol: string, memory: SymbolMemory): void {
    const { bookTicker, open_gaps, pending_gaps } = memory
    this.#pending += pending_gaps.length - (this.#symbols.get(symbol)?.pendingGaps.size ?? 0)
    this.#symbols.set(symbol, {
      sequences: bySequencedType((type) => new Sequence<never>(memory[type] ?? undefined)),
      ended: [],
      bookTicker,
      openGaps: new Map(open_gaps.flatMap(asIdGap).map((gap) => [gap.gap_id, gap])),
      pendingGaps: new Map(pending_gaps.map((gap) => [gap.gap_id, gap])),
      changed: false,
    })
  }

  /** Adds rows that were open for an earlier instance. They are published again unless the topic shows them. */
  hadOpen(rows: readonly Gap[]): void {
    for (const row of rows) {
      this.gap(row)
      this.published(row)
    }
  }

  /**
   * Adds the range that an earlier instance had.
   * @param lostOf at most so many of the last events of a type are lost
   */
  hadReached(symbol: string, memory: SymbolMemory, lostOf: (type: SequencedType) => number): void {
    const state = this.#stateOf(symbol)
    for (const type of SEQUENCED_TYPES) {
      const reached = memory[type]
      if (reached === null || reached.last === null) continue
      const { epoch, first, last, holes } = reached
      const lost = lostOf(type)
      // An order book update may cover any number of ids.
      const from = isTradeType(type) || lost === 0 ? Math.max(first ?? 0, last - lost + 1) : (first ?? last)
      this.#begun(state, type, epoch).hadReached(epoch, { from, to: last }, holes, reached.last_time)
    }
    state.bookTicker ??= memory.bookTicker
  }

  /** Starts a newly listed symbol: all its ids from 0 on are expected. */
  beginAtFirstId(symbol: string, types: readonly SequencedType[]): void {
    const state = this.#stateOf(symbol)
    for (const type of types) if (state.sequences[type].last === null) state.sequences[type].beginAtFirstId()
    state.changed = true
  }

  restoreOffset(topic: string, partition: number, nextOffset: number): void {
    this.#nextOffsets.set(keyOf({ topic, partition }), nextOffset)
  }

  /** Forgets the offsets of a recreated topic, which begins at 0. Events and gaps stay known. */
  forgetOffsets(topic: string): void {
    deleteTopic(this.#nextOffsets, topic)
  }

  /** @param next the offset after the messages of one partition; null if the broker no longer knows it */
  acknowledge(messages: readonly OutgoingMessage[], next: BaseOffset | null): void {
    for (const { mark, gap } of messages) {
      if (mark !== null) this.event(mark)
      if (gap !== undefined) this.gap(gap)
    }
    if (next !== null) this.restoreOffset(next.topic, next.partition, next.offset)
  }

  event({ symbol, type, epoch, firstId, id, timeMs, clockAheadMs }: EventMark): void {
    const state = this.#stateOf(symbol)
    state.changed = true
    if (isSequenced(type)) this.#begun(state, type, epoch).record(epoch, { from: firstId, to: id }, timeMs)
    // Takes the last quote, not the one with the highest time: the clock may have been set back.
    else if (type === 'bookTicker') {
      const clock_ahead = clockAheadMs === undefined ? (state.bookTicker?.clock_ahead ?? null) : clockAheadMs
      state.bookTicker = { last_update_id: id, last_receipt: timeMs, clock_ahead }
    }
  }

  /** Records a trade of a daily file, which `tapeline history import` has published. */
  imported({ symbol, type, epoch, id, timeMs }: EventMark): void {
    if (isSequenced(type)) known(this.#stateOf(symbol), type, epoch).recordImported(epoch, id, timeMs)
  }

  /** Records a ledger row that was sent to Kafka. */
  published(gap: Gap): void {
    const state = this.#stateOf(gap.symbol)
    state.changed = true
    if (!state.pendingGaps.has(gap.gap_id)) this.#pending++
    state.pendingGaps.set(gap.gap_id, gap)
  }

  /** Like {@link published}, unless too many rows wait for Kafka. @returns false if it is not remembered */
  publishedNow(gap: Gap): boolean {
    const { pendingGaps } = this.#stateOf(gap.symbol)
    const hasRoom = pendingGaps.size < PENDING_MAX && this.#pending < PENDING_ALL_MAX
    if (!hasRoom && !pendingGaps.has(gap.gap_id)) {
      this.unsavedRows++
      return false
    }
    this.published(gap)
    return true
  }

  /** Records a ledger row that Kafka has. @param mayBeLost Kafka may have lost the ids since */
  gap(gap: Gap, mayBeLost = false): void {
    const state = this.#stateOf(gap.symbol)
    state.changed = true
    const pending = state.pendingGaps.get(gap.gap_id)
    if (pending !== undefined && pending.revision <= gap.revision) {
      state.pendingGaps.delete(gap.gap_id)
      this.#pending--
    }
    // Its ids are in other rows now.
    const emptied = gap.from_id === null ? state.openGaps.get(gap.gap_id) : undefined
    if (emptied !== undefined && emptied.revision < gap.revision) this.#close(state, gap)
    for (const one of asIdGap(gap)) {
      const range = rangeOf(one)
      // Only a first row proves an epoch: a request may name one that is unknown here.
      const sequence =
        one.revision === 1 && one.status !== 'filled'
          ? this.#begun(state, one.event_type, one.epoch)
          : known(state, one.event_type, one.epoch)
      // If an older instance opens a gap that a newer one has closed, the newer one's row is valid.
      const isOutdated = one.revision <= (this.#closedRevisions.get(one.gap_id) ?? 0)
      const isReopened = one.status === 'open' && one.revision > 1 && !isOutdated
      if (isReopened) sequence.reopen(one.epoch, range)
      else if (one.status !== 'filled' && one.epoch <= sequence.epoch) sequence.lack(one.epoch, range)
      // Ids that Kafka has, or will never get, must not be requested again.
      const isSettled = one.status === 'unrecoverable' || (one.status === 'filled' && !mayBeLost)
      if (isSettled && sequence.epoch === one.epoch) sequence.fill(range)
      const open = state.openGaps.get(one.gap_id)
      if (isOutdated || (open !== undefined && open.revision >= one.revision)) continue
      if (one.status === 'open') state.openGaps.set(one.gap_id, one)
      else this.#close(state, one)
    }
  }

  /** Makes ids of a gap missing again, whether Kafka has them or not. */
  reopen(gap: IdGap): void {
    known(this.#stateOf(gap.symbol), gap.event_type, gap.epoch).reopen(gap.epoch, rangeOf(gap))
  }

  /** Returns the holes of sequences that a newer epoch has ended, and forgets those sequences. */
  takeEnded(symbol: string): { readonly sequence: GapSequence; readonly holes: readonly IdRange[] }[] {
    return this.#stateOf(symbol)
      .ended.splice(0)
      .map(({ type, sequence }) => ({
        sequence: { symbol, event_type: type, epoch: sequence.epoch },
        holes: sequence.holes,
      }))
  }

  /** Like {@link known}; a newer epoch begins a sequence. */
  #begun(state: SymbolState, type: SequencedType, epoch: number): Sequence<never> {
    const sequence = state.sequences[type]
    if (epoch === sequence.epoch) return sequence
    if (epoch > sequence.epoch) {
      if (sequence.last !== null) state.ended.push({ type, sequence })
      state.sequences[type] = new Sequence<never>({ epoch, last: null, last_time: 0, holes: [] })
    }
    return known(state, type, epoch)
  }

  #close({ openGaps }: SymbolState, { gap_id, revision }: Gap): void {
    openGaps.delete(gap_id)
    setNewest(this.#closedRevisions, gap_id, revision, CLOSED_MAX)
  }

  nextOffset(topic: string, partition: number): number {
    return this.#nextOffsets.get(keyOf({ topic, partition })) ?? 0
  }

  get symbols(): IterableIterator<string> {
    return this.#symbols.keys()
  }

  /** Returns the state of a symbol for its checkpoint, and marks it unchanged. */
  snapshot(symbol: string): SymbolMemory {
    const state = this.#stateOf(symbol)
    state.changed = false
    return {
      ...bySequencedType((type) => memoryOf(state.sequences[type])),
      bookTicker: state.bookTicker,
      open_gaps: [...state.openGaps.values()],
      pending_gaps: [...state.pendingGaps.values()].slice(0, PENDING_MAX),
    }
  }

  pendingGaps(symbol: string): readonly Gap[] {
    return [...this.#stateOf(symbol).pendingGaps.values()]
  }

  /** Marks a symbol as changed again, because its snapshot was not written. */
  noteUnwritten(symbol: string): void {
    this.#stateOf(symbol).changed = true
  }

  hasChanged(symbol: string): boolean {
    return this.#stateOf(symbol).changed
  }

  #stateOf(symbol: string): SymbolState {
    const known = this.#symbols.get(symbol)
    if (known !== undefined) return known
    const sequences = bySequencedType(() => new Sequence<never>())
    const rows = { openGaps: new Map(), pendingGaps: new Map() }
    const state: SymbolState = { sequences, ended: [], bookTicker: null, ...rows, changed: false }
    this.#symbols.set(symbol, state)
    return state
  }
}

/** Returns the sequence of an epoch, or the newest if there is none. */
function known({ sequences, ended }: SymbolState, type: SequencedType, epoch: number): Sequence<never> {
  const isOf = (one: EndedSequence) => one.type === type && one.sequence.epoch === epoch
  return ended.find(isOf)?.sequence ?? sequences[type]
}

/** Returns null for a sequence without ids. */
function memoryOf({ memory }: Sequence<never>): SequenceMemory | null {
  return memory.last === null && memory.holes.length === 0
    ? null
    : { ...memory, holes: normalise(memory.holes) }
}
