import type { CheckContext } from './scope.ts'
import type { NotChecked } from './shape.ts'

/**
 * Retention drops whole chunks and notes in `meta`, as `retention:TABLE`, how far: what is older is gone, and not missing. The
 * audit begins at the first row that is there, whether or not there is such a note.
 */
const OLDEST = `SELECT hypertable_name AS name, min(range_start) AS oldest, max(meta.value) AS dropped_before
  FROM timescaledb_information.chunks LEFT JOIN meta ON meta.key = 'retention:' || hypertable_name
  WHERE hypertable_schema = current_schema() AND hypertable_name IN ('trades', 'book_ticker')
  GROUP BY hypertable_name ORDER BY hypertable_name DESC`

export async function readOldest({ connection }: CheckContext): Promise<NotChecked[]> {
  const { rows } = await connection.query<{ name: string; oldest: Date; dropped_before: string | null }>(
    OLDEST,
  )
  return rows.map(({ name, oldest, dropped_before }) => ({
    what:
      dropped_before === null
        ? `rows of ${name} before ${oldest.toISOString().slice(0, 10)}, its oldest day`
        : `rows of ${name} before ${dropped_before}: retention has dropped them`,
    symbol: null,
    count: null,
    examples: [],
  }))
}
