import type { ArchiveReader } from '../../foundation/archive/archive-reader.ts'
import { KEYFRAMES, parseKeyframe } from '../../foundation/archive/archived-keyframes.ts'
import {
  type ChainPoint,
  CommitChain,
  chainPath,
  chainsOf,
  isBefore,
  ORIGIN,
} from '../../foundation/archive/commit-chain.ts'
import {
  type DayFile,
  type DayList,
  dayListKey,
  dayListKeys,
  publishedDates,
  readDayList,
} from '../../foundation/archive/day-list.ts'
import { quotedPath } from '../../foundation/archive/duckdb.ts'
import { localFiles } from '../../foundation/archive/local-files.ts'
import { DAY_TABLES } from '../../foundation/archive/tables.ts'
import { ADOPTED_FOLDER } from '../../foundation/archive/text-relations.ts'
import { codeOf, describeError } from '../../foundation/runtime/errors.ts'

export interface CheckResult {
  /** What was read. */
  readonly counts: { records: number; lists: number; files: number; rows: number; bytes: number }
  /** Each names its file. */
  readonly wrong: string[]
  /** What this user may not read, and so was not checked. */
  readonly unreadable: string[]
  /** Leftovers that a later sweep removes. */
  readonly notes: string[]
}

interface NamedFile {
  readonly key: string
  readonly rows: number
  readonly bytes: number
  readonly sha256: string
}

const OWN_FOLDERS = new Set([
  ADOPTED_FOLDER,
  '_commits',
  '_conflicts',
  '_days',
  '_folds',
  KEYFRAMES,
  '_segments',
  '_staging',
  ...DAY_TABLES.keys(),
])
const UUID = /[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}/
const DAY_FILE_NAME = new RegExp(`/date=\\d{4}-\\d{2}-\\d{2}/\\d{8}-${UUID.source}\\.parquet$`)

/**
 * Reads every record, list and file of an archive, and names what is missing, altered or foreign. The
 * archive may be written to meanwhile.
 *
 * @param onFile is called before each file, with its size
 */
export async function checkArchive(
  reader: ArchiveReader,
  onFile: (key: string, bytes: number) => void = () => {},
): Promise<CheckResult> {
  const check = new Check(reader, onFile)
  await check.found(() => check.folders())
  await check.found(() => check.chains())
  await check.found(() => check.adopted())
  await check.found(() => check.keyframes())
  for (const table of DAY_TABLES.keys()) await check.found(() => check.table(table))
  return check.result
}

class Check {
  readonly result: CheckResult = {
    counts: { records: 0, lists: 0, files: 0, rows: 0, bytes: 0 },
    wrong: [],
    unreadable: [],
    notes: [],
  }
  readonly #reader: ArchiveReader
  readonly #onFile: (key: string, bytes: number) => void
  /** Null if the records of the chain cannot be read to their end. */
  readonly #heads = new Map<string, ChainPoint | null>()
  /** By table and day, the end of the last folded record of each chain that has rows of it. */
  readonly #folded = new Map<string, Map<string, ChainPoint>>()

  constructor(reader: ArchiveReader, onFile: (key: string, bytes: number) => void) {
    this.#reader = reader
    this.#onFile = onFile
  }

  async folders(): Promise<void> {
    for (const name of await this.#reader.store.folders(''))
      if (!OWN_FOLDERS.has(name)) this.result.wrong.push(`${name}/: not a folder of an archive`)
  }

  async chains(): Promise<void> {
    const { store } = this.#reader
    const paths: string[] = []
    for (const partition of await chainsOf(store)) {
      paths.push(chainPath(partition))
      this.#heads.set(chainPath(partition), null)
      await this.found(() => this.#chain(new CommitChain(store, partition), chainPath(partition)))
    }
    const isKnown = (key: string) => paths.some((path) => key.startsWith(`_segments/${path}/`))
    for (const key of await store.list('_segments'))
      if (!isKnown(key)) this.result.wrong.push(`${key}: no chain of records has this partition`)
  }

  /** Every record; the files of those that are not in published days, and of texts. */
  async #chain(chain: CommitChain, path: string): Promise<void> {
    // Before the records: then those name each of these files that they will ever name.
    const unnamed = new Map((await chain.segmentFiles()).map(({ key, ...point }) => [key, point]))
    const foldedTo = await chain.foldedTo()
    let head: ChainPoint | null = null
    for await (const { incarnation, nextOffset, lost, files } of chain.eachRecord()) {
      const end = { incarnation, offset: nextOffset }
      head = end
      this.result.counts.records++
      if (lost > 0)
        this.result.notes.push(`_commits/${path}: ${lost} messages before offset ${nextOffset} were lost`)
      for (const file of files) {
        unnamed.delete(file.key)
        if (!DAY_TABLES.has(file.table)) await this.#file(file, async () => false)
        else if (isBefore(foldedTo, end))
          await this.#file(file, async () => !isBefore(await chain.foldedTo(), end))
        else for (const date of Object.keys(file.days)) this.#foldedOf(file.table, date).set(path, end)
      }
    }
    head ??= foldedTo
    this.#heads.set(path, head)
    if (isBefore(head, foldedTo))
      this.result.wrong.push(
        `_folds/${path}: names offset ${foldedTo.offset}, and the records end at ${head.offset}`,
      )
    for (const [key, point] of unnamed) {
      if (!key.endsWith('.parquet')) this.result.wrong.push(`${key}: not a file of an archive`)
      else if (isBefore(point, head)) this.result.notes.push(`${key}: no record names it`)
    }
  }

  #foldedOf(table: string, date: string): Map<string, ChainPoint> {
    const day = `${table}/${date}`
    const folded = this.#folded.get(day) ?? new Map<string, ChainPoint>()
    this.#folded.set(day, folded)
    return folded
  }

