import { MessageBlock } from './message-block.ts'
import type { OutgoingMessage } from './outgoing-message.ts'

/**
 * The bounded queue before Kafka, first in, first out. It never refuses a message. When it is full,
 * the sockets pause until half of it is free.
 */
export class MessageQueue {
  readonly #maxBytes: number
  /** Empty only when the queue is. */
  #oldest = new MessageBlock()
  #newest = this.#oldest
  #length = 0
  #bytes = 0
  #events = 0
  #full = false
  #reserved = 0
  #pushed = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get length(): number {
    return this.#length
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Queued messages that are events. */
  get events(): number {
    return this.#events
  }

  /** Number of messages ever queued. */
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

  push(message: OutgoingMessage): void {
    if (this.#newest.isFull) this.#beginBlock()
    this.#bytes += this.#newest.push(message)
    this.#length++
    this.#pushed++
    if (message.mark !== null) this.#events++
    if (this.#bytes + this.#reserved >= this.#maxBytes) this.#full = true
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
    if (this.#bytes <= (this.#maxBytes - this.#reserved) / 2) this.#full = false
    return taken
  }

  #beginBlock(): void {
    const block = new MessageBlock()
    this.#newest.next = block
    this.#newest = block
    if (this.#oldest.isEmpty) this.#leaveBlock()
  }

  /**
   * Unlinks the old block. Otherwise the collector would keep each following block until it marks
   * all objects.
   */
  #leaveBlock(): void {
    const { next } = this.#oldest
    if (next === null) return
    this.#oldest.next = null
    this.#oldest = next
  }
}
