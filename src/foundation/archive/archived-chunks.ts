import { EVENT_TYPES } from '../market/event.ts'
import type { Queryable } from '../store/database.ts'
import { TABLE_OF } from '../store/depth-tables.ts'
import type { MarketTableName } from '../store/market-rows.ts'
import { type RowFigures, rowHash } from './row-hash.ts'
import { ARCHIVE_TABLES, storedRows } from './tables.ts'

const DAY_MS = 86_400_000

/** A chunk of a hypertable. */
export interface OldChunk {
  readonly table: MarketTableName
  readonly start: Date
  /** Exclusive. */
  readonly end: Date
}

/** Rows of a symbol, of a table of the archive and a UTC day like `2026-01-31`. */
export interface SymbolRows extends RowFigures {
  readonly table: string
  readonly date: string
  readonly symbol: string
}

/** Returns the chunks beyond `keepDays` days, oldest first; days count as in `drop_old_chunks`. */
export async function oldChunks(connection: Queryable, keepDays: number): Promise<OldChunk[]> {
  const { rows } = await connection.query<OldChunk>(
    `WITH known AS (
       SELECT hypertable_name::text AS "table", range_start AS start, range_end AS "end" FROM timescaledb_information.chunks
       WHERE hypertable_schema = current_schema() AND hypertable_name IN (SELECT h.name FROM tapeline_hypertables() AS h))
     SELECT * FROM known
     WHERE "end" <= (SELECT least(now(), max("end")) FROM known WHERE start <= now()) - make_interval(days => $1)
     ORDER BY "end", "table"`,
    [keepDays],
  )
  return rows
}

/** The UTC days of a chunk; null if it does not consist of whole days. */
export function daysOf({ start, end }: OldChunk): string[] | null {
  const [fromMs, toMs] = [start.getTime(), end.getTime()]
  if (fromMs % DAY_MS !== 0 || toMs % DAY_MS !== 0) return null
  return Array.from({ length: (toMs - fromMs) / DAY_MS }, (_, i) =>
    new Date(fromMs + i * DAY_MS).toISOString().slice(0, 10),
  )
}

/** The archive's tables whose rows are in a table of the database. */
export function archiveTablesOf(table: OldChunk['table']): string[] {
  return typesOf(table).map((type) => ARCHIVE_TABLES[type].name)
}

function typesOf(table: OldChunk['table']) {
  return EVENT_TYPES.filter((type) => TABLE_OF[type].name === table)
}

/** Takes the lock of the functions that drop and compress chunks, until the transaction ends. */
export async function tryChunkLock(connection: Queryable): Promise<boolean> {
  const { rows } = await connection.query<{ taken: boolean }>(
    'SELECT pg_try_advisory_xact_lock(7453912) AS taken',
  )
  return rows[0]?.taken === true
}

/** Reads how many rows the archive must have of a day, and their hashes. */
export async function dayRows(
  connection: Queryable,
  table: OldChunk['table'],
  date: string,
): Promise<SymbolRows[]> {
  const figures: SymbolRows[] = []
  for (const type of typesOf(table)) {
    const time = ARCHIVE_TABLES[type].columns[0]?.name
    const isOfDay = `${time} >= $1::timestamptz AND ${time} < $1::timestamptz + interval '24 hours'`
    const { rows } = await connection.query<{ symbol: string; rows: string; hash: string }>(
      `SELECT symbol, count(*) AS rows, sum(${rowHash('postgres', ARCHIVE_TABLES[type])}) AS hash
       FROM ${storedRows(type)} AND ${isOfDay} GROUP BY symbol`,
      [`${date}T00:00:00Z`],
    )
    figures.push(...rows.map((row) => symbolRows({ ...row, table: ARCHIVE_TABLES[type].name, date })))
  }
  return figures
}

/** Reads what was dropped of a day before. */
export async function droppedRows(
  connection: Queryable,
  tables: readonly string[],
  date: string,
): Promise<SymbolRows[]> {
  const { rows } = await connection.query<{ table: string; symbol: string; rows: string; hash: string }>(
    'SELECT table_name AS "table", symbol, rows, hash FROM dropped_days WHERE table_name = ANY($1) AND day = $2::date',
    [tables, date],
  )
  return rows.map((row) => symbolRows({ ...row, date }))
}

function symbolRows({
  rows,
  hash,
  ...of
}: Pick<SymbolRows, 'table' | 'date' | 'symbol'> & { rows: string; hash: string }): SymbolRows {
  return { ...of, rows: Number(rows), hash: BigInt(hash) }
}

/**
 * Counts the rows of a chunk. Packed levels are one row, and there are derived books. Count them before
 * {@link dayRows}, so that a row that is stored meanwhile keeps the chunk.
 */
export async function countChunk(connection: Queryable, { table, start, end }: OldChunk): Promise<number> {
  const [time] = TABLE_OF[typesOf(table)[0] ?? 'trade'].columns[0] ?? []
  const { rows } = await connection.query<{ rows: string }>(
    `SELECT count(*) AS rows FROM ${table} WHERE ${time} >= $1 AND ${time} < $2`,
    [start, end],
  )
  return Number(rows[0]?.rows ?? 0)
}

/**
 * Drops a chunk (`0002_chunks.sql`).
 *
 * @param counted result of {@link countChunk}
 * @returns false if it has another number of rows now
 */
export async function dropArchivedChunk(
  connection: Queryable,
  { table, start, end }: OldChunk,
  counted: number,
  stored: readonly SymbolRows[],
): Promise<boolean> {
  const figures = stored.map((one) => ({
    ...{ table_name: one.table, day: one.date, symbol: one.symbol, rows: one.rows },
    hash: String(one.hash),
  }))
  const { rows } = await connection.query<{ dropped: boolean }>(
    'SELECT drop_archived_chunk($1, $2, $3, $4, $5::jsonb) AS dropped',
    [table, start, end, counted, JSON.stringify(figures)],
  )
  return rows[0]?.dropped === true
}
