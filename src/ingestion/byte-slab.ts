import type { ByteSlice } from '../kafka/record-writer.ts'

const SLAB_BYTES = 64 << 10

/** The most that a character of a string becomes. */
const BYTES_PER_CHARACTER = 3

/** Writes texts behind one another into buffers, each of which lives as long as one of its texts is wanted. */
export class ByteSlab {
  #bytes = Buffer.alloc(0)
  #at = 0

  /**
   * @param text with its last character left out
   * @param tail written in place of that; ASCII
   */
  write(text: string, tail: string): ByteSlice {
    const room = text.length * BYTES_PER_CHARACTER + tail.length
    if (this.#at + room > this.#bytes.length) {
      this.#bytes = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, room))
      this.#at = 0
    }
    const bytes = this.#bytes
    const start = this.#at
    const last = start + bytes.write(text, start, 'utf8') - 1
    const end = last + bytes.write(tail, last, 'latin1')
    this.#at = end
    return { bytes, start, end }
  }
}
