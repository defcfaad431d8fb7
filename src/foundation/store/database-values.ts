import type { Queryable } from './database.ts'

/** Operational figures of the whole database. */
export interface DatabaseValues {
  /** Size of this database, including indexes. */
  readonly sizeBytes: number
  /** Ledger rows by event type, status and cause. */
  readonly gaps: ReadonlyArray<{
    readonly type: string
    readonly status: string
    readonly cause: string
    readonly count: number
  }>
  /** Dead letters that were not stored later. */
  readonly unresolvedDeadLetters: number
}

/** Free disk space is missing, because SQL cannot see it. */
export async function databaseValues(database: Queryable): Promise<DatabaseValues> {
  const { rows: sizes } = await database.query<{ size: string; letters: string }>(
    `SELECT pg_database_size(current_database()) AS size,
       (SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL) AS letters`,
  )
  const { rows: gaps } = await database.query<{
    type: string
    status: string
    cause: string
    count: string
  }>('SELECT event_type AS type, status, cause, count(*) AS count FROM gaps GROUP BY 1, 2, 3')
  return {
    sizeBytes: Number(sizes[0]?.size ?? 0),
    gaps: gaps.map(({ count, ...one }) => ({ ...one, count: Number(count) })),
    unresolvedDeadLetters: Number(sizes[0]?.letters ?? 0),
  }
}
