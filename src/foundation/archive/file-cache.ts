import { createHash, randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { link, readdir, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { codeOf, describeError, isTapelineError, nullIfMissing, TapelineError } from '../runtime/errors.ts'
import { localFiles } from './local-files.ts'
import type { FileContent } from './object-store.ts'

/** A process touches its folder this often; one that has not done so for long has ended. */
const TOUCH_MS = 60_000
const ABANDONED_MS = 3_600_000

/** Downloads at once, and attempts for one of them. */
const MAX_DOWNLOADS = 8
const ATTEMPTS = 3

/** After making room this share of the space is free, so that the files are not counted each time. */
const FREE_SHARE = 0.1

export interface FileCacheOptions {
  readonly folder: string
  readonly maxBytes: number
}

/** A file that is being downloaded. */
export interface Download {
  readonly bytes: number
  readonly chunks: AsyncIterable<Uint8Array>
  /** Ends it, also before the chunks are read. */
  close(): void
}

interface Wanted {
  /** Where it stays; null: nowhere. */
  readonly cached: string | null
  readonly path: string
  readonly id: string
  readonly expected: FileContent | undefined
  readonly download: () => Promise<Download>
}

/**
 * Keeps downloaded files in a folder that several processes may share, and removes those that were
 * used longest ago. Each use is a hard link in a folder of the process: a file with a second link is
 * in use, and what a killed process used becomes free when its folder is removed.
 */
export class FileCache {
  /** A folder of this process for files that are not complete. It exists after {@link open}. */
  readonly ownFolder: string
  readonly #folder: string
  readonly #files: string
  readonly #maxBytes: number
  readonly #downloads = new Map<string, Promise<void>>()
  readonly #waiting: Array<() => void> = []
  #active = 0
  /** Bytes of the files, or more; null before they are counted. */
  #counted: number | null = null
  /** Bytes of the running downloads. */
  #reserved = 0
  #makingRoom: Promise<unknown> = Promise.resolve()
  #opened: Promise<void> | null = null
  #touching: NodeJS.Timeout | undefined

  constructor({ folder, maxBytes }: FileCacheOptions) {
    this.#folder = folder
    this.#maxBytes = maxBytes
    this.#files = join(folder, 'files')
    this.ownFolder = join(folder, 'processes', randomUUID())
  }

  /** Makes the folders, and removes those of processes that have ended. */
  async open(): Promise<void> {
    this.#opened ??= this.#open()
    try {
      await this.#opened
    } catch (error) {
      this.#opened = null
      throw this.#unusable(error)
    }
  }

  /**
   * Returns the path of a file, and downloads it if it is not here. Calls for one file share the
   * download. The path stays until {@link release}.
   *
   * @param id identifies the content, among all archives
   * @param expected `fresh`: downloads it although it is here, and does not keep it
   * @throws TapelineError `ARCHIVE` if the download has other content than expected; `STORE` if the
   *   folder cannot be used, or the files in use leave no room
   */
  async copy(
    id: string,
    expected: FileContent | 'fresh' | undefined,
    download: () => Promise<Download>,
  ): Promise<string> {
    await this.open()
    const cached = join(this.#files, createHash('sha256').update(id).digest('hex'))
    const path = join(this.ownFolder, `${randomUUID()}.parquet`)
    try {
      if (expected === 'fresh') {
        await this.#inTurn(() => this.#download({ cached: null, path, id, expected: undefined, download }))
        return path
      }
      while (!(await this.#use(cached, path, expected))) {
        const running = this.#downloads.get(cached)
        if (running !== undefined) {
          await running
          continue
        }
        const ours = this.#inTurn(() => this.#download({ cached, path, id, expected, download }))
        this.#downloads.set(cached, ours)
        try {
          await ours
          return path
        } finally {
          this.#downloads.delete(cached)
        }
      }
      return path
    } catch (error) {
      // Only errors of the folder have a path.
      throw codeOf(error) === undefined ? error : this.#unusable(error)
    }
  }

  async release(paths: readonly string[]): Promise<void> {
    for (const path of paths) await rm(path, { force: true })
  }

  async close(): Promise<void> {
    clearInterval(this.#touching)
    await rm(this.ownFolder, { recursive: true, force: true })
  }

  async #open(): Promise<void> {
    await localFiles.makeFolder(this.#files)
    await localFiles.makeFolder(this.ownFolder)
    await this.#removeAbandoned()
    clearInterval(this.#touching)
    // If it fails, the next use shows why.
    this.#touching = setInterval(() => void this.#touch().catch(() => {}), TOUCH_MS).unref()
  }

  /** Keeps other processes from removing the folder. */
  async #touch(): Promise<void> {
    await localFiles.makeFolder(this.ownFolder)
    const now = new Date()
    await utimes(this.ownFolder, now, now)
  }

  async #removeAbandoned(): Promise<void> {
    const others = join(this.#folder, 'processes')
    for (const name of await readdir(others)) {
      const path = join(others, name)
      const found = await nullIfMissing(stat(path))
      if (found !== null && Date.now() - found.mtimeMs > ABANDONED_MS)
        await rm(path, { recursive: true, force: true })
    }
  }

  /** @returns false if the file is not here, or not whole */
  async #use(cached: string, path: string, expected: FileContent | undefined): Promise<boolean> {
    if ((await nullIfMissing(link(cached, path).then(() => true))) === null) return false
    const { size, mtime } = await stat(path)
    if (expected !== undefined && size !== expected.bytes) {
      await rm(cached, { force: true })
      await rm(path)
      return false
    }
    await utimes(path, new Date(), mtime)
    return true
  }

  async #download(wanted: Wanted): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const download = await wanted.download()
      try {
        return await this.#attempt(wanted, download)
      } catch (error) {
        // An answer that was cut. Requests are repeated by the library.
        if (attempt === ATTEMPTS || !isTapelineError(error, 'STORE')) throw error
      }
    }
  }

  /** Downloads to the path, which is in use then, and adds a link among the files. */
  async #attempt({ cached, path, id, expected }: Wanted, { bytes, chunks, close }: Download): Promise<void> {
    let isWhole = false
    try {
      if (expected !== undefined && bytes !== expected.bytes)
        throw damaged(id, `it has ${bytes} bytes, not ${expected.bytes}`)
      await this.#makeRoom(bytes)
      try {
        const sha256 = await this.#receive(chunks, path)
        if (expected !== undefined && sha256 !== expected.sha256)
          throw damaged(id, `its SHA-256 is ${sha256}, not ${expected.sha256}`)
        if (cached !== null) {
          // Another process may have been faster.
          await link(path, cached).catch((error: unknown) => {
            if (codeOf(error) !== 'EEXIST') throw error
          })
          this.#counted = (this.#counted ?? 0) + bytes
        }
        isWhole = true
      } finally {
        this.#reserved -= bytes
      }
    } finally {
      close()
      if (!isWhole) await rm(path, { force: true })
    }
  }

  /** Writes the chunks to a file. @returns their SHA-256 in hexadecimal */
  async #receive(chunks: AsyncIterable<Uint8Array>, path: string): Promise<string> {
    const hash = createHash('sha256')
    const hashed = async function* () {
      for await (const chunk of chunks) {
        hash.update(chunk)
        yield chunk
      }
    }
    await pipeline(hashed, createWriteStream(path, { flags: 'wx', flush: true }))
    return hash.digest('hex')
  }

  /** Waits for its turn among the downloads. */
  async #inTurn(work: () => Promise<void>): Promise<void> {
    if (this.#active >= MAX_DOWNLOADS) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#active++
    try {
      await work()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#active--
      else next()
    }
  }

  /** Reserves bytes. Files are counted when they may not fit: other processes add and remove some. */
  async #makeRoom(bytes: number): Promise<void> {
    const work = async () => {
      const wanted = this.#reserved + bytes
      if (this.#counted === null || this.#counted + wanted > this.#maxBytes)
        this.#counted = await this.#removeOldest(wanted)
      this.#reserved += bytes
    }
    const turn = this.#makingRoom.then(work, work)
    this.#makingRoom = turn
    await turn
  }

  /** Removes files until there is room. @returns the bytes of the others */
  async #removeOldest(bytes: number): Promise<number> {
    const files = []
    for (const name of await readdir(this.#files)) {
      const path = join(this.#files, name)
      const found = await nullIfMissing(stat(path))
      if (found !== null)
        files.push({ path, ...{ bytes: found.size, atMs: found.atimeMs, links: found.nlink } })
    }
    let used = files.reduce((sum, file) => sum + file.bytes, 0)
    if (used + bytes <= this.#maxBytes) return used
    const target = this.#maxBytes * (1 - FREE_SHARE)
    const unused = files.filter(({ links }) => links === 1).sort((a, b) => a.atMs - b.atMs)
    for (const file of unused) {
      if (used + bytes <= target) break
      await rm(file.path, { force: true })
      used -= file.bytes
    }
    if (used + bytes <= this.#maxBytes) return used
    const needed = Math.ceil((used + bytes) / 2 ** 20)
    throw new TapelineError(
      'STORE',
      `The cache ${this.#folder} is full: files in use and the next one have ${needed} MiB`,
      { fix: `Set ARCHIVE_CACHE_MB to more than ${needed}; a day that is published needs all its files.` },
    )
  }

  #unusable(error: unknown): TapelineError {
    if (isTapelineError(error)) return error
    return new TapelineError('STORE', `The cache ${this.#folder} cannot be used: ${describeError(error)}`, {
      fix: 'Make room there, or set ARCHIVE_CACHE to a folder that can be written.',
      cause: error,
    })
  }
}

function damaged(id: string, why: string): TapelineError {
  return new TapelineError('ARCHIVE', `The archive is damaged at ${id}: ${why}`, {
    fix: 'Restore the file from a copy of the archive.',
  })
}
