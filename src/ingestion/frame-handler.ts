import { otherUnit } from '../foundation/binance/other-unit.ts'
import {
  type EventFrame,
  type Frame,
  FrameReader,
  KEPT_FRAME_BYTES,
} from '../foundation/binance/stream-frame.ts'
import { HEADER } from '../foundation/kafka/headers.ts'
import { type EventType, isTradeType, SECOND_UNDER_ID } from '../foundation/market/event.ts'
import { ABSENT } from '../foundation/market/event-fields.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import { type ByteSlice, ownCopy } from '../foundation/runtime/byte-slice.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { LatencyWindow } from '../foundation/telemetry/latency.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { Tally } from '../foundation/telemetry/tally.ts'
import { StreamRates } from './connection/stream-rates.ts'
import type { Continuity, StreamEvent } from './continuity/continuity.ts'
import { StreamMerge } from './continuity/stream-merge.ts'
import { EventMessage, type OutgoingMessage, type Route } from './messages/message.ts'
import type { ReceiptStamp } from './messages/receipt-clock.ts'
import { ByteSlab, ReceiptSuffix } from './messages/value-writer.ts'
import { RejectedFrames } from './rejected-frames.ts'

export interface FrameHandlerOptions {
  /** Unit of the exchange's times. */
  readonly timeUnit: TimeUnit
  /** Returns the receipt stamp; null for a frame that waited in a buffer, which is not counted. */
  readonly stamp: () => ReceiptStamp | null
  readonly clock: Clock
  readonly continuity: Continuity<StampedEvent>
  readonly route: (stream: string, symbol: string, type: EventType, epoch: number) => Route
  /** How far the clock is ahead of the exchange's, in milliseconds; null while unknown. */
  readonly clockAheadMs: () => number | null
  /** Topic of rejected frames. */
  readonly deadLettersTopic: string
  readonly send: (message: OutgoingMessage) => void
  /** Called with an event that must not be recorded: the process has to end. */
  readonly onFatal: (error: unknown) => void
  readonly log: Pick<Logger, 'warn'>
}

/** The counters before the first frame. */
export const NO_FRAMES = {
  received: 0,
  forwarded: 0,
  duplicate: 0,
  control: 0,
  ignored: 0,
  rejected: 0,
  held: 0,
}

export type ControlFrame = Extract<Frame, { kind: 'control' }>

/** An event with its stamp, as continuity receives it. */
export interface StampedEvent extends StreamEvent {
  /**
   * The data object as received: a slice of the chunk that was read, or a copy once the event is
   * held.
   */
  data: ByteSlice
  readonly stamp: ReceiptStamp
}

/**
 * Turns a frame into messages: parses, stamps, compares it with earlier ids, routes. Every frame is
 * counted once: received = forwarded + duplicate + control + ignored + rejected + held.
 */
export class FrameHandler {
  /** Orders the events that several connections deliver. */
  readonly merge: StreamMerge<StampedEvent>
  readonly rates = new StreamRates()
  readonly rejections: RejectedFrames
  readonly #options: FrameHandlerOptions
  readonly #reader: FrameReader
  readonly #slab = new ByteSlab()
  readonly #tail = new ReceiptSuffix()
  readonly #reasons = new Tally()
  #eventToReceipt = new LatencyWindow()
  readonly #counters = { received: 0, forwarded: 0, control: 0, ignored: 0, rejected: 0 }

  constructor(options: FrameHandlerOptions) {
    this.#options = options
    this.rejections = new RejectedFrames(options.log, this.rates)
    this.#reader = new FrameReader(options.timeUnit)
    this.merge = new StreamMerge(
      options.clock,
      (event, nowMs) => this.#deliver(event, nowMs),
      (stream) => this.rates.patienceMs(stream),
      (stream) => options.continuity.interrupted([stream], 'stall'),
    )
  }

  get counters() {
    const { duplicates: duplicate, held } = this.#options.continuity
    return { ...this.#counters, duplicate, held: held + this.merge.held }
  }

  /**
   * @param connection that received the frame
   * @param onControl called with a control frame
   * @returns true when the frame was market data
   */
  handle(bytes: Buffer, connection: number, onControl: (control: ControlFrame) => void): boolean {
    const frame = this.#reader.read(bytes)
    const stamp = this.#options.stamp()
    if (stamp === null) return false
    this.#counters.received++
    const nowMs = this.#options.clock.monotonicMs()
    this.rates.frames.add(nowMs)
    switch (frame.kind) {
      case 'event':
        this.#observe(frame, stamp, connection, nowMs)
        return true
      case 'control':
        this.#counters.control++
        onControl(frame)
        return false
      case 'ignored':
        this.#counters.ignored++
        this.#reasons.add('ignored', frame.reason)
        return false
      case 'rejected':
        this.#reject(bytes, frame.reason, stamp)
        return false
      case 'other unit':
        this.#counters.rejected++
        this.#reasons.add('rejected', `times in ${frame.unit}s`)
        this.#options.onFatal(otherUnit('The exchange', frame.unit, this.#options.timeUnit, 'BINANCE_WS_URL'))
        return false
    }
  }

  /** Releases held events after the wall clock was set: they were received and stamped before. */
  clockStepped(): void {
    this.merge.flush()
    this.#eventToReceipt = new LatencyWindow()
  }

  /** Counts frames that were `ignored` or `rejected`, by reason. */
  reasons(kind: 'ignored' | 'rejected'): Record<string, number> {
    return this.#reasons.of(kind)
  }

  /** Events in an unknown layout, which `JSON.parse` read at several times the cost. */
  get parsedEvents(): number {
    return this.#reader.parsedEvents
  }

  eventToReceipt(nowMs: number): ReturnType<LatencyWindow['summary']> {
    return this.#eventToReceipt.summary(nowMs)
  }

  /** The minimum of the last minute, in milliseconds; null when nothing arrived. */
  leastEventToReceiptMs(nowMs: number): number | null {
    return this.#eventToReceipt.min(nowMs)
  }

  #observe(
    { stream, event, data }: EventFrame,
    stamp: ReceiptStamp,
    connection: number,
    nowMs: number,
  ): void {
    const { type, id, lastTradeId, eventTimeUs } = event
    const symbol = event.symbol.text
    const isQuote = !isTradeType(type)
    const timeMs = isQuote ? stamp.ms : event.tradeTimeMs
    this.rates.seen(stream, id, nowMs, connection)
    if (!isQuote && eventTimeUs !== ABSENT) this.#eventToReceipt.record(stamp.ms - event.eventTimeMs, nowMs)
    this.merge.offer(
      { stream, symbol, type, id, timeMs, lastTradeId, connection, receiptMs: stamp.ms, data, stamp },
      nowMs,
    )
  }

