import { MessageBlock } from './message-block.ts'
import type { OutgoingMessage } from './outgoing-message.ts'

/**
 * The bounded queue before Kafka, first in, first out. It never refuses a message; when it is full, whoever reads
 * the WebSocket stops reading, and goes on once it is half empty.
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

  /** On the monotonic clock; null when it is empty. */
  get oldestQueuedAtMs(): number | null {
    return this.#oldest.oldestQueuedAtMs
  }

  /** So many bytes of the limit are used elsewhere. */
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

  /** Removes and returns the oldest: at most `count`, and of at most `maxBytes`, but one at least. */
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

  /** An old block that still named its successor would make the collector keep each that follows, until it marks all objects. */
  #leaveBlock(): void {
    const { next } = this.#oldest
    if (next === null) return
    this.#oldest.next = null
    this.#oldest = next
  }
}
