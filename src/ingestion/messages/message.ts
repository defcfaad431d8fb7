import { receiptSuffix } from '../../foundation/binance/stream-frame.ts'
import type { TopicNames } from '../../foundation/kafka/config.ts'
import { HEADER } from '../../foundation/kafka/headers.ts'
import { partitionOf, type TopicPartition } from '../../foundation/kafka/partition.ts'
import type { BaseOffset, OutgoingRecord } from '../../foundation/kafka/record-sender.ts'
import { schemaHeader } from '../../foundation/kafka/schema-of.ts'
import type { TopicMetadata } from '../../foundation/kafka/topic-metadata.ts'
import { declarationOf, type EventType, type StreamType } from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { GapCause } from '../../foundation/market/gap-causes.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import type { ByteSlice } from '../../foundation/runtime/bytes.ts'
import type { ReceiptStamp } from './receipt-clock.ts'

/** Identifies the event of a message, for use after its acknowledgement. */
export interface EventMark {
  readonly symbol: string
  readonly type: StreamType
  readonly epoch: number
  /** The first id that it covers: `id`, except for order book updates. */
  readonly firstId: number
  readonly id: number
  /** Trade time, event time of an order book update, or receipt of a quote; ms since the Unix epoch. */
  readonly timeMs: number
  /**
   * For quotes: how far the clock was ahead of the exchange's, in milliseconds. Null if unknown;
   * absent if unchanged since the previous quote.
   */
  readonly clockAheadMs?: number | null | undefined
}

export interface OutgoingMessage extends OutgoingRecord {
  readonly value: Buffer
  /** Null for rejected frames, gaps and checkpoints, which are counted separately. */
  readonly mark: EventMark | null
  /**
   * Quotes only: attaches the row of the outage before it, in case the ledger lacks it, and its clock.
   * @param outage null for the first quote of a stream
   */
  endOutage?(outage: Gap | null): void
  readonly gap?: Gap
  /** The symbol of a snapshot of its order book. */
  readonly snapshotOf?: string
  /** On the monotonic clock. */
  readonly queuedAtMs: number
}

export function countEvents(messages: readonly OutgoingMessage[]): number {
  return messages.reduce((count, { mark }) => count + (mark === null ? 0 : 1), 0)
}

export interface MessageSink {
  push(message: OutgoingMessage): void
}

export interface SendEvents {
  /** Kafka has messages of one partition. `next`: the following offset; null if no longer known. */
  onAcknowledged(messages: readonly OutgoingMessage[], next: BaseOffset | null): void
  /** A message is too large for its topic, or its set-aside partition has no room. */
  onDiscarded(message: OutgoingMessage, cause: DiscardCause): void
  /** A message will be sent, after others that were discarded. */
  onKept(message: OutgoingMessage): void
  onDefect(error: unknown): void
}

export type DiscardCause = Extract<GapCause, 'refused' | 'too large'>

/** Destination and headers of a message. */
export interface Place extends TopicPartition {
  readonly key: Buffer
  readonly headers: Map<Buffer, Buffer>
}

/** The place of all messages of a symbol, type and epoch. */
export interface Route extends Place {
  readonly symbol: string
  readonly type: StreamType
  readonly epoch: number
  /** Whether the headers tell the clock, which the previous quote does not. */
  readonly tellsClock?: true
}

/** Routes by event type to a topic and by symbol to a partition; computed once per symbol and type. */
export class Router {
  readonly #names: TopicNames
  readonly #topics: ReadonlyMap<string, TopicMetadata>
  readonly #unit: TimeUnit
  readonly #routes = new Map<string, Route>()

  constructor(names: TopicNames, topics: ReadonlyMap<string, TopicMetadata>, unit: TimeUnit) {
    this.#unit = unit
    this.#names = names
    this.#topics = topics
  }

  /** @param epoch how often the ids of the stream have restarted */
  route(stream: string, symbol: string, type: StreamType, epoch: number): Route {
    const known = this.#routes.get(stream)
    if (known?.epoch === epoch) return known
    const route = { ...this.place(symbol, type, epoch), symbol, type, epoch }
    this.#routes.set(stream, route)
    return route
  }

