import type { Queryable } from './database.ts'

/** The dropped chunks of a table, and the time before which it therefore has no rows. */
export interface Dropped {
  readonly table: 'trades' | 'book_ticker'
  readonly chunks: number
  readonly before: Date
}

/**
 * Drops the oldest whole chunks beyond `keepDays` days and records it in `meta`: see migration 3.
 * Call it again until the result is empty: then nothing is left to drop, or another connection is
 * dropping.
 */
export async function dropOldChunks(connection: Queryable, keepDays: number): Promise<Dropped[]> {
  const { rows } = await connection.query<{
    table_name: Dropped['table']
    chunks: number
    dropped_before: Date
  }>('SELECT table_name, chunks, dropped_before FROM drop_old_chunks($1)', [keepDays])
  return rows.map((row) => ({ table: row.table_name, chunks: row.chunks, before: row.dropped_before }))
}
