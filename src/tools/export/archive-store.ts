import type { ArchiveReader } from '../../foundation/archive/archive-reader.ts'
import type { ArchiveSnapshot, RowRange } from '../../foundation/archive/archive-snapshot.ts'
import type { DuckDb } from '../../foundation/archive/duckdb.ts'
import { quoted } from '../../foundation/archive/duckdb.ts'
import { ARCHIVE_TABLES, DAY_TABLES } from '../../foundation/archive/tables.ts'
import type { EventType } from '../../foundation/market/event.ts'
import { archivedRows } from '../verify/archive-depth.ts'
import { archiveTables, storedUntil } from '../verify/archive-tables.ts'
import type { Day } from './day.ts'
import type { DayStore } from './day-store.ts'

const DAY_MS = 86_400_000

/** An archive as of one moment. */
export async function archiveStore(
  { duckDb, mark }: Pick<ArchiveReader, 'duckDb' | 'mark'>,
  snapshot: ArchiveSnapshot,
  symbol: string,
  day: Day,
): Promise<DayStore> {
  const takenAt = new Date()
  const { fromMs, toMs } = day
  const ofDay: RowRange = { symbols: [symbol], fromMs, toMs }
  const around = await rangeAround(duckDb, snapshot, symbol, day)
  return {
    connection: await archiveTables({ duckDb, mark }, snapshot, ofDay, around),
    duckDb,
    storedUntil: storedUntil(snapshot),
    depthRows: archivedRows(duckDb, snapshot),
    facts: async () => ({
      ...{ takenAt, source: mark.source, timeUnit: mark.timeUnit },
      dayIsOver: takenAt.getTime() >= toMs && (await isPublished(snapshot, day)),
    }),
    rowsOf: async (type) => ({
      from: `(${await snapshot.relation(ARCHIVE_TABLES[type].name, ofDay)})`,
      isSorted: false,
    }),
  }
}

/** Segments are committed minutes after their rows; a day is published when none of it can be missing. */
async function isPublished(snapshot: ArchiveSnapshot, { name }: Day): Promise<boolean> {
  const days = await Promise.all([...DAY_TABLES.keys()].map((table) => snapshot.day(table, name)))
  return days.every(({ list, pending }) => list !== null || pending.length === 0)
}

/**
 * Returns a range with the rows next to the day, if there are ledger rows without times: the ids of
 * those rows decide whether they touch the day.
 */
async function rangeAround(
  duckDb: DuckDb,
  snapshot: ArchiveSnapshot,
  symbol: string,
  { fromMs, toMs }: Day,
): Promise<RowRange> {
  const types = await duckDb.rows<{ type: EventType }>(
    `SELECT DISTINCT event_type AS type FROM (${await snapshot.textRelation('gaps')})
     WHERE symbol = ${quoted(symbol)} AND from_time IS NULL AND to_time IS NULL AND from_id IS NOT NULL`,
  )
  let [first, end] = [fromMs, toMs]
  for (const { type } of types) {
    const { name } = ARCHIVE_TABLES[type]
    const days = (await snapshot.dates(name)).map((date) => Date.parse(date))
    const before = days.filter((ms) => ms < fromMs).reverse()
    const after = days.filter((ms) => ms >= toMs)
    first = Math.min(first, ...(await untilSymbol(snapshot, name, symbol, before)))
    end = Math.max(end, ...(await untilSymbol(snapshot, name, symbol, after)).map((ms) => ms + DAY_MS))
  }
  return { symbols: [symbol], fromMs: first, toMs: end }
}

/** Returns the days up to the first one that has rows of the symbol for certain. */
async function untilSymbol(
  snapshot: ArchiveSnapshot,
  table: string,
  symbol: string,
  days: readonly number[],
): Promise<number[]> {
  const needed: number[] = []
  for (const ms of days) {
    const { list, pending } = await snapshot.day(table, new Date(ms).toISOString().slice(0, 10))
    const isListed = list?.symbols[symbol] !== undefined
    if (isListed || pending.length > 0) needed.push(ms)
    if (isListed) break
  }
  return needed
}
