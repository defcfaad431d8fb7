import { type Frame, interpretFrame, withReceiptStamp } from '../binance/frame.ts'
import { HEADER } from '../kafka/headers.ts'
import { LatencyWindow } from '../telemetry/latency.ts'
import type { StreamStatus } from '../telemetry/status.ts'
import { Tally } from '../telemetry/tally.ts'
import type { OutgoingMessage } from './message-queue.ts'
import type { ReceiptStamp } from './receipt-stamp.ts'
import type { Route } from './router.ts'

export interface FrameHandlerOptions {
  readonly stamp: () => ReceiptStamp
  readonly monotonicMs: () => number
  readonly route: (stream: string, symbol: string, type: EventFrame['type']) => Route
  /** Where rejected frames go. */
  readonly deadLettersTopic: string
  readonly send: (message: OutgoingMessage) => void
}

type EventFrame = Extract<Frame, { kind: 'event' }>
export type ControlFrame = Extract<Frame, { kind: 'control' }>

interface StreamState {
  events: number
  lastSeenMs: number
  lastId: number
}

/** The longest frame text that is kept in a dead letter. */
const MAX_REJECTED_BYTES = 1 << 20

/**
 * From a frame to a message: parse, stamp, interpret, count, route. Every frame ends in exactly one counter:
 * received = forwarded + control + ignored + rejected.
 */
export class FrameHandler {
  readonly #options: FrameHandlerOptions
  readonly #streams = new Map<string, StreamState>()
  readonly #reasons = new Tally()
  readonly #eventToReceipt = new LatencyWindow()
  readonly counters = { received: 0, forwarded: 0, control: 0, ignored: 0, rejected: 0 }

  constructor(options: FrameHandlerOptions) {
    this.#options = options
  }

  /**
   * @param onControl called with a control frame of this connection
   * @returns true when the frame was market data
   */
  handle(bytes: Buffer, onControl: (control: ControlFrame) => void): boolean {
    const text = bytes.toString()
    const value = parse(text)
    const stamp = this.#options.stamp()
    const frame = interpretFrame(value, text)
    this.counters.received++
    switch (frame.kind) {
      case 'event':
        this.#forward(frame, stamp)
        return true
      case 'control':
        this.counters.control++
        onControl(frame)
        return false
      case 'ignored':
        this.counters.ignored++
        this.#reasons.add('ignored', frame.reason)
        return false
      case 'rejected':
        this.#reject(bytes, frame.reason, stamp)
        return false
    }
  }

  /** Counts by reason of the frames that were `ignored` or `rejected`. */
  reasons(kind: 'ignored' | 'rejected'): Record<string, number> {
    return this.#reasons.of(kind)
  }

  streams(nowMs: number): Record<string, StreamStatus> {
    return Object.fromEntries(
      [...this.#streams].map(([name, { events, lastSeenMs, lastId }]) => [
        name,
        { events, lastSeenAgeMs: Math.round(nowMs - lastSeenMs), lastId },
      ]),
    )
  }

  eventToReceipt(nowMs: number): ReturnType<LatencyWindow['summary']> {
    return this.#eventToReceipt.summary(nowMs)
  }

  #forward({ type, stream, symbol, payload, json }: EventFrame, { ms, us }: ReceiptStamp): void {
    const nowMs = this.#options.monotonicMs()
    const { topic, partition, key, headers } = this.#options.route(stream, symbol, type)
    const value = Buffer.from(withReceiptStamp(json, ms, us))
    const common = {
      topic,
      partition,
      key,
      headers,
      value,
      timestampMs: ms,
      isEvent: true,
      queuedAtMs: nowMs,
    }
    this.#options.send(common)
    this.counters.forwarded++
    const id = 't' in payload ? payload.t : 'u' in payload ? payload.u : payload.a
    this.#seen(stream, id, nowMs)
    if ('E' in payload && payload.E !== null) this.#eventToReceipt.record(ms - payload.E, nowMs)
  }

  #seen(stream: string, lastId: number, nowMs: number): void {
    const state = this.#streams.get(stream)
    if (state === undefined) {
      this.#streams.set(stream, { events: 1, lastSeenMs: nowMs, lastId })
      return
    }
    state.events++
    state.lastSeenMs = nowMs
    state.lastId = lastId
  }

  #reject(bytes: Buffer, reason: string, { ms }: ReceiptStamp): void {
    this.counters.rejected++
    this.#reasons.add('rejected', reason)
    this.#options.send({
      topic: this.#options.deadLettersTopic,
      partition: 0,
      key: null,
      value: bytes.subarray(0, MAX_REJECTED_BYTES),
      headers: new Map([
        [Buffer.from(HEADER.origin), Buffer.from('ingestion')],
        [Buffer.from(HEADER.reason), Buffer.from(reason)],
        [Buffer.from(HEADER.time), Buffer.from(String(ms))],
      ]),
      timestampMs: ms,
      isEvent: false,
      queuedAtMs: this.#options.monotonicMs(),
    })
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
