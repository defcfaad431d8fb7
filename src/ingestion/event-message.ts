import type { ByteSlice } from '../bytes/byte-slice.ts'
import type { EventMark, OutgoingMessage } from './message-queue.ts'
import type { Route } from './router.ts'

/** An event on its way to Kafka. The queue holds a hundred thousand of them: what they share they have in common, by their route. */
export class EventMessage implements OutgoingMessage, EventMark {
  readonly route: Route
  readonly slice: ByteSlice
  readonly id: number
  readonly timeMs: number
  readonly timestampMs: number
  readonly queuedAtMs: number

  /**
   * @param id trade id, aggregate trade id or update id
   * @param timeMs trade time, or receipt for bookTicker
   * @param timestampMs of the record: the time of ingestion
   */
  constructor(
    route: Route,
    slice: ByteSlice,
    id: number,
    timeMs: number,
    timestampMs: number,
    queuedAtMs: number,
  ) {
    this.route = route
    this.slice = slice
    this.id = id
    this.timeMs = timeMs
    this.timestampMs = timestampMs
    this.queuedAtMs = queuedAtMs
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

  get value(): Buffer {
    const { bytes, start, end } = this.slice
    return bytes.subarray(start, end)
  }

  get mark(): EventMark {
    return this
  }
}
