import type { ByteSlice } from '../../foundation/runtime/byte-slice.ts'

const SLAB_BYTES = 64 << 10

/** Writes texts behind one another into buffers, each of which lives as long as one of its texts is wanted. */
export class ByteSlab {
  #bytes = Buffer.alloc(0)
  #at = 0

  /**
   * @param text with its last byte left out
   * @param tail written in place of that
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
