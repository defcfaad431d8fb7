import { unlessAborted } from '../../foundation/runtime/backoff.ts'
import type { Wake } from '../../foundation/runtime/clock.ts'
import { EventMessage, type OutgoingMessage, type Route } from './message.ts'

const BLOCK_MESSAGES = 1024

/** Bytes per event beside its value: six numbers, two positions and two references. */
const EVENT_BYTES = 6 * 8 + 2 * 4 + 2 * 8

/** Bytes per other message beside its value: its objects, and garbage not collected yet. */
const OBJECT_BYTES = 260

/** Replaces the buffer of a taken message, so that it can be freed. */
const NO_BYTES = Buffer.alloc(0)

/**
 * A segment of the queue. Events are stored in columns, because the collector would copy the
 * objects of a quarter of a million events twice. Other messages are stored as objects.
 */
class MessageBlock {
  /** The route of an event; null for any other message. */
  readonly #routes: Array<Route | null> = []
  readonly #buffers: Buffer[] = []
  readonly #starts = new Uint32Array(BLOCK_MESSAGES)
  readonly #ends = new Uint32Array(BLOCK_MESSAGES)
  readonly #firstIds = new Float64Array(BLOCK_MESSAGES)
  readonly #ids = new Float64Array(BLOCK_MESSAGES)
  readonly #times = new Float64Array(BLOCK_MESSAGES)
  readonly #timestamps = new Float64Array(BLOCK_MESSAGES)
  readonly #queuedAt = new Float64Array(BLOCK_MESSAGES)
  /** NaN if the event has no value. */
  readonly #clocksAhead = new Float64Array(BLOCK_MESSAGES)
  /** Messages that are not events, in order. */
  readonly #others: OutgoingMessage[] = []
  next: MessageBlock | null = null
  #length = 0
  #taken = 0

  get isFull(): boolean {
    return this.#length === BLOCK_MESSAGES
  }

  get isEmpty(): boolean {
    return this.#taken === this.#length
  }

