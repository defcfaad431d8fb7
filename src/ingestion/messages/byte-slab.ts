import type { ByteSlice } from '../../foundation/runtime/byte-slice.ts'

const SLAB_BYTES = 64 << 10

/**
 * Writes texts one after another into buffers; a buffer lives as long as one of its texts is used.
 */
export class ByteSlab {
  #bytes = Buffer.alloc(0)
  #at = 0

  /**
   * @param text without its last byte
   * @param tail written in its place
   */
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
