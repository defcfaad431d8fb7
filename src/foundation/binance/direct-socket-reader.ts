import type { OnReadOpts, Socket } from 'node:net'

/** What one read may bring; Node's own reads bring as much. */
const READ_BYTES = 64 << 10
const SLAB_BYTES = 4 * READ_BYTES

/**
 * The bytes of a connection on a shorter way than its stream. Node by itself makes a buffer of 64 KiB for every read, cuts it to its
 * length, and hands it through the stream's own queue: more than a few events in it cost. Here reads write behind one another into
 * a larger buffer, no byte of which is written twice, and go to their reader as they come.
 *
 * @see https://nodejs.org/docs/latest-v24.x/api/net.html#socketconnectoptions-connectlistener (`onread`)
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
        // TLS hands on what it has decrypted even of a connection that was paused meanwhile.
        if (direct === null || this.isPaused() || this.readableLength > 0) return this.push(bytes)
        direct(bytes)
        return true
      },
    }
  }

  /** From now on `reader` gets the bytes, but for those that the stream holds already or is paused for: these are its data. */
  begin(reader: (bytes: Buffer) => void): void {
    this.#reader = reader
  }

  /** From now on all bytes are the stream's data. */
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
