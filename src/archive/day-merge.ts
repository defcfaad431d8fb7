import {
  compareSymbols,
  type DayFile,
  type DayList,
  isInFile,
  type StoredFile,
} from '../foundation/archive/day-list.ts'
import type { Ledger } from '../foundation/archive/day-manifest.ts'
import { type DuckDb, quoted } from '../foundation/archive/duckdb.ts'
import { LocalCopies } from '../foundation/archive/local-copies.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import type { SegmentDay } from '../foundation/archive/segment-days.ts'
import type { ArchiveTable } from '../foundation/archive/tables.ts'
import type { ChainRecords } from '../foundation/archive/text-relations.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { ledgerOf, symbolFigures } from './manifests.ts'

const DAY_MS = 86_400_000

/** Rows after which a file ends, at the next symbol: some 140 MB. To sort them takes 3 GB on disk. */
const FILE_ROWS = 20_000_000

/** Level of Zstandard. Files are 8 % smaller than with its default, for 0.2 µs a row. */
const LEVEL = 9

/**
 * Distinct values of a row group up to which a column of depth gets a dictionary. Beyond it ids and times
 * are differences, since the rows of an event repeat them: files are 9 % smaller than with the default.
 */
const DEPTH_DICTIONARY = 1000

export interface DayToMerge {
  readonly table: ArchiveTable
  /** UTC, like `2026-01-31`. */
  readonly date: string
  /** Files of segments: if rows have one identity, the first stays. */
  readonly added: ReadonlyArray<Pick<SegmentDay, 'key' | 'bytes' | 'sha256' | 'days'>>
  /** The files of the day as it is published, and what is in them. */
  readonly published: readonly DayFile[]
  readonly symbols: DayList['symbols']
  /** Stores a new file of the day. */
  readonly put: (write: (path: string) => Promise<void>) => Promise<Omit<StoredFile, 'rows'>>
  /** Stores rows that contradict one that stays. */
  readonly putConflicts: DayToMerge['put']
}

export interface MergedDay {
  /** Those that stay and those that are new, in the order of their symbols. */
  readonly files: readonly DayFile[]
  /** Rows in the new files. */
  readonly rows: number
  /** Rows that repeat one that stays. */
  readonly duplicates: number
  /** Some of these whose content differs. */
  readonly conflicts: readonly StoredFile[]
  /** Covers the symbols in the new files. */
  readonly symbols: DayList['symbols']
}

/** Writes new files with the rows of the segments, each once, in place of the files that have their symbols. */
export type MergeDay = (day: DayToMerge) => Promise<MergedDay>

export interface CompactionPorts {
  readonly store: ObjectStore
  readonly clock: Pick<Clock, 'wallMicros'>
  readonly merge: MergeDay
  /** Reads the ledger from the segments of these chains; records that are not folded have its new revisions. */
  readonly readLedger: (chains: readonly ChainRecords[]) => Promise<Ledger>
}

/** Compaction with DuckDB. */
export function duckDbCompaction(
  store: ObjectStore,
  duckDb: DuckDb,
  clock: CompactionPorts['clock'],
): CompactionPorts {
  return {
    store,
    clock,
    merge: duckDbMerge(store, duckDb),
    readLedger: (chains) => ledgerOf({ store, duckDb }, chains),
  }
}

/**
 * Merges with DuckDB, sorted by symbol, time and id. If rows have one identity, the published one
 * stays, otherwise the first of the added files.
 *
 * The files that are merged are removed later. So each is compared with its SHA-256, and the rows that
 * were read with its record: if one differs, nothing is published.
 *
 * @param rowsOf gives a query of the added rows with the columns of the table, `_rank` (1 or more:
 *   published rows have 0) and `_offset`; by default those of the segments
 */
export function duckDbMerge(store: ObjectStore, duckDb: DuckDb, rowsOf = addedRows): MergeDay {
  return async (day) => {
    const { table, published } = day
    await using copies = new LocalCopies(store)
    await copies.add(day.added)
    await copies.verify(day.added)
    const added = rowsOf(day, copies)
    const addedCounts = await countRows(duckDb, day, added)
    const isTouched = (file: DayFile) => addedCounts.some(({ symbol }) => isInFile(file, symbol))
    const [kept = [], replaced = []] = [false, true].map((is) =>
      published.filter((file) => isTouched(file) === is),
    )
    await copies.add(replaced)
    await copies.verify(replaced)
    const all = withPublished(copies, table, added, replaced)
    const replacedCounts = Object.entries(day.symbols).flatMap(([symbol, epochs]) =>
      replaced.some((file) => isInFile(file, symbol)) ? epochs.map(({ rows }) => ({ symbol, rows })) : [],
    )
    const counts = [...replacedCounts, ...addedCounts]
    const files: DayFile[] = []
    const figuresOf: Array<DayList['symbols']> = []
    for (const { firstSymbol, lastSymbol } of groupsOf(counts, kept)) {
      const rows = `SELECT * FROM (${all}) WHERE symbol BETWEEN ${quoted(firstSymbol)} AND ${quoted(lastSymbol)}`
      const { file, figures } = await writeDay(duckDb, day, rows)
      files.push({ ...file, firstSymbol, lastSymbol })
      figuresOf.push(figures)
    }
    const read = counts.reduce((sum, { rows }) => sum + rows, 0)
    const written = files.reduce((sum, { rows }) => sum + rows, 0)
    return {
      files: [...kept, ...files].sort((a, b) => compareSymbols(a.firstSymbol, b.firstSymbol)),
      rows: written,
      duplicates: read - written,
      conflicts: read === written ? [] : await writeConflicts(duckDb, day, all),
      symbols: Object.fromEntries(figuresOf.flatMap((figures) => Object.entries(figures))),
    }
  }
}

