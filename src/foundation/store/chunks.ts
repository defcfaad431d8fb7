import type { Queryable } from './database.ts'
import type { MarketTableName } from './market-rows.ts'

/** The dropped chunks of a table, and the time before which it therefore has no rows. */
export interface Dropped {
  readonly table: MarketTableName
  readonly chunks: number
  readonly before: Date
}

/** Drops the oldest chunks beyond `keepDays` days (`0002_chunks.sql`). Repeat it until the result is empty. */
export async function dropOldChunks(connection: Queryable, keepDays: number): Promise<Dropped[]> {
  const { rows } = await connection.query<Dropped>(
    'SELECT table_name AS "table", chunks, dropped_before AS before FROM drop_old_chunks($1)',
    [keepDays],
  )
  return rows
}

/**
 * Returns why this server cannot compress chunks; null if it can. That needs the Timescale licence. The
 * embedded server has it, but cannot reopen a compressed database; `version()` names its compiler.
 */
export async function compressionObstacle(connection: Queryable): Promise<string | null> {
  const { rows } = await connection.query<{ license: string | null; version: string }>(
    "SELECT current_setting('timescaledb.license', true) AS license, version()",
  )
  const [row] = rows
  if (row?.license !== 'timescale') {
    return `it needs the Timescale licence, but this server runs with timescaledb.license = ${row?.license ?? 'unknown'}`
  }
  return row.version.includes('emcc') ? 'the embedded database cannot be reopened after it' : null
}

export interface CompressedChunk {
  readonly table: MarketTableName
  /** The end of its day. */
  readonly end: Date
}

/** Compresses the oldest chunk of more than `afterDays` days: see `0002_chunks.sql`. Null when none is left. */
export async function compressNextChunk(
  connection: Queryable,
  afterDays: number,
): Promise<CompressedChunk | null> {
  const { rows } = await connection.query<CompressedChunk>(
    'SELECT table_name AS "table", range_end AS end FROM compress_next_chunk($1)',
    [afterDays],
  )
  return rows[0] ?? null
}
