import { isUtf8 } from 'node:buffer'

/** A whole text message; no extension, no mask. */
const TEXT = 0x81
const PING = 0x89
const PONG = 0x8a

/**
 * Value of the second byte: the length is in the next two bytes. Higher values mean a longer or a
 * masked frame.
 */
const LENGTH_FOLLOWS = 126

export interface WebSocketFrameEvents {
  /** A message. */
  onText(text: Buffer): void
  /** A ping or pong, with its frame bytes. */
  onControl(frame: Buffer): void
  /** Anything else: this byte and all later ones need a reader of the full protocol. */
  onOther(bytes: Buffer): void
}

/**
 * Splits the bytes of a WebSocket server into messages, for the only kind that the exchange sends:
 * text in one frame of at most 65,535 bytes, with pings and pongs in between. This part of the
 * protocol runs for every event and costs one object here. Other frames (fragments, close, masks,
 * binary) are not interpreted.
 *
 * @see https://www.rfc-editor.org/rfc/rfc6455#section-5.2
 */
export class WebSocketFrames {
  readonly #events: WebSocketFrameEvents
  /** The parts of an unfinished frame. Each is copied once or twice, however small it is. */
  #begun: Buffer[] = []
  #begunBytes = 0
  /** Length of the unfinished frame, or of its head, as far as known. */
  #needed = 0
  #isOther = false

  constructor(events: WebSocketFrameEvents) {
    this.#events = events
  }

  /** @param chunk must not change afterwards: messages are slices of it */
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

  /**
   * @returns where the next frame begins; null if this one is incomplete or must not be read here:
   *   `needed` says how many bytes to wait for
   */
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
