import { Client } from 'pg'
import { connectionOptions } from './connection-options.ts'
import type { Queryable } from './database.ts'

/** What the server, the database and the role give a session, before Tapeline sets what it needs for a transaction. */
export interface SessionDefaults {
  /** A standby, or a server that is being restored. */
  readonly isInRecovery: boolean
  /** By name, as PostgreSQL shows them; those that the server does not have are missing. */
  readonly settings: ReadonlyMap<string, string>
  /** Those that somebody has set to another value than PostgreSQL's own. */
  readonly changed: ReadonlyMap<string, string>
  /** How many locks all transactions together may hold. */
  readonly locks: number
  /** Chunks and their indexes: a statement over all days locks each. */
  readonly chunkRelations: number
}

/** Shown where they differ from PostgreSQL's own value, which for the first three the installation chooses. */
const NAMES = [
  'TimeZone',
  'DateStyle',
  'IntervalStyle',
  'bytea_output',
  'extra_float_digits',
  'statement_timeout',
  'lock_timeout',
  'idle_in_transaction_session_timeout',
  'transaction_timeout',
  'default_transaction_isolation',
  'default_transaction_read_only',
]

const LOCKS = `current_setting('max_locks_per_transaction')::bigint
  * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint)`

export async function sessionDefaults(connection: Queryable): Promise<SessionDefaults> {
  const { rows: facts } = await connection.query<{ recovery: boolean; locks: string; relations: string }>(
    `SELECT pg_is_in_recovery() AS recovery, ${LOCKS} AS locks,
       (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('_timescaledb_internal') AND relkind IN ('r', 'i')) AS relations`,
  )
  // In a transaction that has set its own, `reset_val` is what the session came with; of `search_path` it sets none.
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

/**
 * Whether a pooler stands before the server: it gives its clients process numbers of its making, since any session may serve
 * them.
 */
export async function hasPooler(url: string, limitMs: number): Promise<boolean> {
  const client = new Client({
    ...connectionOptions(url),
    connectionTimeoutMillis: limitMs,
    query_timeout: limitMs,
    application_name: 'tapeline-doctor',
  })
  // What breaks is seen by the statement.
  client.on('error', () => {})
  try {
    await client.connect()
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    return Reflect.get(client, 'processID') !== rows[0]?.pid
  } finally {
    await client.end()
  }
}
