import { TapelineError } from '../errors.ts'
import type { Database, Queryable } from './database.ts'
import { LEDGER_SQL, LOCK_SQL, loadMigrations, type Migration } from './migrations.ts'

export interface MigrationReport {
  /** The version found, 0 for an empty database. */
  readonly from: number
  readonly to: number
}

/**
 * Brings the schema up to date, in one transaction under an advisory lock: several may start at once.
 *
 * @throws TapelineError `DATABASE` when the database is newer than this program or has no TimescaleDB
 */
export async function migrate(database: Database): Promise<MigrationReport> {
  const migrations = loadMigrations()
  try {
    return await database.transaction(async (connection) => {
      await connection.query(LOCK_SQL)
      await connection.query(LEDGER_SQL)
      const from = await currentVersion(connection)
      refuseNewer(from, migrations)
      for (const { version, name, sql } of migrations.slice(from)) {
        await connection.query(sql)
        await connection.query('INSERT INTO schema_migrations (version, name) VALUES ($1, $2)', [
          version,
          name,
        ])
      }
      return { from, to: Math.max(from, migrations.length) }
    })
  } catch (error) {
    throw withoutTimescale(error)
      ? new TapelineError(
          'DATABASE',
          'The database has no TimescaleDB, or this user may not create the extension',
          {
            fix: 'Install TimescaleDB on the server and run once as a superuser: CREATE EXTENSION timescaledb',
            cause: error,
          },
        )
      : error
  }
}

/**
 * Checks that the schema is exactly this program's, without changing anything (`MIGRATE_ON_START=false`).
 *
 * @throws TapelineError `DATABASE` when it is older or newer
 */
export async function checkSchema(database: Database): Promise<void> {
  const migrations = loadMigrations()
  const exists = await database.query("SELECT to_regclass('schema_migrations') IS NOT NULL AS present")
  const version = exists.rows[0]?.['present'] === true ? await currentVersion(database) : 0
  refuseNewer(version, migrations)
  if (version < migrations.length) {
    throw new TapelineError(
      'DATABASE',
      `The schema is at version ${version}, this program needs ${migrations.length}`,
      {
        fix: 'Run: tapeline migrate',
      },
    )
  }
}

async function currentVersion(connection: Queryable): Promise<number> {
  const { rows } = await connection.query<{ version: number | null }>(
    'SELECT max(version) AS version FROM schema_migrations',
  )
  return rows[0]?.version ?? 0
}

function refuseNewer(version: number, migrations: readonly Migration[]): void {
  if (version > migrations.length) {
    throw new TapelineError(
      'DATABASE',
      `The schema is at version ${version}, newer than this program knows (${migrations.length})`,
      {
        fix: 'Use the newer version of tapeline that migrated it.',
      },
    )
  }
}

/** SQLSTATEs of a missing extension file and of a missing right. */
function withoutTimescale(error: unknown): boolean {
  const code = error instanceof Error ? Reflect.get(error, 'code') : undefined
  return code === '58P01' || code === '0A000' || code === '42501'
}