  /** Rows of before the archive, which no list names: whether the engine can read them. */
  async adopted(): Promise<void> {
    const { store, duckDb } = this.#reader
    for (const key of await store.list(ADOPTED_FOLDER)) {
      await this.found(async () => {
        const path = await store.localCopy(key, 'fresh')
        try {
          await duckDb.rows(`SELECT count(*), max(length(json)) FROM read_parquet(${quotedPath(path)})`)
        } catch (error) {
          throw new Error(`${key}: ${describeError(error).split('\n', 1)[0]}`, { cause: error })
        } finally {
          await store.release([path])
        }
      })
    }
  }

  /** Whether each can be read. They are no rows: `verify` compares them with the books. */
  async keyframes(): Promise<void> {
    const { store } = this.#reader
    for (const key of await store.list(KEYFRAMES))
      await this.found(async () => {
        const bytes = await store.read(key)
        if (bytes !== null) parseKeyframe(key, bytes)
      })
  }

  async table(table: string): Promise<void> {
    const { store } = this.#reader
    const onDisk = new Set(await store.list(table))
    const listed = new Set<string>()
    const folded = [...this.#folded.keys()].flatMap((day) => {
      const [name, date = ''] = day.split('/')
      return name === table ? [date] : []
    })
    for (const date of new Set([...(await publishedDates(store, table)), ...folded])) {
      await this.found(async () => {
        for (const key of await this.#day(table, date)) listed.add(key)
      })
    }
    for (const key of onDisk) {
      if (listed.has(key)) continue
      if (DAY_FILE_NAME.test(key)) this.result.notes.push(`${key}: not in the newest list of its day`)
      else this.result.wrong.push(`${key}: not a file of an archive`)
    }
  }

  /** @returns the files of the newest list */
  async #day(table: string, date: string): Promise<string[]> {
    const { store } = this.#reader
    const keys = await dayListKeys(store, table, date)
    let newest: DayList | null = null
    for (const [i, key] of keys.entries()) {
      const expected = dayListKey({ table, date, number: i + 1 })
      if (key !== expected) throw new Error(`${key}: expected ${expected}`)
      newest = await readDayList(store, key)
      this.result.counts.lists++
    }
    for (const [chain, point] of this.#foldedOf(table, date))
      if (isBefore(newest?.through[chain] ?? ORIGIN, point))
        this.result.wrong.push(
          `_days/${table}/${date}: its newest list is missing, which has ${chain} up to ${point.offset}`,
        )
    if (newest === null) return []
    const list = newest
    const key = keys.at(-1) ?? ''
    this.#compareSums(key, list)
    const isGone = async () => (await dayListKeys(store, table, date)).length > list.number
    for (const file of [...list.files, ...list.conflicts]) await this.#file(file, isGone, table)
    return list.files.map((file) => file.key)
  }

  #compareSums(key: string, { files, symbols, through }: DayList): void {
    const [ofFiles, ofSymbols] = [files, Object.values(symbols).flat()].map((all) =>
      all.reduce((sum, { rows }) => sum + rows, 0),
    )
    if (ofFiles !== ofSymbols)
      this.result.wrong.push(`${key}: its files have ${ofFiles} rows, its symbols ${ofSymbols}`)
    for (const [chain, point] of Object.entries(through)) {
      const head = this.#heads.get(chain)
      // That is named once, with the chain.
      if (head === null) continue
      if (head === undefined) this.result.wrong.push(`${key}: names the chain ${chain}, which has no records`)
      else if (isBefore(head, point))
        this.result.wrong.push(
          `${key}: has ${chain} up to ${point.offset}, and its records end at ${head.offset}`,
        )
    }
  }

  /** @param isGone whether a missing file is no longer needed */
  async #file(file: NamedFile | DayFile, isGone: () => Promise<boolean>, table?: string): Promise<void> {
    const { store, duckDb } = this.#reader
    this.#onFile(file.key, file.bytes)
    let path: string | null = null
    try {
      // Not a copy from before: the object itself is checked.
      path = await store.localCopy(file.key, 'fresh')
      const { sha256, bytes } = await localFiles.hash(path)
      if (sha256 !== file.sha256 || bytes !== file.bytes) {
        this.result.wrong.push(
          `${file.key}: ${bytes} bytes with another SHA-256 than its ${table ? 'list' : 'record'} names`,
        )
        return
      }
      const [found] = await duckDb.rows<{ rows: bigint }>(
        `SELECT count(*) AS rows FROM read_parquet(${quotedPath(path)}, hive_partitioning = false)`,
      )
      if (Number(found?.rows) !== file.rows)
        this.result.wrong.push(`${file.key}: ${found?.rows} rows instead of ${file.rows}`)
      this.result.counts.files++
      this.result.counts.rows += file.rows
      this.result.counts.bytes += bytes
    } catch (error) {
      if (await isGone()) return
      if (isForbidden(error)) this.result.unreadable.push(describeError(error))
      else this.result.wrong.push(`${file.key}: ${describeError(error)}`)
    } finally {
      if (path !== null) await store.release([path])
    }
  }

  /** Names the failure of a part, and continues with the next one. */
  async found(part: () => Promise<void>): Promise<void> {
    try {
      await part()
    } catch (error) {
      this.result[isForbidden(error) ? 'unreadable' : 'wrong'].push(describeError(error))
    }
  }
}

function isForbidden(error: unknown): boolean {
  const code = codeOf(error)
  return code === 'EACCES' || code === 'EPERM'
}
