import {
  declarationOf,
  isSequenced,
  isTradeType,
  OF_ENDED_IDS,
  SECOND_UNDER_ID,
  type SequencedType,
  type StreamType,
  streamName,
} from '../../foundation/market/event.ts'
import { EPOCH_MAX } from '../../foundation/market/fields.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { GapCause } from '../../foundation/market/gap-causes.ts'
import { type IdRange, subtract } from '../../foundation/market/id-ranges.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import type { ClockStep } from '../messages/receipt-clock.ts'
import { addSteps, windowOfStep } from './clock-window.ts'
import { type GapLedger, REASON_DEPTH, REASON_RESET } from './gap-ledger.ts'
import { type IdGap, isTradeGap, rangeOf } from './gap-rows.ts'
import { QuoteSequence } from './quote-sequence.ts'
import { Sequence, type SequenceMemory } from './sequence.ts'
import type { Observed } from './verdict.ts'

/** The fields of an event that continuity uses; `receiptMs` is its stamp. */
export interface StreamEvent extends Observed {
  readonly stream: string
  readonly symbol: string
  readonly type: StreamType
  readonly receiptMs: number
  /** The outage that a quote ends; null for the first quote of its stream; absent for others. */
  outage?: Gap | null
}

/** The last quote of a stream, in the format of checkpoints. */
export interface QuoteMemory {
  readonly last_update_id: number
  readonly last_receipt: number
  /** How far that receipt's clock was ahead of the exchange's, in milliseconds; null if unknown. */
  readonly clock_ahead: number | null
}

/** A clock that is back by more than this between two instances was set; less may be slewing. */
const SET_BACK_MS = 1000

const FORGET_EVERY_MS = 60_000

/** Two measurements against the exchange's time differ by less, unless the clock was set. */
const MEASURED_STEP_MS = 5000

interface StreamState<Event extends StreamEvent> {
  readonly symbol: string
  readonly type: StreamType
  readonly sequence: Sequence<Event>
  readonly quotes: QuoteSequence
  /** Receipt of the last event; null before the first. */
  lastReceiptMs: number | null
  /** Why events may be missing before the next one. */
  interruption: GapCause | null
  /** How the wall clock was set since the last event; null if it was not. */
  clockStep: ClockStep | null
  /** Set if the last receipt is an earlier instance's, whose clock may have differed from ours. */
  restored: QuoteMemory | null
}

/** Decides which events are forwarded, duplicates or missing. Specification: S, and Q for bookTicker. */
export class Continuity<Event extends StreamEvent> {
  readonly #ledger: GapLedger
  readonly #clockAheadMs: () => number | null
  readonly #streams = new Map<string, StreamState<Event>>()
  #forgottenAtMs = Number.NEGATIVE_INFINITY
  duplicates = 0
  held = 0
  /** Events without a place in their sequence, for the caller of {@link observe} to take. */
  rejected: Array<{ readonly event: Event; readonly epoch: number; readonly reason: string }> = []

  /** @param clockAheadMs how far the clock is ahead of the exchange's; null if unknown */
  constructor(ledger: GapLedger, clockAheadMs: () => number | null = () => null) {
    this.#ledger = ledger
    this.#clockAheadMs = clockAheadMs
  }

  /** Restores a stream with contiguous ids; holes without an open gap become gaps. @param cause of later ones */
  restore(symbol: string, type: SequencedType, memory: SequenceMemory, cause: GapCause = 'restart'): void {
    this.#begin(symbol, type, { sequence: sequenceOf(type, memory), interruption: cause })
  }

  restoreQuotes(symbol: string, restored: QuoteMemory): void {
    const { last_update_id, last_receipt: lastReceiptMs } = restored
    const quotes = new QuoteSequence(last_update_id)
    this.#begin(symbol, 'bookTicker', { quotes, lastReceiptMs, interruption: 'restart', restored })
  }

  /** Returns the events to forward now, in order; several when a new sequence is recognised. */
  observe(event: Event): readonly Event[] {
    const state = this.#stateOf(event)
    const forwarded = isSequenced(event.type)
      ? this.#observeId(state, event)
      : this.#observeQuote(state, event)
    if (forwarded.length > 0) {
      state.lastReceiptMs = event.receiptMs
      state.interruption = null
      state.clockStep = null
      state.restored = null
    }
    return forwarded
  }

  /** Marks streams of a closed connection: events may be missing before their next one. */
  interrupted(streams: readonly string[], cause: GapCause): void {
    for (const stream of streams) {
      const state = this.#streams.get(stream)
      if (state !== undefined) state.interruption ??= cause
    }
  }

  /** Notes a clock step: receipts around it cannot be compared, and events may be missing. */
  clockStepped({ fromMs, toMs }: ClockStep): void {
    const aheadMs = this.#clockAheadMs() ?? 0
    // After a suspend, a clock that was ahead may have gone back by more than the step shows.
    const backMs = Math.max(0, fromMs - toMs, aheadMs > MEASURED_STEP_MS ? aheadMs : 0)
    for (const state of this.#streams.values()) {
      state.interruption = 'clock'
      state.clockStep = addSteps(state.clockStep, { fromMs, toMs, backMs })
    }
  }

