import type { Database } from '../src/foundation/store/database.ts'

/** The ledger's state at the end. */
export interface LedgerCheck {
  readonly filled: number
  readonly unrecoverable: number
  readonly windows: number
  /** Time from `detected_at` to `closed_at` of every filled gap, in milliseconds. */
  readonly fillTimesMs: readonly number[]
  readonly violations: readonly string[]
}

const SHOWN = 3

/** Reads the table of gaps; reports any gap that is still open. */
export async function checkLedger(database: Database): Promise<LedgerCheck> {
  const { rows } = await database.query<{
    gap_id: string
    status: string
    by_id: boolean
    took_ms: number | null
  }>(
    `SELECT gap_id, status, from_id IS NOT NULL AS by_id,
       (extract(epoch FROM closed_at - detected_at) * 1000)::float8 AS took_ms FROM gaps ORDER BY gap_id`,
  )
  const open = rows.filter(({ status }) => status === 'open').map(({ gap_id }) => gap_id)
  const filled = rows.filter(({ status }) => status === 'filled')
  return {
    filled: filled.length,
    unrecoverable: rows.filter(({ status, by_id }) => status === 'unrecoverable' && by_id).length,
    windows: rows.filter(({ by_id }) => !by_id).length,
    fillTimesMs: filled.flatMap(({ took_ms }) => (took_ms === null ? [] : [took_ms])),
    violations:
      open.length === 0
        ? []
        : [`${open.length} gaps are still open at the end, such as ${open.slice(0, SHOWN).join(', ')}.`],
  }
}

/** Counts rows by type. */
export async function countRows(database: Database): Promise<Record<string, number>> {
  const { rows } = await database.query<{ name: string; rows: number }>(
    `SELECT event_type || CASE source WHEN 'backfill' THEN ' (backfilled)' ELSE '' END AS name, count(*)::float8 AS rows
       FROM trades GROUP BY 1
     UNION ALL SELECT 'bookTicker', count(*) FROM book_ticker
     UNION ALL SELECT 'depth', count(*) FROM depth_updates
     UNION ALL SELECT 'depthSnapshot (' || kind || ')', count(*) FROM depth_snapshots GROUP BY 1
     UNION ALL SELECT 'dead letters', count(*) FROM dead_letters ORDER BY 1`,
  )
  return Object.fromEntries(rows.map(({ name, rows: count }) => [name, count]))
}
