import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type ChainPoint,
  type ChainRecord,
  CommitChain,
  chainPath,
  chainsOf,
  ORIGIN,
  type SegmentFile,
} from '../foundation/archive/commit-chain.ts'
import {
  createDayList,
  type DayFile,
  type DayList,
  dayFolder,
  isBefore,
  newestDayList,
} from '../foundation/archive/day-list.ts'
import { dayManifest, type Ledger } from '../foundation/archive/day-manifest.ts'
import { type DuckDb, quoted } from '../foundation/archive/duckdb.ts'
import { fileHash } from '../foundation/archive/file-hash.ts'
import { LocalCopies } from '../foundation/archive/local-copies.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { type ArchiveTable, DAY_TABLES } from '../foundation/archive/tables.ts'
import type { PartitionOrigin } from '../foundation/kafka/partition.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'
import { ledgerOf, refreshManifests, symbolFigures } from './manifests.ts'

const DAY_MS = 86_400_000

/** Rows after which a file ends, at the next symbol: some 140 MB. To sort them takes 3 GB on disk. */
const FILE_ROWS = 20_000_000

/** Level of Zstandard. Files are 8 % smaller than with its default, for 0.2 µs a row. */
const LEVEL = 9

export interface CompactionPorts {
  readonly store: ObjectStore
  readonly duckDb: DuckDb
  readonly clock: Pick<Clock, 'wallMicros'>
}

/** A file of a segment with rows of a day, and where its record is. */
interface NewFile extends SegmentFile {
  readonly date: string
  readonly chain: string
  readonly incarnation: number
  readonly end: ChainPoint
}

export interface Published {
  readonly table: string
  readonly date: string
  readonly number: number
  readonly rows: number
  readonly duplicates: number
}

/**
 * Merges the segments of a day into its published files, sorted by symbol, time and id. If rows
 * have one identity, the published one stays, otherwise the first by incarnation and offset.
 *
 * @param isOver whether everything of a day that Kafka had is in the segments; a day that was
 *   published before is merged anyway
 * @returns the lists that were created
 */
export async function compact(
  ports: CompactionPorts,
  isOver: (date: string) => boolean | Promise<boolean>,
): Promise<Published[]> {
  const chains = await Promise.all((await chainsOf(ports.store)).map((one) => readChain(ports.store, one)))
  const ledger = await ledgerOf(
    ports,
    chains.map(({ chain }) => chain),
  )
  const published: Published[] = []
  const lists = new Map<string, DayList | null>()
  for (const [day, files] of Map.groupBy(chains.flatMap(newFiles), dayKey)) {
    const { table: name, date } = files[0] ?? { table: '', date: '' }
    const last = await newestDayList(ports.store, name, date)
    lists.set(day, last)
    const table = DAY_TABLES.get(name)
    if (table === undefined || (last === null && !(await isOver(date)))) continue
    const added = files.filter(({ chain, end }) => isBefore(last?.through[chain] ?? ORIGIN, end))
    if (added.length === 0) continue
    await using copies = new LocalCopies(ports.store)
    await copies.add(added)
    const rows = addedRows(table, date, copies, added)
    const list = await mergeDay(ports, table, date, last, ledger, { rows, through: throughOf(last, added) })
    if (list !== null) published.push(list)
    lists.set(day, await newestDayList(ports.store, name, date))
  }
  for (const one of chains) await fold(one, lists)
  await refreshManifests(ports, ledger)
  return published
}

/** A chain, and its records that are not folded. */
interface ReadChain {
  readonly chain: CommitChain
  readonly path: string
  readonly records: readonly ChainRecord[]
}

async function readChain(store: ObjectStore, partition: PartitionOrigin): Promise<ReadChain> {
  const chain = new CommitChain(store, partition)
  return { chain, path: chainPath(partition), records: await chain.records(await chain.foldedTo()) }
}

function newFiles({ path, records }: ReadChain): NewFile[] {
  return records.flatMap(({ incarnation, nextOffset, files }) =>
    files.flatMap((file) =>
      Object.keys(file.days).map((date) => ({
        ...{ ...file, date, chain: path, incarnation },
        end: { incarnation, offset: nextOffset },
      })),
    ),
  )
}