/** The rows of segments as a query. */
function addedRows({ table, date, added }: DayToMerge, copies: LocalCopies): string {
  const time = table.columns[0]?.name ?? ''
  const next = new Date(Date.parse(date) + DAY_MS).toISOString().slice(0, 10)
  return `SELECT ${namesOf(table)}, (file_index + 1)::BIGINT AS _rank, _offset FROM ${copies.read(added)}
    WHERE ${time} >= TIMESTAMPTZ '${date} 00:00:00+00' AND ${time} < TIMESTAMPTZ '${next} 00:00:00+00'`
}

/**
 * Counts the added rows of each symbol.
 *
 * @throws TapelineError `ARCHIVE` if a file has another number of rows of the day than its record says
 */
async function countRows(
  duckDb: DuckDb,
  { date, added }: Pick<DayToMerge, 'date' | 'added'>,
  rows: string,
): Promise<SymbolCount[]> {
  const counts = await duckDb.rows<{ symbol: string | null; rank: number | null; rows: number }>(
    `SELECT symbol, _rank::INTEGER AS rank, count(*)::DOUBLE AS rows FROM (${rows})
     GROUP BY GROUPING SETS ((symbol), (_rank))`,
  )
  const byRank = new Map(counts.map((one) => [one.rank, one.rows]))
  for (const [i, { key, days }] of added.entries()) {
    const [expected, found] = [days[date] ?? 0, byRank.get(i + 1) ?? 0]
    if (found !== expected)
      throw new TapelineError(
        'ARCHIVE',
        `The archive is damaged: ${key} has ${found} rows of ${date}, and its record says ${expected}`,
        { fix: 'Restore the file from a copy of the archive. The day is not published until then.' },
      )
  }
  return counts.flatMap((one) => (one.symbol === null ? [] : [{ symbol: one.symbol, rows: one.rows }]))
}

/** The same, and the rows of published files, which come first. */
function withPublished(
  copies: LocalCopies,
  table: ArchiveTable,
  added: string,
  published: readonly DayFile[],
): string {
  if (published.length === 0) return added
  return `${added} UNION ALL SELECT ${namesOf(table)}, 0 AS _rank, 0 AS _offset FROM ${copies.read(published)}`
}

/** Writes the first row of each identity. */
async function writeDay(
  duckDb: DuckDb,
  { table, put }: DayToMerge,
  rows: string,
): Promise<{ readonly file: StoredFile; readonly figures: DayList['symbols'] }> {
  const firsts = `SELECT ${namesOf(table)} FROM (${sortedRows(table, rows)}) WHERE _is_first`
  let figures: DayList['symbols'] = {}
  const stored = await put(async (path) => {
    await copyTo(duckDb, table, firsts, path)
    figures = await symbolFigures(duckDb, table, path)
  })
  const count = Object.values(figures)
    .flat()
    .reduce((sum, { rows }) => sum + rows, 0)
  return { file: { ...stored, rows: count }, figures }
}

/**
 * The rows in order, with whether a row is of the first event of its identity. A window over each
 * identity would need the memory of all rows; a sort spills to disk.
 */
function sortedRows({ identity, within }: ArchiveTable, rows: string): string {
  // The engine keeps the order of the sort in what follows it, so repeats are neighbours.
  const sorted = `SELECT * FROM (${rows}) ORDER BY ${[...identity, '_rank', '_offset', ...within].join()}`
  const isOther = identity.map((column) => `${column} IS DISTINCT FROM lag(${column}) OVER ()`).join(' OR ')
  if (within.length === 0)
    return `SELECT *, ${isOther} AS _is_first, row_number() OVER () AS _number FROM (${sorted})`
  // The rows of an event share its place in the segments: a row belongs to the first one if the last
  // change of the place was one of the identity.
  const isMoved = ['_rank', '_offset']
    .map((one) => `${one} IS DISTINCT FROM lag(${one}) OVER ()`)
    .join(' OR ')
  const last = (condition: string) =>
    `max(_number) FILTER (WHERE ${condition}) OVER (ROWS UNBOUNDED PRECEDING)`
  return `SELECT * EXCLUDE (_is_other, _is_moved), ${last('_is_other')} = ${last('_is_other OR _is_moved')} AS _is_first
    FROM (SELECT *, ${isOther} AS _is_other, ${isMoved} AS _is_moved, row_number() OVER () AS _number FROM (${sorted}))`
}

