import { TapelineError } from '../runtime/errors.ts'
import { quotedPath } from './duckdb.ts'
import { localFiles } from './local-files.ts'
import type { FileContent, ObjectStore } from './object-store.ts'

/** A file, with what is known of its content. */
type StoredFile = Partial<FileContent> & { readonly key: string }

/** Local paths of an archive's files, which stay until this is disposed of. */
export class LocalCopies implements AsyncDisposable {
  readonly #store: ObjectStore
  readonly #paths = new Map<string, string>()

  constructor(store: ObjectStore) {
    this.#store = store
  }

  /** @throws TapelineError `ARCHIVE` if a file is missing or has other content, where that shows */
  async add(files: ReadonlyArray<StoredFile>): Promise<void> {
    const wanted = new Map(files.map((file) => [file.key, file]))
    const copies = [...wanted.values()].map(async (file) => {
      const { key, bytes, sha256 } = file
      if (this.#paths.has(key)) return
      const expected = bytes === undefined || sha256 === undefined ? undefined : { bytes, sha256 }
      const path = await this.#store.localCopy(key, expected)
      // Another call may have added it meanwhile.
      if (this.#paths.has(key)) await this.#store.release([path])
      else this.#paths.set(key, path)
    })
    // All of them, so that none is left over after a failure.
    const failure = (await Promise.allSettled(copies)).find(({ status }) => status === 'rejected')
    if (failure?.status === 'rejected') throw failure.reason
  }

  /** Reads files that were added, as a table of the engine. */
  read(files: ReadonlyArray<{ readonly key: string }>): string {
    const paths = files.map(({ key }) => quotedPath(this.#path(key)))
    return `read_parquet([${paths.join()}], hive_partitioning = false)`
  }

  /**
   * Compares files that were added with what the archive knows of their content. A copy that was
   * damaged after its download is replaced.
   *
   * @throws TapelineError `ARCHIVE` if one differs
   */
  async verify(files: ReadonlyArray<FileContent & { readonly key: string }>): Promise<void> {
    for (const file of files) {
      const { key } = file
      if (await hasContent(this.#path(key), file)) continue
      await this.#store.release([this.#path(key)])
      this.#paths.set(key, await this.#store.localCopy(key, 'fresh'))
      if (!(await hasContent(this.#path(key), file)))
        throw new TapelineError('ARCHIVE', `The archive is damaged: ${key} was altered`, {
          fix: 'Restore the file from a copy of the archive. `bin/tapeline archive check` names everything that is wrong.',
        })
    }
  }

  #path(key: string): string {
    const path = this.#paths.get(key)
    if (path === undefined) throw new Error(`There is no local copy of ${key}`)
    return path
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store.release([...this.#paths.values()])
    this.#paths.clear()
  }
}

async function hasContent(path: string, { bytes, sha256 }: FileContent): Promise<boolean> {
  const found = await localFiles.hash(path)
  return found.bytes === bytes && found.sha256 === sha256
}