  place(symbol: string, type: EventType, epoch: number): Place {
    const topic = this.#names[declarationOf(type).topic]
    const partitions = this.#topics.get(topic)?.partitions
    if (partitions === undefined) throw new Error(`No partition count of topic ${topic}`)
    const partition = partitionOf(symbol, partitions)
    const headers = new Map([[Buffer.from(HEADER.schema), Buffer.from(schemaHeader(type, this.#unit))]])
    if (epoch > 0) headers.set(Buffer.from(HEADER.epoch), Buffer.from(String(epoch)))
    return { topic, partition, key: Buffer.from(symbol), headers }
  }
}

/** Returns the route for a first quote, or one that ends an outage, during which the clock may have been set. */
export function routeAfter(outage: Gap | null, clockAheadMs: number | undefined, route: Route): Route {
  const headers = new Map(route.headers)
  if (outage !== null) headers.set(Buffer.from(HEADER.outage), Buffer.from(JSON.stringify(outage)))
  headers.set(Buffer.from(HEADER.clockAhead), Buffer.from(String(clockAheadMs ?? '')))
  return { ...route, headers, tellsClock: true }
}

/** An event on its way to Kafka; one object for speed: it is its own mark and slice. */
export class EventMessage implements OutgoingMessage, EventMark, ByteSlice {
  route: Route
  readonly bytes: Buffer
  readonly start: number
  readonly end: number
  readonly firstId: number
  readonly id: number
  readonly timeMs: number
  readonly timestampMs: number
  readonly queuedAtMs: number
  /** The known part of {@link clockAheadMs}. */
  readonly aheadMs: number | undefined

  constructor(
    route: Route,
    value: ByteSlice,
    firstId: number,
    id: number,
    timeMs: number,
    timestampMs: number,
    queuedAtMs: number,
    aheadMs: number | undefined,
  ) {
    this.route = route
    this.bytes = value.bytes
    this.start = value.start
    this.end = value.end
    this.firstId = firstId
    this.id = id
    this.timeMs = timeMs
    this.timestampMs = timestampMs
    this.queuedAtMs = queuedAtMs
    this.aheadMs = aheadMs
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

  get clockAheadMs(): number | null | undefined {
    return this.aheadMs ?? (this.route.tellsClock === true ? null : undefined)
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

  endOutage(outage: Gap | null): void {
    this.route = routeAfter(outage, this.aheadMs, this.route)
  }
}

const SLAB_BYTES = 64 << 10

/** Writes texts into shared buffers, each of which lives as long as one of its texts. */
export class ValueWriter {
  #bytes = Buffer.alloc(0)
  #at = 0

  /** Copies `text` with `tail` in place of its last byte. */
  write(text: ByteSlice, tail: Uint8Array): ByteSlice {
    const room = text.end - text.start + tail.length
    if (this.#at + room > this.#bytes.length) {
      this.#bytes = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, room))
      this.#at = 0
    }
    const bytes = this.#bytes
    const start = this.#at
    const last = start + text.bytes.copy(bytes, start, text.start, text.end - 1)
    bytes.set(tail, last)
    const end = last + tail.length
    this.#at = end
    return { bytes, start, end }
  }
}

/** Digits of milliseconds since the Unix epoch from 2001 to 2286, and of microseconds. */
const MS_DIGITS = 13
const US_DIGITS = 16
const FIRST_MS = 10 ** (MS_DIGITS - 1)
const END_MS = 10 ** MS_DIGITS

/** So many digits fit a small integer, which is the fastest to increment. */
const GROUP_DIGITS = 8
const GROUP = 10 ** GROUP_DIGITS
const ZERO = 0x30

/** Writes the suffix for an event's closing brace, over the digits of the previous one. */
export class ReceiptSuffix {
  readonly #bytes = Buffer.from(receiptSuffix(FIRST_MS, FIRST_MS * 1000))
  readonly #usEnd = this.#bytes.length - 1
  readonly #msEnd = this.#bytes.indexOf(',', 1)
  #ms = FIRST_MS

  /** @returns bytes that are valid until the next call */
  of({ ms, us }: ReceiptStamp): Uint8Array {
    const latest = Math.max(ms, Math.floor(us / 1000))
    if (Math.min(ms, us / 1000) < FIRST_MS || latest >= END_MS) return Buffer.from(receiptSuffix(ms, us))
    if (ms !== this.#ms) this.#write(ms, this.#msEnd - MS_DIGITS, this.#msEnd)
    this.#ms = ms
    this.#write(us, this.#usEnd - US_DIGITS, this.#usEnd)
    return this.#bytes
  }

  #write(value: number, from: number, end: number): void {
    const high = Math.floor(value / GROUP)
    this.#digits(value - high * GROUP, end - GROUP_DIGITS, end)
    this.#digits(high, from, end - GROUP_DIGITS)
  }

  #digits(value: number, from: number, end: number): void {
    let left = value
    for (let at = end - 1; at >= from; at--) {
      const next = Math.floor(left / 10)
      this.#bytes[at] = ZERO + left - next * 10
      left = next
    }
  }
}