  /** Forgets old quote ids, and ids that nothing can fill, to bound the memory. Call it about every second. */
  forgetOld(nowMs: number): void {
    if (nowMs - this.#forgottenAtMs < FORGET_EVERY_MS) return
    this.#forgottenAtMs = nowMs
    for (const { type, quotes, sequence } of this.#streams.values()) {
      if (!isSequenced(type)) quotes.forgetOld()
      else if (!isTradeType(type)) sequence.forgetOldHoles()
    }
  }

  /** Notes that the exchange has ids up to `id` of a silent stream. */
  expect(stream: string, id: number, timeMs: number): void {
    const state = this.#streams.get(stream)
    if (state === undefined) return
    const { lastTimeMs } = state.sequence
    const missing = state.sequence.expect(id, timeMs)
    if (missing !== null) this.#open(state, missing, state.interruption ?? 'silent', lastTimeMs, timeMs)
  }

  lastIdOf(stream: string): number | null {
    return this.#streams.get(stream)?.sequence.last ?? null
  }

  epochOf(stream: string): number {
    return this.#streams.get(stream)?.sequence.epoch ?? 0
  }

  /** Returns the epoch, the last id, and the first id since which this process has forwarded all; or nulls. */
  chainOf(stream: string) {
    const { epoch = 0, joinedFrom = null, last: lastId = null } = this.#streams.get(stream)?.sequence ?? {}
    return { epoch, joinedFrom, lastId }
  }

  /** Returns the ids of a gap that are not known to have been forwarded. */
  notForwarded({ symbol, event_type, epoch, ...row }: IdGap): IdRange[] {
    const range = rangeOf(row)
    const sequence = this.#streams.get(streamName(symbol, event_type))?.sequence
    if (sequence?.epoch !== epoch) return [range]
    const { first = null, last } = sequence.memory
    if (first === null || last === null) return [range]
    return [...subtract([range], [{ from: first, to: last }]), ...sequence.holesIn(range)]
  }

  /** Returns the ids of a gap that were not forwarded. */
  missingIn(stream: string, gap: Pick<IdGap, 'epoch' | 'from_id' | 'to_id'>): IdRange[] {
    const sequence = this.#streams.get(stream)?.sequence
    return sequence?.epoch === gap.epoch ? sequence.holesIn(rangeOf(gap)) : [rangeOf(gap)]
  }

  holesOf(stream: string): readonly IdRange[] {
    return this.#streams.get(stream)?.sequence.holes ?? []
  }

  /** Notes that ids of another instance's gap are missing, if this instance does not know them. */
  lack(gap: IdGap): void {
    this.#sequenceOf(gap).lack(gap.epoch, rangeOf(gap))
  }

  /** Reopens the ids of a gap, whether they were forwarded before or not. */
  reopen(gap: IdGap): void {
    this.#sequenceOf(gap).reopen(gap.epoch, rangeOf(gap))
  }

  /** Notes that forwarded ids did not reach Kafka. */
  lose(stream: string, epoch: number, range: IdRange): void {
    this.#streams.get(stream)?.sequence.lose(epoch, range)
  }

  /** Notes ids that backfill has forwarded, the last with this trade time, or has abandoned. */
  filled(stream: string, epoch: number, range: IdRange, timeMs?: number): void {
    const sequence = this.#streams.get(stream)?.sequence
    if (sequence?.epoch === epoch) sequence.fill(range, timeMs)
  }

  #sequenceOf({ symbol, event_type: type }: IdGap): Sequence<Event> {
    return this.#stateOf({ stream: streamName(symbol, type), symbol, type }).sequence
  }