function dayKey({ table, date }: Pick<NewFile, 'table' | 'date'>): string {
  return `${table}/${date}`
}

/** Folds the records whose rows are all in published days. Those after the first other one wait. */
async function fold(
  { chain, path, records }: ReadChain,
  lists: ReadonlyMap<string, DayList | null>,
): Promise<void> {
  let end: { readonly point: ChainPoint; readonly leaderEpoch: number } | null = null
  for (const { incarnation, nextOffset, leaderEpoch, files } of records) {
    const point = { incarnation, offset: nextOffset }
    // Tables of texts are not published: their segments stay.
    const isPublished = files.every(
      ({ table, days }) =>
        !DAY_TABLES.has(table) ||
        Object.keys(days).every((date) => {
          const through = lists.get(dayKey({ table, date }))?.through[path]
          return through !== undefined && !isBefore(through, point)
        }),
    )
    if (!isPublished) break
    end = { point, leaderEpoch }
  }
  if (end !== null) await chain.foldTo(end.point, end.leaderEpoch)
}

/** Rows for a day, and up to where they have the records of each chain. */
interface Addition {
  /** A query with the columns of the table, `_rank` (1 or more: published rows have 0) and `_offset`. */
  readonly rows: string
  readonly through: DayList['through']
}

/**
 * Publishes a day with more rows. Only files of their symbols are written again.
 *
 * @returns null if another process has published its next list meanwhile
 */
export async function mergeDay(
  { store, duckDb, clock }: CompactionPorts,
  table: ArchiveTable,
  date: string,
  last: DayList | null,
  ledger: Ledger,
  added: Addition,
): Promise<Published | null> {
  const addedCounts = await duckDb.rows<SymbolCount>(
    `SELECT symbol, count(*)::DOUBLE AS rows FROM (${added.rows}) GROUP BY symbol`,
  )
  const isTouched = (file: DayFile) => addedCounts.some(({ symbol }) => isIn(file, symbol))
  const [kept, replaced] = [false, true].map((is) =>
    (last?.files ?? []).filter((file) => isTouched(file) === is),
  )
  await using copies = new LocalCopies(store)
  await copies.add(replaced ?? [])
  const all = withPublished(table, copies, added.rows, replaced ?? [])
  const replacedCounts = Object.entries(last?.symbols ?? {}).flatMap(([symbol, { rows }]) =>
    replaced?.some((file) => isIn(file, symbol)) ? [{ symbol, rows }] : [],
  )
  const counts = [...replacedCounts, ...addedCounts]
  const files: DayFile[] = []
  const symbols: DayList['symbols'] = { ...last?.symbols }
  try {
    for (const { firstSymbol, lastSymbol } of groupsOf(counts)) {
      const rows = `SELECT * FROM (${all}) WHERE symbol BETWEEN ${quoted(firstSymbol)} AND ${quoted(lastSymbol)}`
      const written = await write(store, duckDb, table, date, rows)
      files.push({ ...written.file, firstSymbol, lastSymbol })
      Object.assign(symbols, written.symbols)
    }
  } catch (error) {
    await removeAll(store, files).catch((also: unknown) => {
      throw new AggregateError([error, also])
    })
    throw error
  }
  const read = counts.reduce((sum, { rows }) => sum + rows, 0)
  const written = files.reduce((sum, { rows }) => sum + rows, 0)
  const list = {
    table: table.name,
    date,
    number: (last?.number ?? 0) + 1,
    publishedAt: wallMs(clock),
    files: [...(kept ?? []), ...files].sort((a, b) => (a.firstSymbol < b.firstSymbol ? -1 : 1)),
    through: added.through,
    duplicates: (last?.duplicates ?? 0) + read - written,
    ...dayManifest(symbols, ledger.get(table.name) ?? [], date),
  }
  // After an error the list may exist, so the files stay; if it does not, a sweep removes them.
  if (await createDayList(store, list))
    return { table: table.name, date, number: list.number, rows: written, duplicates: read - written }
  // Another process has published this number.
  await removeAll(store, files)
  return null
}

