import type { CheckContext } from './scope.ts'
import type { NotChecked } from './shape.ts'

/** Retention drops whole chunks: what is older than the oldest of a table is gone, and not missing. */
const OLDEST = `SELECT hypertable_name AS name, min(range_start) AS oldest
  FROM timescaledb_information.chunks WHERE hypertable_name IN ('trades', 'book_ticker')
  GROUP BY hypertable_name ORDER BY hypertable_name DESC`

export async function readOldest({ connection }: CheckContext): Promise<NotChecked[]> {
  const { rows } = await connection.query<{ name: string; oldest: Date }>(OLDEST)
  return rows.map(({ name, oldest }) => ({
    what: `rows of ${name} before ${oldest.toISOString().slice(0, 10)}, its oldest day: not stored, or dropped by retention`,
    symbol: null,
    count: null,
    examples: [],
  }))
}
