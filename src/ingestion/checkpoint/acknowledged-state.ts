import type { BaseOffset } from '../../foundation/kafka/record-sender.ts'
import type { EventType } from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import { type IdRange, normalise } from '../../foundation/market/id-ranges.ts'
import { setNewest } from '../../foundation/runtime/bounded-map.ts'
import type { StreamMemory } from '../continuity/continuity.ts'
import { asIdGap, type IdGap } from '../continuity/gap-rows.ts'
import { Sequence } from '../continuity/sequence.ts'
import type { EventMark, OutgoingMessage } from '../messages/outgoing-message.ts'
import type { Checkpoint, SequenceMemory } from './checkpoint.ts'

/** Rows of a symbol that a checkpoint keeps until Kafka takes the ledger's topic again: about 400 bytes each. */
const PENDING_MAX = 1000
/** All symbols together: some 20 MiB. */
const PENDING_ALL_MAX = 50_000

/** Rows that were closed last, of all symbols: an older instance may still enter them as open. */
const CLOSED_MAX = 10_000

interface SymbolState {
  readonly trade: Sequence<never>
  readonly aggTrade: Sequence<never>
  quote: { lastUpdateId: number; lastReceiptMs: number; clockAheadMs: number | null } | null
  /** Rows of the ledger that are open, by gap id. */
  readonly openGaps: Map<string, IdGap>
  /** The newest revision of rows that were published and that Kafka does not have yet, by gap id. */
  readonly pendingGaps: Map<string, Gap>
  /** Something was acknowledged since the last checkpoint. */
  changed: boolean
}

/** What a checkpoint says of a symbol. */
export type SymbolMemory = Pick<
  Checkpoint,
  'trade' | 'aggTrade' | 'bookTicker' | 'open_gaps' | 'pending_gaps'
>

/**
 * What Kafka has, by symbol, and up to which offset of each partition: events, and rows of the ledger. It is built of
 * acknowledgements while ingestion runs, and of a checkpoint and the topics behind it when it starts: by the same
 * code, in any order, to the same end. A checkpoint may speak of nothing else. Specification: C1, C2.
 */
export class AcknowledgedState {
  readonly #symbols = new Map<string, SymbolState>()
  readonly #nextOffsets = new Map<string, number>()
  /** The revisions at which rows of the ledger were closed, by gap id; at most {@link CLOSED_MAX}. */
  readonly #closedRevisions = new Map<string, number>()
  /** Rows of all symbols that Kafka does not have yet. */
  #pending = 0
  /** Rows that were published, and that no checkpoint has, since more of them wait for Kafka than there is room for. */
  unsavedRows = 0

