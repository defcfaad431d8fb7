import type { Gap } from '../../foundation/market/gap.ts'
import type { ByteSlice } from '../../foundation/runtime/byte-slice.ts'
import type { EventMark, OutgoingMessage } from './outgoing-message.ts'
import { type Route, routeAfter } from './router.ts'

/**
 * An event on its way to Kafka. One object for speed: it is the slice of its value, and takes its
 * other parts from its route.
 */
export class EventMessage implements OutgoingMessage, EventMark, ByteSlice {
  route: Route
  readonly bytes: Buffer
  readonly start: number
  readonly end: number
  readonly id: number
  readonly timeMs: number
  readonly timestampMs: number
  readonly queuedAtMs: number
  readonly clockAheadMs: number | undefined

  /**
   * @param value the slice with the value
   * @param id trade id, aggregate trade id or update id
   * @param timeMs trade time, or receipt for bookTicker
   * @param timestampMs of the record: the time of ingestion
   * @param clockAheadMs of quotes: how far the stamping clock was ahead of the exchange's, if known
   */
  constructor(
    route: Route,
    value: ByteSlice,
    id: number,
    timeMs: number,
    timestampMs: number,
    queuedAtMs: number,
    clockAheadMs: number | undefined,
  ) {
    this.route = route
    this.bytes = value.bytes
    this.start = value.start
    this.end = value.end
    this.id = id
    this.timeMs = timeMs
    this.timestampMs = timestampMs
    this.queuedAtMs = queuedAtMs
    this.clockAheadMs = clockAheadMs
  }

  get topic(): string {
    return this.route.topic
  }

  get partition(): number {
    return this.route.partition
  }

  get key(): Buffer {
    return this.route.key
  }

  get headers(): Map<Buffer, Buffer> {
    return this.route.headers
  }

  get symbol(): string {
    return this.route.symbol
  }

  get type(): EventMark['type'] {
    return this.route.type
  }

  get epoch(): number {
    return this.route.epoch
  }

  get slice(): ByteSlice {
    return this
  }

  get value(): Buffer {
    return this.bytes.subarray(this.start, this.end)
  }

  get mark(): EventMark {
    return this
  }

  endOutage(outage: Gap): void {
    this.route = routeAfter(outage, this.clockAheadMs, this.route)
  }
}
