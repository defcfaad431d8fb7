import { type ByteSlice, ownCopy } from '../foundation/runtime/bytes.ts'
import type { Continuity, StreamEvent } from './continuity/continuity.ts'
import {
  EventMessage,
  type MessageSink,
  ReceiptSuffix,
  type Router,
  ValueWriter,
} from './messages/message.ts'
import type { ReceiptStamp } from './messages/receipt-clock.ts'
import type { RejectedFrames } from './rejected-frames.ts'

export interface StampedEvent extends StreamEvent {
  /** The data object as received: a slice of the chunk that was read, or a copy of a held event. */
  data: ByteSlice
  readonly stamp: ReceiptStamp
}

export interface ForwarderOptions {
  readonly continuity: Continuity<StampedEvent>
  readonly router: Pick<Router, 'route'>
  /** How far the clock is ahead of the exchange's, in milliseconds; null while unknown. */
  readonly clockOffset: { readonly aheadMs: number | null }
  readonly queue: MessageSink
  /** Called with an error after which no event may be recorded: the process has to end. */
  readonly onFatal: (error: unknown) => void
}

/** Queues the events that continuity forwards as messages, and those it rejects as dead letters. */
export class Forwarder {
  readonly #options: ForwarderOptions
  readonly #rejections: RejectedFrames
  readonly #values = new ValueWriter()
  readonly #suffix = new ReceiptSuffix()
  forwarded = 0

  constructor(options: ForwarderOptions, rejections: RejectedFrames) {
    this.#options = options
    this.#rejections = rejections
  }

  /** @returns whether the event has shown that the ids of its stream restarted */
  deliver(event: StampedEvent, nowMs: number): boolean {
    const { continuity } = this.#options
    const before = continuity.epochOf(event.stream)
    const forwarded = this.#observed(event)
    // It may be held for long. Without a copy it would keep the whole chunk in memory.
    // A verdict may hold this event and release another: the count alone does not tell.
    if (forwarded.length === 0 && continuity.held > 0) event.data = ownCopy(event.data)
    const epoch = continuity.epochOf(event.stream)
    for (const one of forwarded) this.#forward(one, epoch, nowMs)
    if (continuity.rejected.length > 0) this.#rejectEvents(nowMs)
    return epoch !== before
  }

  #observed(event: StampedEvent): readonly StampedEvent[] {
    try {
      return this.#options.continuity.observe(event)
    } catch (error) {
      this.#options.onFatal(error)
      return []
    }
  }

  #forward(event: StampedEvent, epoch: number, nowMs: number): void {
    const { stream, symbol, type, firstId, id, timeMs, data, stamp, outage } = event
    const { router, clockOffset, queue } = this.#options
    const route = router.route(stream, symbol, type, epoch)
    const slice = this.#values.write(data, this.#suffix.of(stamp))
    const aheadMs = type === 'bookTicker' ? clockOffset.aheadMs : null
    // Integers are stored without a heap object.
    const clockAheadMs = aheadMs === null ? undefined : Math.round(aheadMs)
    const message = new EventMessage(route, slice, firstId, id, timeMs, stamp.ms, nowMs, clockAheadMs)
    // The process may end before the ledger row is sent, so the message carries the row, too.
    if (outage !== undefined) message.endOutage(outage)
    queue.push(message)
    this.forwarded++
  }

  /** Even the exchange's own data has two aggregates under one id; the table can store only one. */
  #rejectEvents(nowMs: number): void {
    const { continuity } = this.#options
    const { rejected } = continuity
    continuity.rejected = []
    for (const { event, epoch, reason } of rejected) {
      const { stream, data, stamp } = event
      const json = data.bytes.toString('utf8', data.start, data.end)
      this.#rejections.add(frameOf(stream, json), reason, nowMs, stamp.ms, epoch)
    }
  }
}

export function frameOf(stream: string, json: string): Buffer {
  return Buffer.from(`{"stream":${JSON.stringify(stream)},"data":${json}}`)
}
