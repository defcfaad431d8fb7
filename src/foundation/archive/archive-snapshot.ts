import { dirname } from 'node:path'
import type { PartitionOrigin } from '../kafka/partition.ts'
import { TapelineError } from '../runtime/errors.ts'
import {
  type ChainHead,
  type ChainPoint,
  type ChainRecord,
  CommitChain,
  chainPath,
  chainsOf,
  isBefore,
  ORIGIN,
} from './commit-chain.ts'
import { type DayFile, type DayList, isInFile, newestDayList, publishedDates } from './day-list.ts'
import { quoted } from './duckdb.ts'
import { LocalCopies } from './local-copies.ts'
import type { FileContent, ObjectStore } from './object-store.ts'
import { dayKey, type SegmentDay, segmentDays } from './segment-days.ts'
import { type ArchiveTable, COLUMN_KINDS, DAY_TABLES } from './tables.ts'
import { type TextTable, textFiles, textRelation } from './text-relations.ts'

const DAY_MS = 86_400_000

/** Rows by time: of trades the trade time, of quotes the receipt. */
export interface RowRange {
  /** Null means all. */
  readonly symbols: readonly string[] | null
  /** Milliseconds since the Unix epoch; null means from the first row. */
  readonly fromMs: number | null
  /** Exclusive; null means to the last row. */
  readonly toMs: number | null
}

export const ALL_ROWS: RowRange = { symbols: null, fromMs: null, toMs: null }

/** Where the rows of a day and table are. */
export interface ArchiveDay {
  readonly table: string
  /** UTC, like `2026-01-31`. */
  readonly date: string
  /** Null before the day is published. */
  readonly list: DayList | null
  /** The files of segments with rows that the list does not have, in the order of their commits. */
  readonly pending: readonly SegmentDay[]
}

/** A chain, and its records that are not folded. */
export interface SnapshotChain {
  /** `topic/topic id/partition`. */
  readonly path: string
  readonly partition: PartitionOrigin
  readonly chain: CommitChain
  readonly foldedTo: ChainPoint
  /** Its end, or an earlier one; null if nothing had begun it. */
  readonly head: ChainHead | null
  readonly records: readonly ChainRecord[]
}

/**
 * What an archive has, as of one moment: each row once, whatever compaction does meanwhile.
 *
 * The folds are read first: what is before a fold is in every list that is read later. A record after
 * it counts for a day only beyond the `through` of the list that is read, so lists and records may be
 * read in any order.
 */
export class ArchiveSnapshot implements AsyncDisposable {
  readonly store: ObjectStore
  readonly chains: readonly SnapshotChain[]
  /** Files of segments by table and day, with the place of their records. */
  readonly #segments: ReadonlyMap<string, readonly SegmentDay[]>
  readonly #lists = new Map<string, Promise<DayList | null>>()
  readonly #used = new Set<string>()
  readonly #copies: LocalCopies

  private constructor(store: ObjectStore, chains: readonly SnapshotChain[]) {
    this.store = store
    this.#copies = new LocalCopies(store)
    this.chains = chains
    this.#segments = Map.groupBy(segmentDays(chains), dayKey)
  }

  /** @throws TapelineError `ARCHIVE` if a record is missing or damaged */
  static async take(store: ObjectStore): Promise<ArchiveSnapshot> {
    const chains = (await chainsOf(store)).map(async (partition): Promise<SnapshotChain> => {
      const chain = new CommitChain(store, partition)
      const foldedTo = await chain.foldedTo()
      // Before the records: the rows of each message below it are among them.
      const head = await chain.head()
      const records = await chain.records(foldedTo)
      return { path: chainPath(partition), partition, chain, foldedTo, records, head }
    })
    return new ArchiveSnapshot(store, await Promise.all(chains))
  }

  /** The days of which there are rows of a table, in order. */
  async dates(table: string): Promise<string[]> {
    const pending = [...this.#segments.values()].flatMap(([file]) =>
      file?.table === table ? [file.date] : [],
    )
    return [...new Set([...(await publishedDates(this.store, table)), ...pending])].sort()
  }

  /** @throws TapelineError `ARCHIVE` if its list is damaged */
  async day(table: string, date: string): Promise<ArchiveDay> {
    const key = dayKey({ table, date })
    const reading = this.#lists.get(key) ?? newestDayList(this.store, table, date)
    this.#lists.set(key, reading)
    const list = await reading
    const pending = (this.#segments.get(key) ?? []).filter(({ chain, end }) =>
      isBefore(list?.through[chain] ?? ORIGIN, end),
    )
    return { table, date, list, pending }
  }

  /** The days of a table that may have rows of a range. */
  async days(table: string, range: RowRange = ALL_ROWS): Promise<ArchiveDay[]> {
    const dates = (await this.dates(table)).filter((date) => touches(date, range))
    return Promise.all(dates.map((date) => this.day(table, date)))
  }

