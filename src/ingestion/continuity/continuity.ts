import {
  type EventType,
  isTradeType,
  OF_ENDED_IDS,
  SECOND_UNDER_ID,
  streamName,
} from '../../foundation/market/event.ts'
import { EPOCH_MAX } from '../../foundation/market/fields.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { GapCause } from '../../foundation/market/gap-causes.ts'
import type { IdRange } from '../../foundation/market/id-ranges.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import type { ClockStep } from '../messages/receipt-clock.ts'
import { addSteps, windowOfStep } from './clock-window.ts'
import { type GapLedger, REASON_RESET } from './gap-ledger.ts'
import { type IdGap, rangeOf } from './gap-rows.ts'
import { QuoteSequence } from './quote-sequence.ts'
import { Sequence } from './sequence.ts'
import type { Observed } from './verdict.ts'

/** The fields of an event that continuity uses; `receiptMs` is its stamp. */
export interface StreamEvent extends Observed {
  readonly stream: string
  readonly symbol: string
  readonly type: EventType
  readonly receiptMs: number
  /** The outage that a quote ends. */
  outage?: Gap
}

/** The state of a stream that an earlier instance left. */
export interface StreamMemory {
  readonly epoch: number
  /** The lowest id; null for bookTicker, and if unknown. */
  readonly first: number | null
  /** The highest id or update id. */
  readonly last: number | null
  /** Trade time of the last trade, or receipt of the last bookTicker. */
  readonly lastTimeMs: number
  readonly holes: readonly IdRange[]
  /** How far that receipt's clock was ahead of the exchange's; null if unknown. */
  readonly clockAheadMs: number | null
  /** Why events may be missing before the next one; a restart by default. */
  readonly cause?: GapCause
}

/** A clock that is back by more than this between two instances was set; less may be slewing. */
const SET_BACK_MS = 1000

const FORGET_EVERY_MS = 60_000

/** Two measurements against the exchange's time differ by less, unless the clock was set. */
const MEASURED_STEP_MS = 5000

interface StreamState<Event extends StreamEvent> {
  readonly symbol: string
  readonly type: EventType
  readonly sequence: Sequence<Event>
  readonly quotes: QuoteSequence
  /** Receipt of the last event; null before the first. */
  lastReceiptMs: number | null
  /** Why events may be missing before the next one. */
  interruption: GapCause | null
  /** How the wall clock was set since the last event; null if it was not. */
  clockStep: ClockStep | null
  /** Set if the last receipt is an earlier instance's, whose clock may have differed from ours. */
  restored: Pick<StreamMemory, 'clockAheadMs'> | null
}

