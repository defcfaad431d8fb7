import type { ArchiveSnapshot } from '../../foundation/archive/archive-snapshot.ts'
import type { DuckDb } from '../../foundation/archive/duckdb.ts'
import { NO_ROWS, plus, type RowFigures, rowHash } from '../../foundation/archive/row-hash.ts'
import { ARCHIVE_TABLES, type ArchiveTable } from '../../foundation/archive/tables.ts'
import {
  byEventType,
  EVENT_TYPES,
  type EventType,
  isTickType,
  isTradeType,
} from '../../foundation/market/event.ts'
import { readOffsets } from '../../foundation/store/consumer-offsets.ts'
import type { Queryable } from '../../foundation/store/database.ts'
import { countText, plural } from '../../foundation/telemetry/plural.ts'
import type { Watermark } from './report-types.ts'
import { readFloors } from './retention.ts'
import { inScope, type Scope, scopeValues, type Table } from './scope.ts'
import { watermarkOf } from './watermark.ts'

const DAY_MS = 86_400_000

/** A symbol and day of which the stores have other rows. */
export interface StoreDifference {
  /** The archive's name. */
  readonly table: string
  readonly symbol: string
  /** UTC, like `2026-01-31`. */
  readonly day: string
  readonly inTables: number
  readonly inArchive: number
}

export interface StoreComparison {
  /** Rows of the tables that were compared. */
  readonly rows: number
  readonly differences: readonly StoreDifference[]
  /** Days before this one of a table are not compared: retention has dropped their rows. */
  readonly floors: Readonly<Record<string, string>>
  /** Later rows are not compared: the day is not over. */
  readonly until: string
}

interface Figures {
  readonly symbol: string
  readonly day: string
  readonly rows: bigint | string
  readonly hash: bigint | string
}

/**
 * Compares the rows of both stores by type, symbol and day: their numbers, and a hash over the values
 * of all columns but the levels of order books. Days that are not over are left out, since the archive has a row minutes after the
 * tables.
 *
 * @param tables in one snapshot
 */
export async function compareStores(
  tables: Queryable,
  { duckDb }: { readonly duckDb: DuckDb },
  snapshot: ArchiveSnapshot,
  scope: Scope,
  nowMs: number,
): Promise<StoreComparison> {
  const todayMs = Math.floor(nowMs / DAY_MS) * DAY_MS
  const toMs = Math.min(scope.toMs ?? todayMs, todayMs)
  const dropped = await readFloors({ connection: tables, scope, limit: 1 })
  const floors: Record<string, string> = {}
  const differences: StoreDifference[] = []
  let sum: RowFigures = NO_ROWS
  for (const type of EVENT_TYPES) {
    const { name: table } = ARCHIVE_TABLES[type]
    const floorMs = dropped[TABLE_OF[type]]
    const isCut = floorMs !== null && floorMs > (scope.fromMs ?? 0)
    const part = { ...scope, fromMs: isCut ? floorMs : scope.fromMs, toMs }
    if (isCut) floors[table] = new Date(floorMs).toISOString()
    const ours = byPlace((await tables.query<Figures>(tableFigures(type), scopeValues(part))).rows)
    const relation = await snapshot.relation(table, part)
    const theirs = byPlace(await duckDb.rows<Figures>(archiveFigures(type, relation)))
    for (const place of new Set([...ours.keys(), ...theirs.keys()])) {
      const [own, their] = [ours.get(place) ?? NO_ROWS, theirs.get(place) ?? NO_ROWS]
      sum = plus(sum, own)
      if (own.rows === their.rows && own.hash === their.hash) continue
      const [day = '', symbol = ''] = place.split(' ')
      differences.push({ table, symbol, day, inTables: own.rows, inArchive: their.rows })
    }
  }
  return { rows: sum.rows, differences, floors, until: new Date(toMs).toISOString() }
}

