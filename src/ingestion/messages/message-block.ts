import { EventMessage } from './event-message.ts'
import type { OutgoingMessage } from './outgoing-message.ts'
import type { Route } from './router.ts'

const BLOCK_MESSAGES = 1024

/** What an event costs beside the bytes of its value: five numbers, two places and two references. */
const EVENT_BYTES = 5 * 8 + 2 * 4 + 2 * 8

/** What any other message costs beside them: its objects, and what the collector leaves lying for a while. */
const OBJECT_BYTES = 260

/** In the place of what has been taken, so that nothing of it is kept. */
const NO_BYTES = Buffer.alloc(0)

/**
 * A stretch of the queue. Events stand in columns: a queue may hold a quarter of a million, and the collector would
 * copy the objects of each twice before it let them be. Any other message stays the object that it is.
 */
export class MessageBlock {
  /** Of an event; null of any other message. */
  readonly #routes: Array<Route | null> = []
  /** The bytes in which an event stands. */
  readonly #buffers: Buffer[] = []
  readonly #starts = new Uint32Array(BLOCK_MESSAGES)
  readonly #ends = new Uint32Array(BLOCK_MESSAGES)
  readonly #ids = new Float64Array(BLOCK_MESSAGES)
  readonly #times = new Float64Array(BLOCK_MESSAGES)
  readonly #timestamps = new Float64Array(BLOCK_MESSAGES)
  readonly #queuedAt = new Float64Array(BLOCK_MESSAGES)
  /** NaN where an event does not say. */
  readonly #clocksAhead = new Float64Array(BLOCK_MESSAGES)
  /** Messages that are no events, in their order. */
  readonly #others: OutgoingMessage[] = []
  /** Of the queue, behind this one. */
  next: MessageBlock | null = null
  #length = 0
  #taken = 0

  get isFull(): boolean {
    return this.#length === BLOCK_MESSAGES
  }

  /** Everything that was pushed has been taken. */
  get isEmpty(): boolean {
    return this.#taken === this.#length
  }

  /** When the oldest was queued, on the monotonic clock; null when there is none. */
  get oldestQueuedAtMs(): number | null {
    return this.isEmpty ? null : (this.#queuedAt[this.#taken] ?? null)
  }

  /** What the oldest counts for in the queue. */
  get oldestBytes(): number {
    const [oldest] = this.#others
    return this.#routes[this.#taken] === null && oldest !== undefined
      ? sizeOf(oldest)
      : EVENT_BYTES + (this.#ends[this.#taken] ?? 0) - (this.#starts[this.#taken] ?? 0)
  }

  /** @returns what it counts for in the queue */
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
    this.#ids[at] = message.id
    this.#times[at] = message.timeMs
    this.#timestamps[at] = message.timestampMs
    this.#clocksAhead[at] = message.clockAheadMs ?? Number.NaN
    return EVENT_BYTES + end - start
  }

  /** Removes the oldest; null when there is none. */
  take(): OutgoingMessage | null {
    if (this.isEmpty) return null
    const at = this.#taken++
    const route = this.#routes[at]
    const bytes = this.#buffers[at]
    if (!route || bytes === undefined) return this.#others.shift() ?? null
    this.#buffers[at] = NO_BYTES
    const clockAheadMs = this.#clocksAhead[at] ?? Number.NaN
    return new EventMessage(
      route,
      { bytes, start: this.#starts[at] ?? 0, end: this.#ends[at] ?? 0 },
      this.#ids[at] ?? 0,
      this.#times[at] ?? 0,
      this.#timestamps[at] ?? 0,
      this.#queuedAt[at] ?? 0,
      Number.isNaN(clockAheadMs) ? undefined : clockAheadMs,
    )
  }
}

function sizeOf({ value }: OutgoingMessage): number {
  return OBJECT_BYTES + value.length
}
