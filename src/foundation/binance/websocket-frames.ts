import { isUtf8 } from 'node:buffer'

/** A whole message of text; no extension, no mask. */
const TEXT = 0x81
const PING = 0x89
const PONG = 0x8a

/** In the second byte: the length is in the two bytes that follow. A larger one is longer still, or masked. */
const LENGTH_FOLLOWS = 126

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
  /** The parts of a frame whose end has not come yet. Each is copied once or twice, however small they are. */
  #begun: Buffer[] = []
  #begunBytes = 0
  /** How many bytes the frame that was begun has, or its head, as far as is known. */
  #needed = 0
  #isOther = false

  constructor(events: WebSocketFrameEvents) {
    this.#events = events
  }

  /** @param chunk not to be changed afterwards: messages are cut out of it */
  push(chunk: Buffer): void {
    let at = 0
    while (this.#begun.length > 0) {
      const part = chunk.subarray(at, at + this.#needed - this.#begunBytes)
      at += part.length
      this.#begin(part)
      if (this.#begunBytes < this.#needed) return
      const bytes = Buffer.concat(this.#begun)
      this.#begun = []
      this.#begunBytes = 0
      if (this.#frame(bytes, 0) !== null) break
      if (this.#isOther) {
        this.#events.onOther(Buffer.concat([bytes, chunk.subarray(at)]))
        return
      }
      this.#begin(bytes)
    }
    while (!this.#isOther && at < chunk.length) {
      const next = this.#frame(chunk, at)
      if (next === null) break
      at = next
    }
    if (at === chunk.length) return
    const left = chunk.subarray(at)
    if (this.#isOther) this.#events.onOther(left)
    else this.#begin(left)
  }

  #begin(part: Buffer): void {
    this.#begun.push(part)
    this.#begunBytes += part.length
  }

  /** @returns where the next frame begins; null when this one is not to be read here, or not yet: `needed` says from when on */
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
    this.#needed = start - at
    if (start > bytes.length) return null
    const end = start + (length === LENGTH_FOLLOWS ? bytes.readUInt16BE(at + 2) : length)
    this.#needed = end - at
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