  #deliver(event: StampedEvent, nowMs: number): void {
    const { continuity } = this.#options
    const before = continuity.epochOf(event.stream)
    const { held } = continuity
    const forwarded = this.#observed(event)
    // It may be held for long. Without a copy it would keep the whole chunk in memory.
    if (continuity.held > held) event.data = ownCopy(event.data)
    const epoch = continuity.epochOf(event.stream)
    for (const one of forwarded) this.#forward(one, epoch, nowMs)
    if (continuity.rejected.length > 0) this.#rejectEvents()
    if (epoch !== before) this.merge.beginAnew(event.stream, event.connection)
  }

  #observed(event: StampedEvent): readonly StampedEvent[] {
    try {
      return this.#options.continuity.observe(event)
    } catch (error) {
      this.#options.onFatal(error)
      return []
    }
  }

  #forward(
    { stream, symbol, type, id, timeMs, data, stamp, outage }: StampedEvent,
    epoch: number,
    nowMs: number,
  ): void {
    const route = this.#options.route(stream, symbol, type, epoch)
    const slice = this.#slab.write(data, this.#tail.of(stamp))
    const aheadMs = !isTradeType(type) ? this.#options.clockAheadMs() : null
    // Integers are stored without a heap object.
    const clockAheadMs = aheadMs === null ? undefined : Math.round(aheadMs)
    const message = new EventMessage(route, slice, id, timeMs, stamp.ms, nowMs, clockAheadMs)
    // Kafka may take the quote and the process end before the ledger row is sent. The next start
    // would then not know of the outage, so the message carries the row.
    if (outage !== undefined) message.endOutage(outage)
    this.#options.send(message)
    this.#counters.forwarded++
  }

  /** Even the exchange's own data has two aggregates under one id; the table can store only one. */
  #rejectEvents(): void {
    const { continuity } = this.#options
    const { rejected } = continuity
    continuity.rejected = []
    for (const { event, epoch, reason } of rejected) {
      const { stream, data, stamp } = event
      const json = data.bytes.toString('utf8', data.start, data.end)
      this.#reject(frameOf(stream, json), reason, stamp, epoch)
    }
  }

  #reject(bytes: Buffer, reason: string, { ms }: ReceiptStamp, epoch = 0): void {
    this.#counters.rejected++
    this.#reasons.add('rejected', reason)
    this.rejections.add(bytes, reason, this.#options.clock.monotonicMs())
    this.#sendDeadLetter(bytes, reason, ms, epoch)
  }

  /** Sends an event that its topic refuses to the dead letters. */
  deadLetter(value: Buffer, reason: string, ms: number): void {
    this.#sendDeadLetter(value, reason, ms)
  }

  /** Sends a REST event whose id another event already has to the dead letters. */
  secondOfRest(stream: string, json: string, ms: number, epoch: number): void {
    this.#sendDeadLetter(frameOf(stream, json), SECOND_UNDER_ID, ms, epoch)
  }

  #sendDeadLetter(bytes: Buffer, reason: string, ms: number, epoch = 0): void {
    this.#options.send({
      topic: this.#options.deadLettersTopic,
      partition: 0,
      key: null,
      // A copy, so that the message does not keep a chunk of hundreds of frames until Kafka takes
      // it.
      value: Buffer.from(bytes.subarray(0, KEPT_FRAME_BYTES)),
      headers: new Map([
        [Buffer.from(HEADER.origin), Buffer.from('ingestion')],
        [Buffer.from(HEADER.reason), Buffer.from(reason)],
        [Buffer.from(HEADER.time), Buffer.from(String(ms))],
        ...(epoch === 0 ? [] : [[Buffer.from(HEADER.epoch), Buffer.from(String(epoch))] as const]),
      ]),
      timestampMs: ms,
      mark: null,
      queuedAtMs: this.#options.clock.monotonicMs(),
    })
  }
}

function frameOf(stream: string, json: string): Buffer {
  return Buffer.from(`{"stream":${JSON.stringify(stream)},"data":${json}}`)
}