/** Writes the events that repeat the identity of one that stays and have other content. */
async function writeConflicts(
  duckDb: DuckDb,
  { table, putConflicts }: DayToMerge,
  rows: string,
): Promise<StoredFile[]> {
  const differing = table.within.length === 0 ? differingRows(table, rows) : differingEvents(table, rows)
  const query = `SELECT ${namesOf(table)} FROM (${differing})`
  const [count] = await duckDb.rows<{ rows: number }>(`SELECT count(*)::DOUBLE AS rows FROM (${query})`)
  if (count === undefined || count.rows === 0) return []
  return [{ ...(await putConflicts((path) => copyTo(duckDb, table, query, path))), rows: count.rows }]
}

function differingRows(table: ArchiveTable, rows: string): string {
  const differs = table.content.map((column) => {
    // The first of this identity is the last first one so far. One column at a time: the engine streams
    // that, and would keep all rows for a value of several columns.
    const first = `arg_max_null(${column}, _number) FILTER (WHERE _is_first) OVER (ROWS UNBOUNDED PRECEDING)`
    return `${column} IS DISTINCT FROM ${first}`
  })
  return `SELECT * FROM (SELECT *, ${differs.join(' OR ')} AS _differs FROM (${sortedRows(table, rows)})) WHERE _differs`
}

/** Events of several rows differ if their numbers of rows or the sums of the hashes of their rows do. */
function differingEvents(table: ArchiveTable, rows: string): string {
  const identity = table.identity.join()
  const place = `${identity}, _rank, _offset`
  const few = `SELECT * FROM (${rows}) SEMI JOIN repeated USING (${identity})`
  return `WITH repeated AS (
        SELECT ${identity} FROM (${rows}) GROUP BY ALL HAVING min(_rank) < max(_rank) OR min(_offset) < max(_offset)),
      marked AS MATERIALIZED (${sortedRows(table, few)}),
      events AS (
        SELECT ${place}, _is_first, count(*) AS _rows, sum(hash(${table.content.join()})) AS _hash
        FROM marked GROUP BY ALL),
      differing AS (
        SELECT ${place} FROM events JOIN (SELECT ${identity}, _rows AS _first_rows, _hash AS _first_hash FROM events WHERE _is_first)
          USING (${identity}) WHERE NOT _is_first AND (_rows <> _first_rows OR _hash <> _first_hash))
    SELECT * FROM marked SEMI JOIN differing USING (${place}) ORDER BY ${place}, ${table.within.join()}`
}

function copyTo(duckDb: DuckDb, { within }: ArchiveTable, query: string, path: string): Promise<void> {
  const dictionary = within.length === 0 ? '' : `, DICTIONARY_SIZE_LIMIT ${DEPTH_DICTIONARY}`
  return duckDb.run(
    `COPY (${query}) TO ${quoted(path)}
     (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL ${LEVEL}${dictionary})`,
  )
}

interface SymbolCount {
  readonly symbol: string
  readonly rows: number
}

/** Groups of neighbouring symbols, each for one file. No file that stays is between two of a group. */
function groupsOf(
  counts: readonly SymbolCount[],
  kept: readonly DayFile[],
): Array<Pick<DayFile, 'firstSymbol' | 'lastSymbol'>> {
  const groups: Array<{ firstSymbol: string; lastSymbol: string; rows: number }> = []
  const bySymbol = [...Map.groupBy(counts, (one) => one.symbol)].sort(([a], [b]) => compareSymbols(a, b))
  for (const [symbol, some] of bySymbol) {
    const rows = some.reduce((sum, one) => sum + one.rows, 0)
    const last = groups.at(-1)
    const isApart = kept.some(
      ({ firstSymbol }) =>
        compareSymbols(firstSymbol, last?.lastSymbol ?? '') > 0 && compareSymbols(firstSymbol, symbol) < 0,
    )
    if (last === undefined || isApart || last.rows + rows > FILE_ROWS)
      groups.push({ firstSymbol: symbol, lastSymbol: symbol, rows })
    else {
      last.lastSymbol = symbol
      last.rows += rows
    }
  }
  return groups
}

function namesOf({ columns }: ArchiveTable): string {
  return columns.map(({ name }) => name).join()
}
