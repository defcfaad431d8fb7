import { isTapelineError } from '../../foundation/runtime/errors.ts'
import { withoutPassword } from '../../foundation/runtime/without-password.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import type { Queryable } from '../../foundation/store/database.ts'
import { hasPooler, sessionDefaults } from '../../foundation/store/database-facts.ts'
import { checkSchema } from '../../foundation/store/migrate.ts'
import { openPostgres } from '../../foundation/store/postgres.ts'
import type { IngestionStatus } from '../../foundation/telemetry/status.ts'
import { bad, type Finding, good, warning } from './finding.ts'

const ROLES = ['tapeline_migrator', 'tapeline_writer', 'tapeline_reader']
const TIMEOUT_MS = 10_000
/** A larger difference makes latencies and retention wrong, since other machines stamp the rows. */
const CLOCK_LIMIT_MS = 1000

/** Checks that the database is reachable, and has TimescaleDB and this program's schema. */
export async function checkDatabase(settings: Settings): Promise<Finding[]> {
  const database = openPostgres({
    url: settings.DATABASE_URL,
    poolMin: 0,
    poolMax: 1,
    queryTimeoutMs: TIMEOUT_MS,
    applicationName: 'tapeline-doctor',
  })
  try {
    const { rows } = await database.query<{ version: string; extension: string | null }>(
      `SELECT current_setting('server_version') AS version, (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS extension`,
    )
    const { version = '', extension = null } = rows[0] ?? {}
    const answers = good(
      'database',
      `${withoutPassword(settings.DATABASE_URL)} answers: PostgreSQL ${version}`,
    )
    if (extension === null) return [answers, await withoutTimescale(database)]
    return [
      answers,
      good('TimescaleDB', `${extension}, ${await licence(database)}`),
      ...(await sessions(database, settings.DATABASE_URL)),
      await schema(database),
      await roles(database),
      await clock(database),
    ]
  } finally {
    await database.close()
  }
}

async function withoutTimescale(database: Queryable): Promise<Finding> {
  const { rows } = await database.query("SELECT FROM pg_available_extensions WHERE name = 'timescaledb'")
  return rows.length > 0
    ? bad(
        'TimescaleDB',
        'is not in this database yet',
        'Run as a user who may create extensions: bin/tapeline migrate',
      )
    : bad(
        'TimescaleDB',
        'is not installed on this server',
        'Install it on the server (docs.timescale.com), and add it to shared_preload_libraries.',
      )
}

async function licence(database: Queryable): Promise<string> {
  const { rows } = await database.query<{ licence: string | null }>(
    "SELECT current_setting('timescaledb.license', true) AS licence",
  )
  const name = rows[0]?.licence ?? 'unknown'
  return name === 'timescale' ? 'Timescale licence' : `${name} licence: no COMPRESS_AFTER_DAYS`
}

async function sessions(database: Queryable, url: string): Promise<Finding[]> {
  const { isInRecovery, settings, changed, locks, chunkRelations } = await sessionDefaults(database)
  const { rows } = await database.query<{ embedded: boolean }>("SELECT version() LIKE '%emcc%' AS embedded")
  // The embedded database serves all sessions with one process, as a pooler does.
  const isPooled = rows[0]?.embedded !== true && (await hasPooler(url, TIMEOUT_MS))
  const other = [...changed].map(([name, value]) => `${name} = ${value}`).join(', ')
  return [
    good('pooler', isPooled ? 'present; transaction mode is supported' : 'none'),
    isInRecovery
      ? bad(
          'writing',
          'the server is in recovery (a standby) and accepts no writes',
          'Promote it, or set DATABASE_URL to the primary.',
        )
      : writing(settings.get('default_transaction_read_only') === 'on'),
    good('search_path', settings.get('search_path') ?? 'unknown'),
    good(
      'session settings',
      other === '' ? "PostgreSQL's defaults" : `${other}; Tapeline overrides them in each transaction`,
    ),
    lockLimit(locks, chunkRelations, settings.get('max_locks_per_transaction') ?? 'unknown'),
  ]
}

function writing(isReadOnlyByDefault: boolean): Finding {
  if (!isReadOnlyByDefault) return good('writing', 'allowed')
  return warning(
    'writing',
    'default_transaction_read_only is on, but Tapeline still writes (BEGIN READ WRITE)',
    'If it guards a full disk, stop the consumer. Otherwise SET it to off in a session, and reset it there.',
  )
}

function lockLimit(locks: number, relations: number, perTransaction: string): Finding {
  const text = `${locks} locks (max_locks_per_transaction = ${perTransaction}), ${relations} chunks and indexes`
  if (relations < locks) return good('lock limit', text)
  return warning(
    'lock limit',
    `${text}: a statement over all days may fail with "out of shared memory"`,
    'Raise max_locks_per_transaction on the server and restart it, or keep fewer days (RETENTION_DAYS).',
  )
}

async function schema(database: Parameters<typeof checkSchema>[0]): Promise<Finding> {
  try {
    await checkSchema(database)
    return good('schema', 'up to date')
  } catch (error) {
    if (!isTapelineError(error)) throw error
    return bad('schema', error.message, error.fix)
  }
}

async function roles(database: Queryable): Promise<Finding> {
  const { rows } = await database.query<{ name: string }>(
    'SELECT rolname AS name FROM pg_roles WHERE rolname = ANY ($1)',
    [ROLES],
  )
  const missing = ROLES.filter((role) => !rows.some(({ name }) => name === role))
  if (missing.length === 0) return good('roles', ROLES.join(', '))
  const fix =
    'Run as a user who may create roles: bin/tapeline migrate. Tapeline works without them, with one user for everything.'
  return warning('roles', `missing: ${missing.join(', ')}`, fix)
}

async function clock(database: Queryable): Promise<Finding> {
  const before = Date.now()
  const { rows } = await database.query<{ ms: string }>(
    'SELECT extract(epoch FROM clock_timestamp()) * 1000 AS ms',
  )
  return ofClock('database clock', Number(rows[0]?.ms) - (before + Date.now()) / 2)
}

/**
 * Compares the exchange's clock as a running ingestion sees it: from its events, minus the fastest
 * transfer.
 */
export function ofReceipts(status: IngestionStatus): Finding[] {
  const { clockOffsetMs } = status
  return clockOffsetMs === null ? [] : [ofClock('exchange clock, by its events', -clockOffsetMs)]
}

/** @param offsetMs how far the other clock is ahead of ours */
export function ofClock(what: string, offsetMs: number): Finding {
  const way = offsetMs < 0 ? 'earlier' : 'later'
  const text = `${Math.abs(Math.round(offsetMs))} ms ${way} than this machine's`
  if (Math.abs(offsetMs) <= CLOCK_LIMIT_MS) return good(what, text)
  return warning(
    what,
    text,
    'Synchronise the clocks (chrony, systemd-timesyncd): receipt times and latencies are wrong by as much.',
  )
}
