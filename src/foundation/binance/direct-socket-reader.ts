import type { OnReadOpts, Socket } from 'node:net'

/** Maximum bytes of one read, as in Node. */
const READ_BYTES = 64 << 10
const SLAB_BYTES = 4 * READ_BYTES

/**
 * Delivers the bytes of a connection without its stream. For each read Node allocates a buffer of
 * 64 KiB, truncates it and passes it through the stream's queue, which costs more than the few
 * events in it. Here reads are written one after another into a larger buffer, no byte twice, and
 * go directly to the reader.
 *
 * @see https://nodejs.org/docs/latest-v24.x/api/net.html#socketconnectoptions-connectlistener
 *   (`onread`)
 */
export class DirectSocketReader {
  #slab = Buffer.alloc(0)
  #at = 0
  #reader: ((bytes: Buffer) => void) | null = null

  /** For `onread` of one connection, plain or TLS. */
  readonly options: OnReadOpts

  constructor() {
    const take = (length: number) => this.#take(length)
    const reader = () => this.#reader
    this.options = {
      buffer: () => this.#room(),
      callback(this: Socket, length: number) {
        const bytes = take(length)
        const direct = reader()
        // TLS delivers decrypted bytes even if the connection was paused meanwhile.
        if (direct === null || this.isPaused() || this.readableLength > 0) return this.push(bytes)
        direct(bytes)
        return true
      },
    }
  }

  /**
   * Sends further bytes to `reader`. Bytes that the stream already holds, or receives while paused,
   * arrive as its data.
   */
  begin(reader: (bytes: Buffer) => void): void {
    this.#reader = reader
  }

  /** Sends further bytes to the stream again. */
  end(): void {
    this.#reader = null
  }

  #room(): Buffer {
    if (this.#slab.length - this.#at < READ_BYTES) {
      this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
      this.#at = 0
    }
    return this.#slab.subarray(this.#at, this.#at + READ_BYTES)
  }

  #take(length: number): Buffer {
    const start = this.#at
    this.#at = start + length
    return this.#slab.subarray(start, this.#at)
  }
}
