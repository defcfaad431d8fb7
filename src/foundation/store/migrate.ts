import { describeError, TapelineError } from '../runtime/errors.ts'
import type { Database, Queryable } from './database.ts'
import { LEDGER_SQL, LOCK_HOLDER_SQL, LOCK_SQL, loadMigrations, type Migration } from './migrations.ts'
import { actAsMigrator, actAsOneself, applyRoles } from './roles.ts'
import { SQLSTATE, sqlStateOf } from './sql-state.ts'
import { inStep } from './unanswered.ts'

export interface MigrationReport {
  /** The version found, 0 for an empty database. */
  readonly from: number
  readonly to: number
  /** Statements for the roles that this user must not execute, see `roles.ts`. */
  readonly notAllowed: readonly string[]
}

/** How long a migration waits for a lock, including that of another migration. */
const LOCK_TIMEOUT_MS = 60_000

/** Limit of a single migration; one that rewrites a large table needs time. */
const STEP_LIMIT_MS = 60 * 60_000

export interface MigrateOptions {
  readonly lockTimeoutMs?: number
  /** Limit of each migration. */
  readonly limitMs?: number
  /** Cancels the running migration; then nothing is changed. */
  readonly signal?: AbortSignal
}

/** Another process holds the migration lock. Its code makes it retryable. */
export class MigrationUnderWayError extends Error {
  readonly code = SQLSTATE.lockNotAvailable

  constructor(waitedMs: number, holder: string, cause: unknown) {
    super(
      `Another process is migrating this database (${holder}): its lock was not released within ${waitedMs / 1000} s`,
      { cause },
    )
    this.name = 'MigrationUnderWayError'
  }
}

/**
 * Brings the schema up to date in one transaction under an advisory lock.
 * @throws TapelineError `DATABASE` if the database is newer or has no TimescaleDB
 * @throws UnansweredError naming the migration that exceeded its limit; or MigrationUnderWayError
 */
export async function migrate(
  database: Database,
  { lockTimeoutMs = LOCK_TIMEOUT_MS, limitMs = STEP_LIMIT_MS, signal }: MigrateOptions = {},
): Promise<MigrationReport> {
  try {
    return await database.transaction((connection) => bringUpToDate(connection, lockTimeoutMs), {
      limitMs,
      signal,
    })
  } catch (error) {
    if (sqlStateOf(error) !== SQLSTATE.insufficientPrivilege) throw error
    throw new TapelineError('DATABASE', `Migrating the schema failed: ${describeError(error)}`, {
      fix: 'Run `bin/tapeline migrate` as the owner of the database, or grant its user CREATE on the schema.',
      cause: error,
    })
  }
}

async function bringUpToDate(connection: Queryable, lockTimeoutMs: number): Promise<MigrationReport> {
  const migrations = loadMigrations()
  const before = await currentVersion(connection)
  refuseNewer(before, migrations)
  // A user without DDL rights passes if there is nothing to migrate.
  if (before === migrations.length) return { from: before, to: before, notAllowed: [] }
  await requireTimescale(connection)
  await takeLock(connection, lockTimeoutMs)
  await actAsMigrator(connection)
  await connection.query(LEDGER_SQL)
  const from = await currentVersion(connection)
  refuseNewer(from, migrations)
  for (const { version, name, sql } of migrations.slice(from)) {
    await inStep(`Migration ${version} (${name})`, () => connection.query(sql))
    await connection.query('INSERT INTO schema_migrations (version, name) VALUES ($1, $2)', [version, name])
  }
  await actAsOneself(connection)
  return { from, to: migrations.length, notAllowed: await applyRoles(connection) }
}

/** Takes the lock until the transaction ends; the session's limits apply for as long. */
async function takeLock(connection: Queryable, lockTimeoutMs: number): Promise<void> {
  await connection.query(`SET LOCAL lock_timeout = ${lockTimeoutMs}; SAVEPOINT before_lock`)
  try {
    await connection.query(LOCK_SQL)
  } catch (error) {
    if (sqlStateOf(error) !== SQLSTATE.lockNotAvailable) throw error
    await connection.query('ROLLBACK TO SAVEPOINT before_lock')
    throw new MigrationUnderWayError(lockTimeoutMs, await lockHolder(connection), error)
  }
}

async function lockHolder(connection: Queryable): Promise<string> {
  const { rows } = await connection.query<{ pid: number; application_name: string | null }>(LOCK_HOLDER_SQL)
  const [holder] = rows
  return holder === undefined ? 'gone by now' : `${holder.application_name || 'no name'}, pid ${holder.pid}`
}

/** Changes nothing (`MIGRATE_ON_START=false`). @throws TapelineError `DATABASE` if the schema is another */
export async function checkSchema(database: Database): Promise<void> {
  const migrations = loadMigrations()
  const version = await currentVersion(database)
  refuseNewer(version, migrations)
  if (version < migrations.length) {
    const message = `The schema is at version ${version}, this program needs ${migrations.length}`
    throw new TapelineError('DATABASE', message, { fix: 'Run: bin/tapeline migrate' })
  }
}

function refuseNewer(version: number, migrations: readonly Migration[]): void {
  if (version > migrations.length) {
    const message = `The schema is at version ${version}, newer than this program supports (${migrations.length})`
    const fix = 'Use the newer version of tapeline that migrated it.'
    throw new TapelineError('DATABASE', message, { fix })
  }
}

/** Returns 0 for a database that was never migrated. */
async function currentVersion(connection: Queryable): Promise<number> {
  const { rowCount } = await connection.query("SELECT WHERE to_regclass('schema_migrations') IS NOT NULL")
  if (rowCount === 0) return 0
  const { rows } = await connection.query<{ version: number | null }>(
    'SELECT max(version) AS version FROM schema_migrations',
  )
  return rows[0]?.version ?? 0
}

async function requireTimescale(connection: Queryable): Promise<void> {
  const { rowCount } = await connection.query(
    "SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'",
  )
  if (rowCount > 0) return
  throw new TapelineError('DATABASE', 'The server of this database has no TimescaleDB', {
    fix: 'Install TimescaleDB there and add it to shared_preload_libraries.',
  })
}
