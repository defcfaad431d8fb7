import { createHash } from 'node:crypto'
import { dirname } from 'node:path'
import type { LocalFiles } from '../../src/foundation/archive/local-files.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { LifeClock } from '../support/life-clock.ts'

interface File {
  readonly bytes: Buffer
  isSynced: boolean
}

const FOLDER: unique symbol = Symbol('folder')
type Entry = File | typeof FOLDER
type Names = Map<string, Entry>

/** Errors of a full or broken disk. */
const ERRORS = ['ENOSPC', 'EIO'] as const

export type DiskDefect = 'syncs do nothing' | 'a link replaces a file'

/**
 * A file system in memory. What was not synced may be lost at a power failure: content before the sync
 * of its file, names before the sync of their folder.
 */
export class MemoryDisk {
  /** Share of calls that fail, half of them after they took effect. */
  failing = 0
  defect: DiskDefect | null = null
  readonly faults: Record<string, number> = {}
  readonly #random: Random
  #names: Names = new Map([['/', FOLDER]])
  /** The content that is there after a power failure, as far as the folders above are. */
  #durable: Names = new Map(this.#names)

  constructor(random: Random) {
    this.#random = random
  }

  /** Ends with what was synced, and some of what was not. */
  powerFailure(): void {
    const after: Names = new Map()
    for (const path of [...new Set([...this.#durable.keys(), ...this.#names.keys()])].sort()) {
      const [was, is] = [this.#durable.get(path), this.#names.get(path)]
      const isLater = was !== is && this.#random.chance(0.5)
      const entry = (isLater ? this.#names : this.#durable).get(path)
      if (entry === undefined || (path !== '/' && after.get(dirname(path)) !== FOLDER)) continue
      after.set(path, entry === FOLDER || entry.isSynced ? entry : { bytes: Buffer.alloc(0), isSynced: true })
    }
    this.#names = after
    this.#durable = new Map(after)
  }

  writeUnsynced(path: string, bytes: Buffer): void {
    this.#require(dirname(path), FOLDER)
    this.#names.set(path, { bytes, isSynced: false })
  }

  /** @param life of a process; null: without delays and faults */
  open(life: LifeClock | null): LocalFiles {
    const call = async <Result>(work: () => Result): Promise<Result> => {
      if (life === null) return work()
      const random = this.#random
      const fails = random.chance(this.failing)
      await life.wait(random.chance(0.01) ? random.between(100, 20_000) : random.between(0.1, 5))
      if (fails && random.chance(0.5)) throw this.#failure('before')
      const result = work()
      // A process may end between the effect and the answer.
      await life.wait(random.between(0.1, 2))
      if (fails) throw this.#failure('after')
      return result
    }
    return {
      createSynced: (path, bytes) =>
        call(() => {
          if (this.#names.has(path)) throw failure('EEXIST')
          this.writeUnsynced(path, Buffer.from(bytes))
          this.#syncFile(path)
        }),
      syncFile: (path) => call(() => this.#syncFile(path)),
      syncFolder: (path) => call(() => this.#syncFolder(path)),
      link: (path, second) =>
        call(() => {
          if (this.#names.has(second) && this.defect !== 'a link replaces a file') throw failure('EEXIST')
          this.#require(dirname(second), FOLDER)
          this.#names.set(second, this.#file(path))
        }),
      rename: (path, to) =>
        call(() => {
          this.#require(dirname(to), FOLDER)
          this.#names.set(to, this.#file(path))
          this.#names.delete(path)
        }),
      makeFolder: (path) =>
        call(() => {
          for (let one = path; one !== '/'; one = dirname(one)) this.#names.set(one, FOLDER)
        }),
      entries: (folder) =>
        call(() => {
          this.#require(folder, FOLDER)
          const inside = [...this.#names].filter(([path]) => path !== '/' && dirname(path) === folder)
          return inside.map(([path, entry]) => ({
            name: path.slice(path.lastIndexOf('/') + 1),
            isFolder: entry === FOLDER,
          }))
        }),
      read: (path) => call(() => this.#file(path).bytes),
      hash: (path) =>
        call(() => {
          const { bytes } = this.#file(path)
          return { sha256: createHash('sha256').update(bytes).digest('hex'), bytes: bytes.length }
        }),
      // Never stale.
      changedAtMs: () => call(() => Number.POSITIVE_INFINITY),
      remove: (path) => call(() => void this.#names.delete(path)),
    }
  }

  #syncFile(path: string): void {
    const file = this.#file(path)
    if (this.defect !== 'syncs do nothing') file.isSynced = true
  }

  #syncFolder(path: string): void {
    this.#require(path, FOLDER)
    if (this.defect === 'syncs do nothing') return
    const isInside = (one: string) => one !== '/' && dirname(one) === path
    for (const one of [...this.#durable.keys()])
      if (isInside(one) && !this.#names.has(one)) this.#durable.delete(one)
    for (const [one, entry] of this.#names) if (isInside(one)) this.#durable.set(one, entry)
  }

  #file(path: string): File {
    const entry = this.#names.get(path)
    if (entry === undefined || entry === FOLDER) throw failure('ENOENT')
    return entry
  }

  #require(path: string, entry: Entry): void {
    if (this.#names.get(path) !== entry) throw failure('ENOENT')
  }

  #failure(when: string): Error {
    const code = this.#random.pick(ERRORS)
    const name = `${code} ${when} the effect`
    this.faults[name] = (this.faults[name] ?? 0) + 1
    return failure(code)
  }
}

function failure(code: string): Error {
  return Object.assign(new Error(`${code}: planted`), { code })
}