  #stateOf({ stream, symbol, type }: Pick<Event, 'stream' | 'symbol' | 'type'>): StreamState<Event> {
    return this.#streams.get(stream) ?? this.#begin(symbol, type, {})
  }

  #begin(symbol: string, type: StreamType, known: Partial<StreamState<Event>>): StreamState<Event> {
    const state: StreamState<Event> = {
      symbol,
      type,
      sequence: sequenceOf(type),
      quotes: new QuoteSequence(),
      lastReceiptMs: null,
      interruption: null,
      clockStep: null,
      restored: null,
      ...known,
    }
    this.#streams.set(streamName(symbol, type), state)
    return state
  }

  #observeQuote(state: StreamState<Event>, event: Event): readonly Event[] {
    const verdict = state.quotes.observe(event.id)
    if (verdict === 'duplicate') {
      this.duplicates++
      return []
    }
    const cause = verdict === 'reset' ? 'reset' : state.interruption
    if (state.lastReceiptMs === null) event.outage = null
    else if (cause !== null)
      event.outage = this.#enterOutage(state, state.lastReceiptMs, event.receiptMs, cause)
    return [event]
  }

  #enterOutage(state: StreamState<Event>, lastMs: number, nextMs: number, cause: GapCause): Gap {
    const step = this.#stepBetween(state, lastMs, nextMs)
    if (step === null) return this.#ledger.outage(state.symbol, lastMs, nextMs, cause)
    const { fromMs, toMs, ...why } = windowOfStep(lastMs, nextMs, step, cause)
    return this.#ledger.outage(state.symbol, fromMs, toMs, why.cause, why.reason)
  }

  /** Returns how the clock was set between two receipts; null if it was not, as far as is known. */
  #stepBetween(
    { clockStep, restored }: StreamState<Event>,
    lastMs: number,
    nextMs: number,
  ): ClockStep | null {
    if (restored === null) return clockStep
    const { clock_ahead: beforeMs } = restored
    const aheadMs = this.#clockAheadMs()
    const setMs = beforeMs === null || aheadMs === null ? 0 : aheadMs - beforeMs
    // Latency may explain a smaller difference.
    if (Math.abs(setMs) > MEASURED_STEP_MS) return { fromMs: nextMs - setMs, toMs: nextMs }
    const forwardMs = clockStep === null ? 0 : clockStep.toMs - clockStep.fromMs
    if (nextMs >= lastMs + forwardMs - SET_BACK_MS) return clockStep
    // The step is at least that large. A clock that was ahead probably went back by all of it, and an
    // unknown one was probably correct.
    const backMs = beforeMs ?? -(aheadMs ?? 0)
    return { fromMs: nextMs + Math.max(lastMs - nextMs, backMs), toMs: nextMs }
  }

  #observeId(state: StreamState<Event>, event: Event): readonly Event[] {
    const lastTimeMs = state.sequence.lastTimeMs
    const verdict = state.sequence.observe(event)
    switch (verdict.kind) {
      case 'next':
        this.#release(verdict.released, state)
        if (verdict.missing !== null)
          this.#open(state, verdict.missing, state.interruption ?? 'missed', lastTimeMs, event.timeMs)
        return [event]
      case 'late':
        return [event]
      case 'duplicate':
        this.duplicates++
        return []
      case 'second':
        this.rejected.push({ event, epoch: state.sequence.epoch, reason: SECOND_UNDER_ID })
        return []
      case 'over':
        this.rejected.push({ event, epoch: state.sequence.epoch - 1, reason: OF_ENDED_IDS })
        return []
      case 'held':
        this.#release(verdict.released, state)
        this.held++
        return []
      case 'exhausted':
        throw noEpochLeft(state)
      case 'reset':
        this.held -= verdict.events.length - 1
        this.#release(verdict.released)
        this.#enterReset(state, lastTimeMs, verdict.events[0] ?? event)
        for (const missing of verdict.missing) this.#open(state, missing, 'reset', lastTimeMs, event.timeMs)
        return verdict.events
    }
  }

  /** Counts held events that turned out to be duplicates or second events under an id. */
  #release(count: number, state?: StreamState<Event>): void {
    if (count === 0) return
    this.held -= count
    this.duplicates += count
    if (state === undefined) return
    for (const event of state.sequence.takeSecond()) {
      this.duplicates--
      this.rejected.push({ event, epoch: state.sequence.epoch, reason: SECOND_UNDER_ID })
    }
  }

  #open(state: StreamState<Event>, missing: IdRange, cause: GapCause, fromMs: number, toMs: number): void {
    const { symbol, type: event_type, sequence } = state
    if (!isSequenced(event_type)) return
    // The later id may have the earlier time.
    const times = { fromMs: Math.min(fromMs, toMs), toMs: Math.max(fromMs, toMs) }
    this.#ledger.open({ symbol, event_type, epoch: sequence.epoch }, missing, cause, times)
  }

  /** Closes a gap of an earlier instance if its ids have restarted since, or if REST has none of its type. */
  abandonIfOver(gap: IdGap): void {
    const isOver = gap.epoch < this.epochOf(streamName(gap.symbol, gap.event_type))
    if (isOver || !isTradeGap(gap))
      this.#ledger.unrecoverable(gap, rangeOf(gap), isOver ? REASON_RESET : REASON_DEPTH)
  }

  /** Enters a reset, and closes the gaps of the old ids: the exchange no longer serves them. */
  #enterReset({ symbol, type, sequence }: StreamState<Event>, lastTimeMs: number, first: Event): void {
    if (!isSequenced(type)) return
    const { epoch } = sequence
    for (const gap of this.#ledger.openGaps) {
      if (gap.symbol === symbol && gap.event_type === type && gap.epoch !== epoch)
        this.#ledger.unrecoverable(gap, rangeOf(gap), REASON_RESET)
    }
    this.#ledger.reset({ symbol, event_type: type, epoch }, lastTimeMs, first.timeMs)
  }
}

function sequenceOf<Event extends StreamEvent>(type: StreamType, memory?: SequenceMemory): Sequence<Event> {
  return new Sequence<Event>(memory, declarationOf(type).ids === 'ranges')
}

function noEpochLeft({ symbol, type }: Pick<StreamEvent, 'symbol' | 'type'>): TapelineError {
  return new TapelineError(
    'EXCHANGE',
    `The exchange has restarted the ${type} ids of ${symbol} more than ${EPOCH_MAX} times; no epoch is left`,
    { fix: 'Check where these events come from. To continue recording, use new topics and a new database.' },
  )
}
