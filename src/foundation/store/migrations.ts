import { readdirSync, readFileSync } from 'node:fs'

export interface Migration {
  /** From 1, contiguous. */
  readonly version: number
  readonly name: string
  readonly sql: string
}

const FOLDER = new URL('./migrations/', import.meta.url)

/** Key of the advisory lock of migrations; an arbitrary constant. */
const LOCK_KEY = 7_453_910

/** Lists the migrations that a database has. */
export const LEDGER_SQL = `CREATE TABLE IF NOT EXISTS schema_migrations (
  version    integer PRIMARY KEY,
  name       text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);`

/** Taken first in the migrating transaction; released when it ends. */
export const LOCK_SQL = `SELECT pg_advisory_xact_lock(${LOCK_KEY});`
/** Finds the holder of the lock. */
export const LOCK_HOLDER_SQL = `SELECT pid, application_name FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
  WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = ${LOCK_KEY} AND objsubid = 1
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())`

/** Returns all migrations of this program, oldest first: the numbered files `0001_name.sql`. */
export function loadMigrations(): Migration[] {
  const files = readdirSync(FOLDER)
    .filter((file) => file.endsWith('.sql'))
    .sort()
  return files.map((file, index) => {
    const [, number, name] = /^(\d{4})_(\w+)\.sql$/.exec(file) ?? []
    if (Number(number) !== index + 1 || name === undefined) {
      throw new Error(`Migration ${file} should be numbered ${String(index + 1).padStart(4, '0')}`)
    }
    return { version: index + 1, name, sql: readFileSync(new URL(file, FOLDER), 'utf8') }
  })
}

/** Returns one script that sets up an empty database, for `migrate --print` and `docker/init-db.sql`. */
export function renderMigrations(migrations: readonly Migration[]): string {
  const parts = migrations.map(
    ({ version, name, sql }) =>
      `-- Migration ${version}: ${name}\n${sql.trim()}\nINSERT INTO schema_migrations (version, name) VALUES (${version}, '${name}');`,
  )
  const hasRoles = migrations.some(({ name }) => name === 'roles')
  const roles = hasRoles ? '\n-- The roles and their rights.\nSELECT tapeline_roles();\n' : ''
  return `-- Made by: bin/tapeline migrate --print\n-- For an empty database; an existing one is brought up to date by: bin/tapeline migrate\n\nBEGIN;\n${LOCK_SQL}\n${LEDGER_SQL}\n\n${parts.join('\n\n')}\n${roles}\nCOMMIT;\n`
}
