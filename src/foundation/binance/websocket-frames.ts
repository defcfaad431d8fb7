import { isUtf8 } from 'node:buffer'

/** A whole message of text; no extension, no mask. */
const TEXT = 0x81
const PING = 0x89
const PONG = 0x8a

/** In the second byte: the length is in the two bytes that follow. A larger one is longer still, or masked. */
const LENGTH_FOLLOWS = 126

/** More than an event has. */
const END_SOON_BYTES = 1024

const NO_BYTES = Buffer.alloc(0)

export interface WebSocketFrameEvents {
  /** A message. */
  onText(text: Buffer): void
  /** A ping or pong, as it stands on the wire. */
  onControl(frame: Buffer): void
  /** Anything else: all bytes from its first on, also those that come later, are for a reader of the whole protocol. */
  onOther(bytes: Buffer): void
}

/**
 * Cuts the bytes of a WebSocket server into messages as long as they are of the one kind that the exchange sends: text in
 * one frame of at most 65,535 bytes, with pings and pongs between. That part of the protocol runs for every event, and costs
 * one object here. It has no judgement of the rest: a message in parts, a close, a mask, bytes that are no text.
 *
 * @see https://www.rfc-editor.org/rfc/rfc6455#section-5.2
 */
export class WebSocketFrames {
  readonly #events: WebSocketFrameEvents
  /** The beginning of a frame whose end has not come yet. */
  #rest: Buffer = NO_BYTES
  #isOther = false

  constructor(events: WebSocketFrameEvents) {
    this.#events = events
  }

  /** @param chunk not to be changed afterwards: messages are cut out of it */
  push(chunk: Buffer): void {
    let bytes = chunk
    let at = 0
    if (this.#rest.length > 0) {
      // A frame that was begun has its end near the beginning of the chunk, which is not to be copied for its sake.
      const end = this.#frame(Buffer.concat([this.#rest, chunk.subarray(0, END_SOON_BYTES)]), 0)
      if (end === null) bytes = Buffer.concat([this.#rest, chunk])
      else at = end - this.#rest.length
      this.#rest = NO_BYTES
    }
    while (!this.#isOther && at < bytes.length) {
      const next = this.#frame(bytes, at)
      if (next === null) break
      at = next
    }
    if (at === bytes.length) return
    const left = bytes.subarray(at)
    if (this.#isOther) this.#events.onOther(left)
    else this.#rest = left
  }

  /** @returns where the next frame begins; null when this one is not to be read here, or not yet */
  #frame(bytes: Buffer, at: number): number | null {
    const kind = bytes[at]
    const length = bytes[at + 1] ?? 0
    const isText = kind === TEXT
    if (
      (!isText && kind !== PING && kind !== PONG) ||
      length > (isText ? LENGTH_FOLLOWS : LENGTH_FOLLOWS - 1)
    ) {
      this.#isOther = true
      return null
    }
    const start = at + (length === LENGTH_FOLLOWS ? 4 : 2)
    if (start > bytes.length) return null
    const end = start + (length === LENGTH_FOLLOWS ? bytes.readUInt16BE(at + 2) : length)
    if (end > bytes.length) return null
    if (!isText) {
      this.#events.onControl(bytes.subarray(at, end))
      return end
    }
    const text = bytes.subarray(start, end)
    if (isUtf8(text)) {
      this.#events.onText(text)
      return end
    }
    this.#isOther = true
    return null
  }
}