/** Returns which messages the tables have and the archive does not. */
export async function behindTables(tables: Queryable, { chains }: ArchiveSnapshot): Promise<Watermark> {
  const archived = chains.flatMap(({ partition, head }) => (head === null ? [] : [{ ...partition, ...head }]))
  const stored = await readOffsets(tables)
  return watermarkOf(
    archived,
    stored.map((one) => ({ ...one, start: 0, end: one.nextOffset })),
  )
}

function byPlace(figures: readonly Figures[]): Map<string, RowFigures> {
  return new Map(
    figures
      .map(({ symbol, day, rows, hash }): [string, RowFigures] => [
        `${day} ${symbol}`,
        { rows: Number(rows), hash: BigInt(hash) },
      ])
      .sort(([one], [other]) => (one < other ? -1 : 1)),
  )
}

/** The table of each type in the database. */
const TABLE_OF: Readonly<Record<EventType, Table>> = byEventType((type) => {
  if (isTradeType(type)) return 'trades'
  if (isTickType(type)) return 'book_ticker'
  return type === 'depth' ? 'depth_updates' : 'depth_snapshots'
})

/**
 * The columns that are compared. The tables have packed levels, and unpacking them all would take hours: of
 * order books the ids and times are compared.
 */
function comparedColumns(type: EventType): Pick<ArchiveTable, 'columns'> {
  const { columns, within } = ARCHIVE_TABLES[type]
  const isOfLevel = (name: string) => within.length > 0 && LEVEL_COLUMNS.has(name)
  return { columns: columns.filter(({ name }) => !isOfLevel(name)) }
}

const LEVEL_COLUMNS: ReadonlySet<string> = new Set(ARCHIVE_TABLES.depth.content)

function timeOf(type: EventType): string {
  return ARCHIVE_TABLES[type].columns[0]?.name ?? ''
}

function tableFigures(type: EventType): string {
  const time = timeOf(type)
  const which = isTradeType(type)
    ? ` AND event_type = '${type}'`
    : type === 'depthSnapshot'
      ? ` AND kind = 'rest'`
      : ''
  return `SELECT symbol, to_char(${time} AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, count(*) AS rows, sum(${rowHash('postgres', comparedColumns(type))}) AS hash
    FROM ${TABLE_OF[type]} WHERE ${inScope(time)}${which} GROUP BY 1, 2`
}

function archiveFigures(type: EventType, relation: string): string {
  const compared = comparedColumns(type)
  const names = compared.columns.map(({ name }) => name).join()
  // An event of depth has a row per level.
  const rows = isTickType(type) ? relation : `SELECT DISTINCT ${names} FROM (${relation})`
  return `SELECT symbol, strftime(${timeOf(type)}, '%Y-%m-%d') AS day, count(*) AS rows, sum(${rowHash('duckDb', compared)}) AS hash
    FROM (${rows}) GROUP BY 1, 2`
}

/** Renders the comparison as text: one line for each difference. */
export function renderComparison({ rows, differences, floors, until }: StoreComparison): string {
  const lines = differences.map(({ table, symbol, day, inTables, inArchive }) =>
    inTables === inArchive
      ? `${table} ${day} ${symbol}: ${plural(inTables, 'row')} in both, with other values`
      : `${table} ${day} ${symbol}: ${plural(inTables, 'row')} in the tables, ${countText(inArchive)} in the archive`,
  )
  return [
    `Compared ${plural(rows, 'row')} of the tables with the archive, until ${until}`,
    ...Object.entries(floors).map(([table, day]) => `${table} before ${day}: retention has dropped the rows`),
    ...lines,
    verdict(rows, differences.length),
  ].join('\n')
}

function verdict(rows: number, differences: number): string {
  if (differences > 0) return `Verdict: NOT EQUAL, ${countText(differences)} symbols and days`
  if (rows > 0) return 'Verdict: equal'
  return 'Verdict: nothing was compared. Days that are not over are left out.'
}
