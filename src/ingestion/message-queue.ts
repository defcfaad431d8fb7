import type { ByteSlice } from '../bytes/byte-slice.ts'
import type { EventType } from '../market/event.ts'
import type { Gap } from '../market/gap.ts'

/** Which event a message is, for what is known once Kafka has acknowledged it. */
export interface EventMark {
  readonly symbol: string
  readonly type: EventType
  readonly epoch: number
  /** Trade id, aggregate trade id or update id. */
  readonly id: number
  /** Trade time, or receipt for bookTicker; milliseconds since the Unix epoch. */
  readonly timeMs: number
}

/** A message on its way to Kafka. */
export interface OutgoingMessage {
  readonly topic: string
  readonly partition: number
  readonly key: Buffer | null
  readonly value: Buffer
  /** Where the value stands, where it has no buffer of its own. */
  readonly slice?: ByteSlice
  readonly headers: Map<Buffer, Buffer>
  /** Milliseconds since the Unix epoch: the time of ingestion, always. */
  readonly timestampMs: number
  /** Null for rejected frames, gaps and checkpoints, which are counted apart from events. */
  readonly mark: EventMark | null
  /** Of a message that is a row of the ledger. */
  readonly gap?: Gap
  /** On the monotonic clock. */
  readonly queuedAtMs: number
}

/** What a queued message costs beside the bytes of its value: 200 of objects, and what the collector leaves lying for a while. */
const OVERHEAD_BYTES = 260

/**
 * The bounded queue before Kafka, first in, first out. It never refuses a message; when it is full, whoever reads
 * the WebSocket stops reading, and goes on once it is half empty.
 */
export class MessageQueue {
  readonly #maxBytes: number
  #messages: OutgoingMessage[] = []
  #head = 0
  #bytes = 0
  #events = 0
  #full = false
  #pushed = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get length(): number {
    return this.#messages.length - this.#head
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Messages that are events. */
  get events(): number {
    return this.#events
  }

  /** How many messages were ever queued. */
  get pushed(): number {
    return this.#pushed
  }

  /** True from the moment the limit is reached until half of it is free. */
  get isFull(): boolean {
    return this.#full
  }

  get oldestQueuedAtMs(): number | null {
    return this.#messages[this.#head]?.queuedAtMs ?? null
  }

  push(message: OutgoingMessage): void {
    this.#messages.push(message)
    this.#pushed++
    this.#bytes += sizeOf(message)
    if (message.mark !== null) this.#events++
    if (this.#bytes >= this.#maxBytes) this.#full = true
  }

  /** Removes and returns the oldest: at most `count`, and of at most `maxBytes`, but one at least. */
  take(count: number, maxBytes: number): OutgoingMessage[] {
    let end = this.#head
    for (let bytes = 0; end < this.#messages.length && end < this.#head + count; end++) {
      const message = this.#messages[end]
      if (message !== undefined) bytes += sizeOf(message)
      if (bytes > maxBytes && end > this.#head) break
    }
    const taken = this.#messages.slice(this.#head, end)
    this.#head += taken.length
    if (this.#head === this.#messages.length) {
      this.#messages = []
      this.#head = 0
    } else if (this.#head > 10_000 && this.#head * 2 > this.#messages.length) {
      this.#messages = this.#messages.slice(this.#head)
      this.#head = 0
    }
    for (const message of taken) {
      this.#bytes -= sizeOf(message)
      if (message.mark !== null) this.#events--
    }
    if (this.#bytes <= this.#maxBytes / 2) this.#full = false
    return taken
  }
}

function sizeOf(message: OutgoingMessage): number {
  const { slice } = message
  return OVERHEAD_BYTES + (slice === undefined ? message.value.length : slice.end - slice.start)
}