  /** Takes over a checkpoint. */
  restore(symbol: string, memory: SymbolMemory): void {
    const { bookTicker } = memory
    this.#pending += memory.pending_gaps.length - (this.#symbols.get(symbol)?.pendingGaps.size ?? 0)
    this.#symbols.set(symbol, {
      trade: sequenceOf(memory.trade),
      aggTrade: sequenceOf(memory.aggTrade),
      quote: bookTicker === null ? null : quoteOf(bookTicker),
      openGaps: new Map(memory.open_gaps.flatMap((gap) => asIdGap(gap).map((one) => [one.gap_id, one]))),
      pendingGaps: new Map(memory.pending_gaps.map((gap) => [gap.gap_id, gap])),
      changed: false,
    })
  }

  /** Rows of the ledger that were open for an earlier instance. Kafka may have lost them: it gets them again, unless it shows them. */
  hadOpen(rows: readonly Gap[]): void {
    for (const row of rows) {
      this.gap(row)
      this.published(row)
    }
  }

  /** An earlier instance had this; Kafka has lost some of it, at most so many of the trades, and they were the last. */
  hadReached(symbol: string, { trade, aggTrade, bookTicker }: SymbolMemory, lostTrades: number): void {
    const state = this.#stateOf(symbol)
    for (const [sequence, reached] of [
      [state.trade, trade],
      [state.aggTrade, aggTrade],
    ] as const) {
      if (reached === null || reached.last === null) continue
      const { epoch, first, last, holes } = reached
      const from = Math.max(first ?? 0, last - lostTrades + 1)
      sequence.hadReached(epoch, { from, to: last }, holes, reached.last_time)
    }
    if (bookTicker !== null) state.quote ??= quoteOf(bookTicker)
  }

  /** The exchange has listed a symbol: all its ids from 0 on are to be recorded. */
  beginAtFirstId(symbol: string, types: ReadonlyArray<'trade' | 'aggTrade'>): void {
    const state = this.#stateOf(symbol)
    for (const type of types) if (state[type].last === null) state[type].beginAtFirstId()
    state.changed = true
  }

  restoreOffset(topic: string, partition: number, nextOffset: number): void {
    this.#nextOffsets.set(`${topic}:${partition}`, nextOffset)
  }

  /** The topic was deleted and made again: its partitions begin at 0. The knowledge of events and gaps stays. */
  forgetOffsets(topic: string): void {
    for (const place of this.#nextOffsets.keys())
      if (place.startsWith(`${topic}:`)) this.#nextOffsets.delete(place)
  }

  /** Messages of one partition are acknowledged; the next offset after them, or null when the broker no longer knows it. */
  acknowledge(messages: readonly OutgoingMessage[], next: BaseOffset | null): void {
    for (const { mark, gap } of messages) {
      if (mark !== null) this.event(mark)
      if (gap !== undefined) this.gap(gap)
    }
    if (next !== null) this.restoreOffset(next.topic, next.partition, next.offset)
  }

  /** Kafka has an event. */
  event({ symbol, type, epoch, id, timeMs, clockAheadMs }: EventMark): void {
    const state = this.#stateOf(symbol)
    state.changed = true
    if (type !== 'bookTicker') state[type].record(epoch, id, timeMs)
    // The last that came, and not the highest time: the clock may have been set back.
    else {
      const aheadMs = clockAheadMs === undefined ? (state.quote?.clockAheadMs ?? null) : clockAheadMs
      state.quote = { lastUpdateId: id, lastReceiptMs: timeMs, clockAheadMs: aheadMs }
    }
  }

  /** A row of the ledger is on its way to Kafka. */
  published(gap: Gap): void {
    const state = this.#stateOf(gap.symbol)
    state.changed = true
    if (!state.pendingGaps.has(gap.gap_id)) this.#pending++
    state.pendingGaps.set(gap.gap_id, gap)
  }

  /**
   * As {@link published}, but a row is not remembered where too many wait for Kafka. It is sent all the same, and missing only if
   * this process ends before Kafka has it.
   *
   * @returns false when it is not remembered
   */
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

  /**
   * Kafka has a row of the ledger.
   *
   * @param mayBeLost Kafka may have lost the ids of a filled row since
   */
  gap(gap: Gap, mayBeLost = false): void {
    const state = this.#stateOf(gap.symbol)
    state.changed = true
    const pending = state.pendingGaps.get(gap.gap_id)
    if (pending !== undefined && pending.revision <= gap.revision) {
      state.pendingGaps.delete(gap.gap_id)
      this.#pending--
    }
    // Its ids are in other rows.
    const emptied = gap.from_id === null ? state.openGaps.get(gap.gap_id) : undefined
    if (emptied !== undefined && emptied.revision < gap.revision) {
      state.openGaps.delete(gap.gap_id)
      this.#noteClosed(gap)
    }
    for (const one of asIdGap(gap)) {
      const range = { from: one.from_id, to: one.to_id }
      const sequence = state[one.event_type]
      // An older instance opens what a newer one has closed: the row of the newer one stands.
      const isOutdated = one.revision <= (this.#closedRevisions.get(one.gap_id) ?? 0)
      const isReopened = one.status === 'open' && one.revision > 1 && !isOutdated
      if (isReopened) sequence.reopen(one.epoch, range)
      // Only a first row tells of an epoch: a request may be of one that is unknown here.
      else if (one.status !== 'filled' && (one.revision === 1 || one.epoch <= sequence.epoch))
        sequence.lack(one.epoch, range)
      // Ids that Kafka has, or will never have, are not to be looked for again.
      const isSettled = one.status === 'unrecoverable' || (one.status === 'filled' && !mayBeLost)
      if (isSettled && sequence.epoch === one.epoch) sequence.fill(range)
      const known = state.openGaps.get(one.gap_id)
      if (isOutdated || (known !== undefined && known.revision >= one.revision)) continue
      if (one.status === 'open') {
        state.openGaps.set(one.gap_id, one)
      } else {
        state.openGaps.delete(one.gap_id)
        this.#noteClosed(one)
      }
    }
  }

  #noteClosed({ gap_id, revision }: Gap): void {
    setNewest(this.#closedRevisions, gap_id, revision, CLOSED_MAX)
  }

  nextOffset(topic: string, partition: number): number {
    return this.#nextOffsets.get(`${topic}:${partition}`) ?? 0
  }

  /** The symbols of which something is known. */
  get symbols(): IterableIterator<string> {
    return this.#symbols.keys()
  }

  /** What holds now of a symbol, for its checkpoint; it counts as unchanged from here on. */
  snapshot(symbol: string): SymbolMemory {
    const state = this.#stateOf(symbol)
    state.changed = false
    const { quote } = state
    return {
      trade: memoryOf(state.trade),
      aggTrade: memoryOf(state.aggTrade),
      bookTicker:
        quote === null
          ? null
          : {
              last_update_id: quote.lastUpdateId,
              last_receipt: quote.lastReceiptMs,
              clock_ahead: quote.clockAheadMs,
            },
      open_gaps: [...state.openGaps.values()],
      pending_gaps: [...state.pendingGaps.values()].slice(0, PENDING_MAX),
    }
  }

  /** Rows that Kafka does not have yet. */
  pendingGaps(symbol: string): readonly Gap[] {
    return [...this.#stateOf(symbol).pendingGaps.values()]
  }

  /** The snapshot has not become a checkpoint. */
  noteUnwritten(symbol: string): void {
    this.#stateOf(symbol).changed = true
  }

  hasChanged(symbol: string): boolean {
    return this.#stateOf(symbol).changed
  }

  #stateOf(symbol: string): SymbolState {
    const known = this.#symbols.get(symbol)
    if (known !== undefined) return known
    const state: SymbolState = {
      trade: new Sequence<never>(),
      aggTrade: new Sequence<never>(),
      quote: null,
      openGaps: new Map(),
      pendingGaps: new Map(),
      changed: false,
    }
    this.#symbols.set(symbol, state)
    return state
  }
}

/** The topics of trades and quotes are read one after the other, in either order. */
/** The streams of a symbol that have a memory. */
export function rememberedTypes({ trade, aggTrade, bookTicker }: SymbolMemory): EventType[] {
  const known = { trade, aggTrade, bookTicker }
  return (['trade', 'aggTrade', 'bookTicker'] as const).filter((type) => known[type] !== null)
}

function quoteOf(memory: NonNullable<Checkpoint['bookTicker']>): NonNullable<SymbolState['quote']> {
  return {
    lastUpdateId: memory.last_update_id,
    lastReceiptMs: memory.last_receipt,
    clockAheadMs: memory.clock_ahead,
  }
}

function sequenceOf(memory: SequenceMemory | null): Sequence<never> {
  return new Sequence<never>(memory === null ? undefined : { ...memory, lastTimeMs: memory.last_time })
}

function memoryOf(sequence: Sequence<never>): SequenceMemory | null {
  const { epoch, first, last, lastTimeMs } = sequence
  if (last === null && sequence.holes.length === 0) return null
  const holes: IdRange[] = normalise(sequence.holes)
  return { epoch, first, last, last_time: lastTimeMs, holes }
}

/** What continuity takes over of a stream. */
export function streamMemory(memory: SymbolMemory, type: EventType): StreamMemory {
  const { bookTicker } = memory
  if (type === 'bookTicker') {
    return {
      epoch: 0,
      first: null,
      last: bookTicker?.last_update_id ?? null,
      lastTimeMs: bookTicker?.last_receipt ?? 0,
      holes: [],
      clockAheadMs: bookTicker?.clock_ahead ?? null,
    }
  }
  const sequence = memory[type]
  return {
    epoch: sequence?.epoch ?? 0,
    first: sequence?.first ?? null,
    last: sequence?.last ?? null,
    lastTimeMs: sequence?.last_time ?? 0,
    holes: sequence?.holes ?? [],
    clockAheadMs: null,
  }
}