/** The rows of segments as a query. Offsets of different chains do not compare; one has all rows of a symbol. */
function addedRows(
  table: ArchiveTable,
  date: string,
  copies: LocalCopies,
  added: readonly NewFile[],
): string {
  const time = table.columns[0]?.name ?? ''
  const next = new Date(Date.parse(date) + DAY_MS).toISOString().slice(0, 10)
  const where = `WHERE ${time} >= TIMESTAMPTZ '${date} 00:00:00+00' AND ${time} < TIMESTAMPTZ '${next} 00:00:00+00'`
  return [...Map.groupBy(added, ({ incarnation }) => incarnation)]
    .map(
      ([incarnation, files]) =>
        `SELECT ${columnsOf(table)}, ${incarnation} AS _rank, _offset FROM ${copies.read(files)} ${where}`,
    )
    .join(' UNION ALL ')
}

/** The same, and the rows of published files, which come first. */
function withPublished(
  table: ArchiveTable,
  copies: LocalCopies,
  added: string,
  published: readonly DayFile[],
): string {
  if (published.length === 0) return added
  return `${added} UNION ALL SELECT ${columnsOf(table)}, 0 AS _rank, 0 AS _offset FROM ${copies.read(published)}`
}

function columnsOf({ columns }: ArchiveTable): string {
  return columns.map(({ name }) => name).join()
}

async function write(
  store: ObjectStore,
  duckDb: DuckDb,
  table: ArchiveTable,
  date: string,
  rows: string,
): Promise<{
  readonly file: Omit<DayFile, 'firstSymbol' | 'lastSymbol'>
  readonly symbols: DayList['symbols']
}> {
  const { identity } = table
  // The engine keeps the order of the sort in what follows it, so repeats are neighbours.
  const sorted = `SELECT * FROM (${rows}) ORDER BY ${identity.join()}, _rank, _offset`
  const before = identity.map((column) => `lag(${column}) OVER () AS _before_${column}`).join()
  const isFirst = identity.map((column) => `${column} IS DISTINCT FROM _before_${column}`).join(' OR ')
  const firsts = `SELECT ${columnsOf(table)} FROM (SELECT *, ${before} FROM (${sorted})) WHERE ${isFirst}`
  const id = randomUUID()
  const staged = join(store.stagingFolder, `${id}.parquet`)
  try {
    await duckDb.run(
      `COPY (${firsts}) TO ${quoted(staged)} (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL ${LEVEL})`,
    )
    const { sha256, bytes } = await fileHash(staged)
    const symbols = await symbolFigures(duckDb, table, staged)
    const count = Object.values(symbols).reduce((sum, one) => sum + one.rows, 0)
    const key = `${dayFolder(table.name, date)}/${id}.parquet`
    await store.putFile(key, staged)
    return { file: { key, rows: count, bytes, sha256 }, symbols }
  } finally {
    await rm(staged, { force: true })
  }
}

interface SymbolCount {
  readonly symbol: string
  readonly rows: number
}

function isIn({ firstSymbol, lastSymbol }: DayFile, symbol: string): boolean {
  return symbol >= firstSymbol && symbol <= lastSymbol
}

/** Groups of neighbouring symbols, each for one file. */
function groupsOf(counts: readonly SymbolCount[]): Array<Pick<DayFile, 'firstSymbol' | 'lastSymbol'>> {
  const groups: Array<{ firstSymbol: string; lastSymbol: string; rows: number }> = []
  for (const [symbol, some] of [...Map.groupBy(counts, (one) => one.symbol)].sort(byBytes)) {
    const rows = some.reduce((sum, one) => sum + one.rows, 0)
    const last = groups.at(-1)
    if (last === undefined || last.rows + rows > FILE_ROWS)
      groups.push({ firstSymbol: symbol, lastSymbol: symbol, rows })
    else {
      last.lastSymbol = symbol
      last.rows += rows
    }
  }
  return groups
}

/** The order of the engine. */
function byBytes([one]: readonly [string, unknown], [other]: readonly [string, unknown]): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other))
}

function throughOf(last: DayList | null, added: readonly NewFile[]): Record<string, ChainPoint> {
  const through: Record<string, ChainPoint> = { ...last?.through }
  for (const { chain, end } of added) if (isBefore(through[chain] ?? ORIGIN, end)) through[chain] = end
  return through
}

async function removeAll(store: ObjectStore, files: readonly DayFile[]): Promise<void> {
  for (const { key } of files) await store.remove(key)
}