/**
 * Decides for all streams which events are forwarded, duplicates or missing. Counts duplicates and
 * held events, to account for every frame. Specification: S, and Q for bookTicker.
 */
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

  /** Restores a stream; holes that no open gap covers become gaps. */
  restore(stream: string, symbol: string, type: EventType, memory: StreamMemory): void {
    const isQuote = !isTradeType(type)
    const { epoch, first, last, lastTimeMs, holes, clockAheadMs } = memory
    this.#streams.set(stream, {
      symbol,
      type,
      sequence: new Sequence(isQuote ? undefined : { epoch, first, last, lastTimeMs, holes }),
      quotes: new QuoteSequence(isQuote ? last : null),
      lastReceiptMs: isQuote && last !== null ? lastTimeMs : null,
      interruption: memory.cause ?? 'restart',
      clockStep: null,
      restored: { clockAheadMs },
    })
  }

  /** Returns the events to forward now, in order; several when a new sequence is recognised. */
  observe(event: Event): readonly Event[] {
    const state = this.#stateOf(event)
    const { interruption } = state
    const isId = isTradeType(event.type)
    const forwarded = isId ? this.#observeId(state, event) : this.#observeQuote(state, event)
    if (forwarded.length > 0) {
      state.lastReceiptMs = event.receiptMs
      if (interruption !== null) state.interruption = null
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

  /** Forgets old quote ids to bound the memory. Call it about every second. */
  forgetOldQuotes(nowMs: number): void {
    if (nowMs - this.#forgottenAtMs < FORGET_EVERY_MS) return
    this.#forgottenAtMs = nowMs
    for (const { type, quotes } of this.#streams.values()) if (!isTradeType(type)) quotes.forgetOld()
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
    const state = this.#streams.get(stream)
    return state?.sequence.last ?? null
  }

  epochOf(stream: string): number {
    return this.#streams.get(stream)?.sequence.epoch ?? 0
  }

  /** Returns the ids of a gap that were not forwarded. */
  missingIn(stream: string, gap: Pick<IdGap, 'epoch' | 'from_id' | 'to_id'>): IdRange[] {
    const range = { from: gap.from_id, to: gap.to_id }
    const sequence = this.#streams.get(stream)?.sequence
    return sequence?.epoch === gap.epoch ? sequence.holesIn(range) : [range]
  }

  holesOf(stream: string): readonly IdRange[] {
    return this.#streams.get(stream)?.sequence.holes ?? []
  }

  /** Notes that ids of another instance's gap are missing, if this instance does not know them. */
  lack(gap: IdGap): void {
    this.#sequenceOf(gap).lack(gap.epoch, { from: gap.from_id, to: gap.to_id })
  }

  /** Reopens the ids of a gap, whether they were forwarded before or not. */
  reopen(gap: IdGap): void {
    this.#sequenceOf(gap).reopen(gap.epoch, { from: gap.from_id, to: gap.to_id })
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
    const known = this.#streams.get(stream)
    if (known !== undefined) return known
    const state: StreamState<Event> = {
      symbol,
      type,
      sequence: new Sequence(),
      quotes: new QuoteSequence(),
      lastReceiptMs: null,
      interruption: null,
      clockStep: null,
      restored: null,
    }
    this.#streams.set(stream, state)
    return state
  }

  #observeQuote(state: StreamState<Event>, event: Event): readonly Event[] {
    const verdict = state.quotes.observe(event.id)
    if (verdict === 'duplicate') {
      this.duplicates++
      return []
    }
    const cause = verdict === 'reset' ? 'reset' : state.interruption
    if (cause !== null && state.lastReceiptMs !== null)
      event.outage = this.#enterOutage(state, state.lastReceiptMs, event.receiptMs, cause)
    return [event]
  }

  #enterOutage(state: StreamState<Event>, lastMs: number, nextMs: number, cause: GapCause): Gap {
    const step = this.#stepBetween(state, lastMs, nextMs)
    return step === null
      ? this.#ledger.outage(state.symbol, lastMs, nextMs, cause)
      : this.#ledger.clockOutage(
          state.symbol,
          windowOfStep(lastMs, nextMs, step),
          cause === 'reset' ? cause : 'clock',
        )
  }

  /** Returns how the clock was set between two receipts; null if it was not, as far as is known. */
  #stepBetween(
    { clockStep, restored }: StreamState<Event>,
    lastMs: number,
    nextMs: number,
  ): ClockStep | null {
    if (restored === null) return clockStep
    const aheadMs = this.#clockAheadMs()
    const measured =
      restored.clockAheadMs === null || aheadMs === null
        ? null
        : measuredStep(nextMs, aheadMs - restored.clockAheadMs)
    const forwardMs = clockStep === null ? 0 : clockStep.toMs - clockStep.fromMs
    const isBack = nextMs < lastMs + forwardMs - SET_BACK_MS
    // The step is at least that large; a clock that was ahead probably went back by all of it.
    const backMs = Math.max(lastMs - nextMs, restored.clockAheadMs ?? 0)
    return measured ?? (isBack ? { fromMs: nextMs + backMs, toMs: nextMs } : clockStep)
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
        this.#abandon(state)
        this.#noteReset(state, verdict.events[0] ?? event, lastTimeMs)
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
    if (!isTradeType(state.type)) return
    const sequence = { symbol: state.symbol, eventType: state.type, epoch: state.sequence.epoch }
    // The later id may have the earlier time.
    const times = { fromMs: Math.min(fromMs, toMs), toMs: Math.max(fromMs, toMs) }
    this.#ledger.open(sequence, missing, cause, times)
  }

  #noteReset({ symbol, type, sequence }: StreamState<Event>, first: Event, lastTimeMs: number): void {
    if (isTradeType(type))
      this.#ledger.reset({ symbol, eventType: type, epoch: sequence.epoch }, lastTimeMs, first.timeMs)
  }

  /** Closes a gap of an earlier instance if its ids have restarted since. */
  abandonIfOver(gap: IdGap): void {
    if (gap.epoch >= this.epochOf(streamName(gap.symbol, gap.event_type))) return
    this.#ledger.unrecoverable(gap, rangeOf(gap), REASON_RESET)
  }

  /** Closes the gaps of the old ids after a reset: the exchange no longer serves them. */
  #abandon(state: StreamState<Event>): void {
    for (const gap of this.#ledger.openGaps) {
      const isOfStream = gap.symbol === state.symbol && gap.event_type === state.type
      if (isOfStream && gap.epoch !== state.sequence.epoch)
        this.#ledger.unrecoverable(gap, rangeOf(gap), REASON_RESET)
    }
  }
}

/** Returns the step; null for a difference that latency may explain. */
const measuredStep = (nextMs: number, forwardMs: number): ClockStep | null =>
  Math.abs(forwardMs) > MEASURED_STEP_MS ? { fromMs: nextMs - forwardMs, toMs: nextMs } : null

function noEpochLeft({ symbol, type }: Pick<StreamEvent, 'symbol' | 'type'>): TapelineError {
  return new TapelineError(
    'EXCHANGE',
    `The exchange has restarted the ${type} ids of ${symbol} more than ${EPOCH_MAX} times; no epoch is left`,
    { fix: 'Check where these events come from. To continue recording, use new topics and a new database.' },
  )
}
