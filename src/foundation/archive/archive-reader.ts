import { mkdtemp, rm, stat } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExchangeIdentity } from '../kafka/exchange-identity-mark.ts'
import { codeOf, describeError, isTapelineError, nullIfMissing, TapelineError } from '../runtime/errors.ts'
import { requireMark } from './archive-mark.ts'
import { ArchiveSnapshot, lostFile } from './archive-snapshot.ts'
import { type DuckDb, type DuckDbEngine, openDuckDb } from './duckdb.ts'
import type { ObjectStore } from './object-store.ts'
import { type ArchiveLocation, openStore } from './open-store.ts'

/** So often a read begins again because compaction has replaced its files. */
const MAX_ATTEMPTS = 5

export interface ArchiveReaderOptions extends ArchiveLocation {
  /** Bytes that the engine may use. */
  readonly memoryBytes: number
  /** Null: a folder of the system's, removed at the end. */
  readonly tempFolder: string | null
  /** Makes the running statement fail with the signal's reason. */
  readonly signal?: AbortSignal
}

/** Reads an archive, also while services write to it. Changes nothing. */
export class ArchiveReader {
  readonly store: ObjectStore
  readonly mark: ExchangeIdentity
  readonly duckDb: DuckDb
  readonly #engine: DuckDbEngine
  readonly #connections = new Set<DuckDb>()
  readonly #signal: AbortSignal | undefined
  readonly #ownTemp: string | null
  readonly #onAbort = () => {
    for (const one of this.#connections) one.interrupt()
  }

  private constructor(
    opened: { store: ObjectStore; mark: ExchangeIdentity; engine: DuckDbEngine; duckDb: DuckDb },
    ownTemp: string | null,
    signal: AbortSignal | undefined,
  ) {
    this.store = opened.store
    this.mark = opened.mark
    this.duckDb = opened.duckDb
    this.#engine = opened.engine
    this.#ownTemp = ownTemp
    this.#signal = signal
    this.#connections.add(opened.duckDb)
    signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** @throws TapelineError `ARCHIVE` if there is no archive, or one that this program cannot read */
  static async open(options: ArchiveReaderOptions): Promise<ArchiveReader> {
    const { url, memoryBytes, tempFolder, signal } = options
    const store = await openExisting(options).catch(refused(url))
    const mark = await requireMark(store).catch(refused(url))
    const ownTemp = tempFolder === null ? await mkdtemp(join(tmpdir(), 'tapeline-read-')) : null
    const engine = await openDuckDb({
      memoryBytes,
      tempFolder: ownTemp ?? tempFolder ?? '',
      threads: availableParallelism(),
    })
    const duckDb = await engine.connect()
    // Files do not change, and several queries read the same ones.
    await duckDb.run('SET parquet_metadata_cache = true')
    return new ArchiveReader({ store, mark, engine, duckDb }, ownTemp, signal)
  }

  /** Another connection: the statements of one run one at a time. */
  async connect(): Promise<DuckDb> {
    const duckDb = await this.#engine.connect()
    this.#connections.add(duckDb)
    return duckDb
  }

  /**
   * Reads at one moment. If compaction replaces files so long ago that they are removed, the work is
   * repeated at a later moment: it must have no effect before it ends. If it had one, it throws a
   * TapelineError, which is not repeated.
   *
   * @throws TapelineError `ARCHIVE` if a file is lost
   */
  async read<Result>(work: (snapshot: ArchiveSnapshot) => Promise<Result>): Promise<Result> {
    let missingBefore: ReadonlySet<string> = new Set()
    for (let attempt = 1; ; attempt++) {
      this.#signal?.throwIfAborted()
      await using snapshot = await ArchiveSnapshot.take(this.store).catch(refused(this.store.name))
      try {
        return await work(snapshot)
      } catch (error) {
        this.#signal?.throwIfAborted()
        if (isTapelineError(error)) throw error
        const missing = await snapshot.missingFiles()
        const lost = missing.find((key) => missingBefore.has(key))
        if (lost !== undefined) throw lostFile(lost)
        if (missing.length === 0 || attempt === MAX_ATTEMPTS) throw error
        missingBefore = new Set(missing)
      }
    }
  }

  async close(): Promise<void> {
    this.#signal?.removeEventListener('abort', this.#onAbort)
    this.#engine.close()
    await this.store.close()
    if (this.#ownTemp !== null) await rm(this.#ownTemp, { recursive: true, force: true })
  }
}

/** Opens the archive for the work, and closes it after it. */
export async function withArchive<Result>(
  options: ArchiveReaderOptions,
  work: (reader: ArchiveReader) => Promise<Result>,
): Promise<Result> {
  const reader = await ArchiveReader.open(options)
  try {
    return await work(reader)
  } finally {
    await reader.close()
  }
}

/** A folder that is not there would look like an archive without rows. */
async function openExisting(location: ArchiveLocation): Promise<ObjectStore> {
  const { url } = location
  if (!url.startsWith('s3://') && (await nullIfMissing(stat(url))) === null)
    throw cannotOpen(url, 'there is no such folder')
  return openStore(location)
}

/** Throws any error again, with the fix if a person has to change the folder or its rights. */
function refused(url: string): (error: unknown) => never {
  return (error) => {
    const code = codeOf(error)
    if (code === 'ENOTDIR') throw cannotOpen(url, 'it is not a folder')
    if (code !== 'EACCES' && code !== 'EPERM') throw error
    throw new TapelineError('ARCHIVE', `The archive ${url} cannot be read: ${describeError(error)}`, {
      fix: 'Give this user the right to read all folders and files of the archive.',
      cause: error,
    })
  }
}

function cannotOpen(url: string, why: string): TapelineError {
  return new TapelineError('ARCHIVE', `The archive ${url} cannot be opened: ${why}`, {
    fix: 'Set ARCHIVE_URL to the folder of an archive. `up --archive` names its folder when it stops.',
  })
}
