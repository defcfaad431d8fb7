import { type DuckDb, quoted } from '../../foundation/archive/duckdb.ts'
import type { EventType } from '../../foundation/market/event.ts'
import { isoOfUs } from '../../foundation/market/time-unit.ts'
import { COLUMNS, ID_COLUMN, LATER_COLUMNS, TIME_COLUMN } from './columns.ts'
import type { ExportedFile, RowPlace } from './manifest.ts'

export type Format = 'parquet' | 'csv'

/** Rows that the engine can read, with the exported columns of their type. */
export interface EngineRows {
  /** A table or a query in parentheses. */
  readonly from: string
  /** Whether they come by time and id without being sorted. */
  readonly isSorted: boolean
}

const OPTIONS: Readonly<Record<Format, string>> = {
  parquet: 'FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 100000',
  csv: 'FORMAT csv, HEADER',
}

/** Writes rows to a file, sorted by time and id. */
export async function writeRowFile(
  duckDb: DuckDb,
  type: EventType,
  { from, isSorted }: EngineRows,
  format: Format,
  path: string,
): Promise<Pick<ExportedFile, 'rows' | 'first' | 'last'>> {
  const columns = COLUMNS[type].map(({ name, kind }) =>
    format === 'csv' && kind === 'time' ? `strftime(${name}, '%Y-%m-%dT%H:%M:%S.%fZ') AS ${name}` : name,
  )
  const [time, id] = [TIME_COLUMN[type], ID_COLUMN[type]]
  // The alias keeps the order by the time itself, not by its text.
  const order = [time, id, ...LATER_COLUMNS[type]].map((name) => `stored.${name}`).join()
  const [written] = await duckDb.rows<{ Count: bigint }>(
    `COPY (SELECT ${columns.join(', ')} FROM ${from} AS stored ${isSorted ? '' : `ORDER BY ${order}`}) TO ${quoted(path)} (${OPTIONS[format]})`,
  )
  const end = async (direction: 'ASC' | 'DESC'): Promise<RowPlace | null> => {
    const [row] = await duckDb.rows<{ id: bigint; us: bigint }>(
      `SELECT ${id} AS id, epoch_us(${time}) AS us FROM ${from} AS stored
       ORDER BY ${time} ${direction}, ${id} ${direction} LIMIT 1`,
    )
    return row === undefined ? null : { id: Number(row.id), time: isoOfUs(Number(row.us)) }
  }
  return { rows: Number(written?.Count ?? 0), first: await end('ASC'), last: await end('DESC') }
}