  /** When the oldest was queued, on the monotonic clock; null when there is none. */
  get oldestQueuedAtMs(): number | null {
    return this.isEmpty ? null : (this.#queuedAt[this.#taken] ?? null)
  }

  /** The bytes that the oldest message counts for. */
  get oldestBytes(): number {
    const [oldest] = this.#others
    return this.#routes[this.#taken] === null && oldest !== undefined
      ? sizeOf(oldest)
      : EVENT_BYTES + (this.#ends[this.#taken] ?? 0) - (this.#starts[this.#taken] ?? 0)
  }

  /** @returns the bytes that it counts for */
  push(message: OutgoingMessage): number {
    const at = this.#length++
    this.#queuedAt[at] = message.queuedAtMs
    if (!(message instanceof EventMessage)) {
      this.#routes[at] = null
      this.#buffers[at] = NO_BYTES
      this.#others.push(message)
      return sizeOf(message)
    }
    const { route, bytes, start, end } = message
    this.#routes[at] = route
    this.#buffers[at] = bytes
    this.#starts[at] = start
    this.#ends[at] = end
    this.#firstIds[at] = message.firstId
    this.#ids[at] = message.id
    this.#times[at] = message.timeMs
    this.#timestamps[at] = message.timestampMs
    this.#clocksAhead[at] = message.aheadMs ?? Number.NaN
    return EVENT_BYTES + end - start
  }

  /** Removes and returns the oldest; null when there is none. */
  take(): OutgoingMessage | null {
    if (this.isEmpty) return null
    const at = this.#taken++
    const route = this.#routes[at]
    const bytes = this.#buffers[at]
    if (!route || bytes === undefined) return this.#others.shift() ?? null
    this.#buffers[at] = NO_BYTES
    const aheadMs = this.#clocksAhead[at] ?? Number.NaN
    return new EventMessage(
      route,
      { bytes, start: this.#starts[at] ?? 0, end: this.#ends[at] ?? 0 },
      this.#firstIds[at] ?? 0,
      this.#ids[at] ?? 0,
      this.#times[at] ?? 0,
      this.#timestamps[at] ?? 0,
      this.#queuedAt[at] ?? 0,
      Number.isNaN(aheadMs) ? undefined : aheadMs,
    )
  }
}

function sizeOf({ value }: OutgoingMessage): number {
  return OBJECT_BYTES + value.length
}

interface QueueSender {
  readonly wake: Wake
  readonly batchSize: number
}

/** The queue before Kafka. It never refuses: when full, the sockets pause until half of it is free. */
export class MessageQueue {
  readonly #maxBytes: number
  readonly #sender: QueueSender | null
  /** Empty only when the queue is. */
  #oldest = new MessageBlock()
  #newest = this.#oldest
  #length = 0
  #bytes = 0
  #events = 0
  #full = false
  #reserved = 0
  #pushed = 0
  /** Resolves when the queue is no longer full. */
  #room: PromiseWithResolvers<void> | null = null

  constructor(maxBytes: number, sender: QueueSender | null = null) {
    this.#maxBytes = maxBytes
    this.#sender = sender
  }

  get length(): number {
    return this.#length
  }

  get bytes(): number {
    return this.#bytes
  }

  get events(): number {
    return this.#events
  }

  get pushed(): number {
    return this.#pushed
  }

  /** True from the moment the limit is reached until half of it is free. */
  get isFull(): boolean {
    return this.#full
  }

  /** When the oldest message was queued, on the monotonic clock; null when it is empty. */
  get oldestQueuedAtMs(): number | null {
    return this.#oldest.oldestQueuedAtMs
  }

  /** Reserves bytes of the limit that are used elsewhere. */
  reserve(bytes: number): void {
    this.#reserved = bytes
  }

  /** Resolves when it is not full; rejects with the signal's reason if it aborts first. */
  async whenRoom(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    while (this.#full) {
      this.#room ??= Promise.withResolvers()
      await unlessAborted(this.#room.promise, signal)
    }
  }

  push(message: OutgoingMessage): void {
    if (this.#newest.isFull) this.#beginBlock()
    this.#bytes += this.#newest.push(message)
    this.#length++
    this.#pushed++
    if (message.mark !== null) this.#events++
    if (this.#bytes + this.#reserved >= this.#maxBytes) this.#full = true
    // Between these lengths the linger timer runs. A wake-up for each message would cost more than
    // the message.
    if (this.#length === 1 || this.#length === this.#sender?.batchSize) this.#sender?.wake.ring()
  }

  /** Removes and returns the oldest messages: at most `count` and `maxBytes`, but at least one. */
  take(count: number, maxBytes: number): OutgoingMessage[] {
    const taken: OutgoingMessage[] = []
    let bytes = 0
    while (taken.length < count) {
      const size = this.#oldest.oldestBytes
      if (taken.length > 0 && bytes + size > maxBytes) break
      const message = this.#oldest.take()
      if (message === null) break
      bytes += size
      if (message.mark !== null) this.#events--
      taken.push(message)
      if (this.#oldest.isEmpty) this.#leaveBlock()
    }
    this.#length -= taken.length
    this.#bytes -= bytes
    if (this.#bytes <= (this.#maxBytes - this.#reserved) / 2) {
      this.#full = false
      this.#room?.resolve()
      this.#room = null
    }
    return taken
  }

  #beginBlock(): void {
    const block = new MessageBlock()
    this.#newest.next = block
    this.#newest = block
    if (this.#oldest.isEmpty) this.#leaveBlock()
  }

  /** Unlinks the old block: the collector would keep all following blocks alive with it. */
  #leaveBlock(): void {
    const { next } = this.#oldest
    if (next === null) return
    this.#oldest.next = null
    this.#oldest = next
  }
}