  /**
   * Returns a query of rows with the columns of a table, each row once. If rows have one identity, the
   * published one counts, otherwise the one that was committed first, as in compaction.
   *
   * @throws TapelineError `ARCHIVE` if a list is damaged
   */
  async relation(name: string, range: RowRange = ALL_ROWS): Promise<string> {
    const table = tableOf(name)
    const days = await this.days(name, range)
    const settled = days.flatMap(({ list, pending }) => (pending.length > 0 ? [] : filesIn(list, range)))
    const parts = settled.length === 0 ? [] : [`SELECT ${columnsOf(table)} FROM ${await this.#read(settled)}`]
    for (const day of days) if (day.pending.length > 0) parts.push(await this.#merged(table, day, range))
    return within(table, range, parts.length === 0 ? noRows(table) : parts.join(' UNION ALL '))
  }

  /**
   * Returns a query of the rows of the days that may have rows of a range, as they are in the files: with the
   * columns of a table and the place of their event, `_rank` and `_offset`. If events have one identity,
   * which {@link relation} has once, the first one counts.
   *
   * @throws TapelineError `ARCHIVE` if a list is damaged
   */
  async placed(name: string, range: RowRange): Promise<string> {
    const table = tableOf(name)
    const columns = columnsOf(table)
    const days = await this.days(name, range)
    const published = days.flatMap(({ list }) => filesIn(list, range))
    const parts = []
    if (published.length > 0)
      parts.push(
        `SELECT ${columns}, -1::BIGINT AS _rank, 0::BIGINT AS _offset FROM ${await this.#read(published)}`,
      )
    for (const { date, pending } of days)
      if (pending.length > 0)
        parts.push(
          `SELECT ${columns}, file_index::BIGINT AS _rank, _offset FROM ${await this.#read(pending)} WHERE ${isOfDay(table, date)}`,
        )
    if (parts.length === 0)
      parts.push(`SELECT *, 0::BIGINT AS _rank, 0::BIGINT AS _offset FROM (${noRows(table)})`)
    return within(table, { ...ALL_ROWS, symbols: range.symbols }, parts.join(' UNION ALL '))
  }

  /** Returns a query of rows of a table of texts, with the columns of the database's table. */
  async textRelation(table: TextTable): Promise<string> {
    const files = await textFiles(this.store, this.chains, table)
    return textRelation(table, files.length === 0 ? null : await this.#read(files))
  }

  /**
   * Returns the files that were named in a query and are gone: compaction has replaced them longer
   * than the grace period ago, or they are lost.
   */
  async missingFiles(): Promise<string[]> {
    const missing: string[] = []
    for (const [folder, keys] of Map.groupBy(this.#used, (key) => dirname(key))) {
      const there = new Set(await this.store.list(folder))
      missing.push(...keys.filter((key) => !there.has(key)))
    }
    return missing
  }

  /** The rows of a day with segments that are not in its list. */
  async #merged(table: ArchiveTable, { date, list, pending }: ArchiveDay, range: RowRange): Promise<string> {
    const columns = columnsOf(table)
    const rows = `SELECT ${columns}, file_index AS _rank, _offset FROM ${await this.#read(pending)} WHERE ${isOfDay(table, date)}`
    const identity = table.identity.join()
    // Rows of one event share their place.
    const first = `rank() OVER (PARTITION BY ${identity} ORDER BY _rank, _offset) = 1`
    const late = `SELECT ${columns} FROM (${rows}) QUALIFY ${first}`
    const published = filesIn(list, range)
    if (published.length === 0) return late
    // Late rows are few: the window over them and this join take a fraction of a window over all.
    const settled = await this.#read(published)
    return `SELECT ${columns} FROM ${settled} UNION ALL SELECT ${columns} FROM (${late}) ANTI JOIN ${settled} USING (${identity})`
  }

  /** Its queries cannot be used afterwards. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#copies[Symbol.asyncDispose]()
  }

  async #read(files: ReadonlyArray<{ readonly key: string } & Partial<FileContent>>): Promise<string> {
    for (const { key } of files) this.#used.add(key)
    await this.#copies.add(files)
    return this.#copies.read(files)
  }
}

function tableOf(name: string): ArchiveTable {
  const table = DAY_TABLES.get(name)
  if (table === undefined) throw new Error(`The archive has no table ${name}`)
  return table
}

function isOfDay(table: ArchiveTable, date: string): string {
  const fromMs = Date.parse(date)
  return conditionsOf(table, { symbols: null, fromMs, toMs: fromMs + DAY_MS }).join(' AND ')
}

function within(table: ArchiveTable, range: RowRange, rows: string): string {
  const conditions = conditionsOf(table, range)
  return conditions.length === 0 ? rows : `SELECT * FROM (${rows}) WHERE ${conditions.join(' AND ')}`
}

function touches(date: string, { fromMs, toMs }: RowRange): boolean {
  const ms = Date.parse(date)
  return (fromMs === null || ms + DAY_MS > fromMs) && (toMs === null || ms < toMs)
}

/** The files of a list that may have rows of the symbols. */
function filesIn(list: DayList | null, { symbols }: RowRange): DayFile[] {
  return (list?.files ?? []).filter(
    (file) => symbols === null || symbols.some((symbol) => isInFile(file, symbol)),
  )
}

function columnsOf({ columns }: ArchiveTable): string {
  return columns.map(({ name }) => name).join()
}

function conditionsOf({ columns }: ArchiveTable, { symbols, fromMs, toMs }: RowRange): string[] {
  const time = columns[0]?.name ?? ''
  const literal = (ms: number) => `TIMESTAMPTZ ${quoted(new Date(ms).toISOString())}`
  return [
    ...(symbols === null ? [] : [`symbol IN (${symbols.map(quoted).join() || 'NULL'})`]),
    ...(fromMs === null ? [] : [`${time} >= ${literal(fromMs)}`]),
    ...(toMs === null ? [] : [`${time} < ${literal(toMs)}`]),
  ]
}

function noRows({ columns }: ArchiveTable): string {
  const nulls = columns.map(({ name, kind }) => `NULL::${COLUMN_KINDS[kind].sql} AS ${name}`)
  return `SELECT ${nulls.join()} WHERE false`
}

/** The error of a file that the newest list or a record names, and that is not there. */
export function lostFile(key: string): TapelineError {
  return new TapelineError('ARCHIVE', `The archive is damaged: ${key} is missing`, {
    fix: 'Restore the file from a copy of the archive. `bin/tapeline archive check` names everything that is wrong.',
  })
}
