import { open } from 'node:fs/promises'
import { PassThrough, type Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { describeError, TapelineError } from '../../foundation/runtime/errors.ts'

/** Lines are written once they have this many characters, or after this time. */
const CHUNK_CHARACTERS = 65_536
const LONGEST_WAIT_MS = 250
/** Bytes waiting for the disk. Sockets pause above the first limit, and resume below the second. */
const FULL_BYTES = 4 * 1_024 * 1_024
const ROOM_BYTES = 1_024 * 1_024

/** Writes lines to a file, gzipped if its name ends in `.gz`. The caller bounds what waits. */
export class CaptureWriter {
  /** Resolves when the file is complete. Rejects with `ENVIRONMENT` when it cannot be written. */
  readonly finished: Promise<void>
  readonly #sink: Transform
  readonly #onRoom: () => void
  #lines = ''
  #waitingBytes = 0
  #fileBytes = 0
  #isFull = false
  #timer: NodeJS.Timeout | undefined

  private constructor(path: string, sink: Transform, file: NodeJS.WritableStream, onRoom: () => void) {
    this.#sink = sink
    this.#onRoom = onRoom
    sink.on('data', (chunk: Buffer) => {
      this.#fileBytes += chunk.length
    })
    this.finished = pipeline(sink, file).catch((cause: unknown) => {
      throw new TapelineError('ENVIRONMENT', `${path} can no longer be written: ${describeError(cause)}.`, {
        fix: 'Free some disk space, or use a file on another disk.',
        cause,
      })
    })
    // Callers that await it see the rejection.
    this.finished.catch(() => undefined)
  }

  /** @param onRoom called when there is room again @throws {TapelineError} `INPUT` if it exists */
  static async open(
    path: string,
    { overwrite, onRoom }: { overwrite: boolean; onRoom: () => void },
  ): Promise<CaptureWriter> {
    const file = await open(path, overwrite ? 'w' : 'wx').catch((error: unknown) => {
      throw openError(path, error)
    })
    const sink = path.endsWith('.gz') ? createGzip() : new PassThrough()
    return new CaptureWriter(path, sink, file.createWriteStream(), onRoom)
  }

  get fileBytes(): number {
    return this.#fileBytes
  }

  /** Takes a line including its end. False: write no more before `onRoom`; this one is accepted. */
  write(line: string): boolean {
    this.#lines += line
    if (this.#lines.length >= CHUNK_CHARACTERS) this.#flush()
    else this.#timer ??= setTimeout(() => this.#flush(), LONGEST_WAIT_MS)
    return !this.#isFull
  }

  /** Writes the remaining lines and completes the file. Rejects as `finished` does. */
  async close(): Promise<void> {
    this.#flush()
    this.#sink.end()
    await this.finished
  }

  #flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const bytes = Buffer.from(this.#lines)
    this.#lines = ''
    // The disk has failed, which `finished` reports.
    if (bytes.length === 0 || this.#sink.destroyed) return
    this.#waitingBytes += bytes.length
    this.#isFull ||= this.#waitingBytes > FULL_BYTES
    this.#sink.write(bytes, () => {
      this.#waitingBytes -= bytes.length
      if (!this.#isFull || this.#waitingBytes > ROOM_BYTES) return
      this.#isFull = false
      this.#onRoom()
    })
  }
}

function openError(path: string, error: unknown): TapelineError {
  const isThere = Reflect.get(Object(error), 'code') === 'EEXIST'
  const what = isThere ? 'exists already' : `cannot be written: ${describeError(error)}`
  return new TapelineError('INPUT', `${path} ${what}.`, {
    fix: isThere
      ? 'Use another name, or --force to replace it.'
      : 'Use a name in an existing folder with write permission.',
    cause: error,
  })
}
