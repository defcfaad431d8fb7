import { onClient } from './connection.ts'
import type { Queryable } from './database.ts'

/** The settings of a session before Tapeline sets its own for a transaction. */
export interface SessionDefaults {
  /** A standby, or a server that is being restored. */
  readonly isInRecovery: boolean
  /** By name, as PostgreSQL shows them; settings unknown to the server are missing. */
  readonly settings: ReadonlyMap<string, string>
  /** Settings with a value other than PostgreSQL's default. */
  readonly changed: ReadonlyMap<string, string>
  /** How many locks all transactions together may hold. */
  readonly locks: number
  /** Chunks and their indexes, each of which a statement over all days locks. */
  readonly chunkRelations: number
}

/** Shown if they differ from PostgreSQL's default; the installation sets the first three. */
const NAMES = [
  ...['TimeZone', 'DateStyle', 'IntervalStyle', 'bytea_output', 'extra_float_digits'],
  ...['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout'],
  ...['default_transaction_isolation', 'default_transaction_read_only'],
]

const LOCKS = `current_setting('max_locks_per_transaction')::bigint
  * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint)`

export async function sessionDefaults(connection: Queryable): Promise<SessionDefaults> {
  const { rows: facts } = await connection.query<{ recovery: boolean; locks: string; relations: string }>(
    `SELECT pg_is_in_recovery() AS recovery, ${LOCKS} AS locks,
       (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('_timescaledb_internal') AND relkind IN ('r', 'i')) AS relations`,
  )
  // In a transaction with local settings, `reset_val` is the initial value. `search_path` has none.
  const { rows } = await connection.query<{ name: string; value: string; changed: boolean }>(
    `SELECT name, CASE name WHEN 'search_path' THEN setting ELSE reset_val END AS value, reset_val <> boot_val AS changed
     FROM pg_settings WHERE name = ANY ($1)`,
    [[...NAMES, 'search_path', 'max_locks_per_transaction']],
  )
  const changed = rows.filter(({ name, changed }) => changed && NAMES.includes(name))
  return {
    isInRecovery: facts[0]?.recovery === true,
    settings: new Map(rows.map(({ name, value }) => [name, value])),
    changed: new Map(changed.map(({ name, value }) => [name, value])),
    locks: Number(facts[0]?.locks ?? 0),
    chunkRelations: Number(facts[0]?.relations ?? 0),
  }
}

/** Whether a pooler is in front of the server: it gives clients made-up process numbers. */
export function hasPooler(url: string, limitMs: number): Promise<boolean> {
  return onClient(url, limitMs, 'tapeline-doctor', async (client) => {
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    return Reflect.get(client, 'processID') !== rows[0]?.pid
  })
}

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
  const { rows: gaps } = await database.query<DatabaseValues['gaps'][number]>(
    'SELECT event_type AS type, status, cause, count(*)::float8 AS count FROM gaps GROUP BY 1, 2, 3',
  )
  const { rows } = await database.query<Omit<DatabaseValues, 'gaps'>>(
    `SELECT pg_database_size(current_database())::float8 AS "sizeBytes",
       (SELECT count(*)::float8 FROM dead_letters WHERE resolved_at IS NULL) AS "unresolvedDeadLetters"`,
  )
  return { gaps, ...(rows[0] ?? { sizeBytes: 0, unresolvedDeadLetters: 0 }) }
}
