import { open } from 'node:fs/promises'
import { PassThrough, type Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { describeError, TapelineError } from '../../foundation/runtime/errors.ts'

/** Lines are gathered until there are so many characters of them, or for so long. */
const CHUNK_CHARACTERS = 65_536
const LONGEST_WAIT_MS = 250
/** What may wait for the disk: beyond the first, the sockets pause, until it is down to the second. */
const FULL_BYTES = 4 * 1_024 * 1_024
const ROOM_BYTES = 1_024 * 1_024

/** Writes lines to a file, gzipped when its name ends in `.gz`. What waits in memory is bounded by its caller. */
export class CaptureWriter {
  /** Rejects with `ENVIRONMENT` when the file cannot be written any more; settles when it is complete. */
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
      throw new TapelineError('ENVIRONMENT', `${path} cannot be written any more: ${describeError(cause)}.`, {
        fix: 'Make room on the disk, or give a file on another.',
        cause,
      })
    })
    // Whoever waits for it sees the rejection.
    this.finished.catch(() => undefined)
  }

  /**
   * @param overwrite whether a file of this name may be replaced
   * @param onRoom called when `write` has said that it is full and there is room again
   * @throws {TapelineError} `INPUT` when the file is there already or cannot be made
   */
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

  /** Bytes that have gone to the file so far. */
  get fileBytes(): number {
    return this.#fileBytes
  }

  /** Takes a line with its end. False when no more should come before `onRoom`; this one is taken all the same. */
  write(line: string): boolean {
    this.#lines += line
    if (this.#lines.length >= CHUNK_CHARACTERS) this.#flush()
    else this.#timer ??= setTimeout(() => this.#flush(), LONGEST_WAIT_MS)
    return !this.#isFull
  }

  /** Writes what is left and completes the file. Rejects as `finished` does. */
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
    // After an error of the disk there is nobody left to write to; `finished` has told.
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
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
  const [what, fix] =
    code === 'EEXIST'
      ? ['is there already', 'Give another name, or --force to replace it.']
      : [
          `cannot be written: ${describeError(error)}`,
          'Give a name in a folder that is there and may be written.',
        ]
  return new TapelineError('INPUT', `${path} ${what}.`, { fix, cause: error })
}
