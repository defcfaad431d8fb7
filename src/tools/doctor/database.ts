import { isTapelineError } from '../../foundation/runtime/errors.ts'
import { withoutPassword } from '../../foundation/runtime/without-password.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import type { Database, Queryable } from '../../foundation/store/database.ts'
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
    const { rows } = await database.query<Server>(SERVER)
    const [server] = rows
    if (server === undefined) throw new TypeError('A SELECT without FROM has one row')
    const { version, extension, licence } = server
    const url = withoutPassword(settings.DATABASE_URL)
    const answers = good('database', `${url} answers: PostgreSQL ${version}`)
    if (extension === null) return [answers, withoutTimescale(server)]
    const terms = licence === 'timescale' ? 'Timescale licence' : `${licence} licence: no COMPRESS_AFTER_DAYS`
    return [
      answers,
      good('TimescaleDB', `${extension}, ${terms}`),
      ...(await sessions(database, settings.DATABASE_URL, server)),
      await schema(database),
      await roles(database),
      await clock(database),
    ]
  } finally {
    await database.close()
  }
}

const SERVER = `SELECT current_setting('server_version') AS version,
  (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS extension,
  EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') AS available,
  coalesce(current_setting('timescaledb.license', true), 'unknown') AS licence, version() LIKE '%emcc%' AS embedded`

interface Server {
  readonly version: string
  /** Version of TimescaleDB in this database. */
  readonly extension: string | null
  /** Whether TimescaleDB is installed on the server. */
  readonly available: boolean
  readonly licence: string
  readonly embedded: boolean
}

function withoutTimescale({ available }: Server): Finding {
  if (available) {
    const fix = 'Run as a user who may create extensions: bin/tapeline migrate'
    return bad('TimescaleDB', 'is not in this database yet', fix)
  }
  const fix = 'Install it on the server (docs.timescale.com), and add it to shared_preload_libraries.'
  return bad('TimescaleDB', 'is not installed on this server', fix)
}

async function sessions(database: Queryable, url: string, { embedded }: Server): Promise<Finding[]> {
  const { isInRecovery, settings, changed, locks, chunkRelations } = await sessionDefaults(database)
  // The embedded database serves all sessions with one process, as a pooler does.
  const isPooled = !embedded && (await hasPooler(url, TIMEOUT_MS))
  const other = [...changed].map(([name, value]) => `${name} = ${value}`).join(', ')
  const overridden = `${other}; Tapeline overrides them in each transaction`
  return [
    good('pooler', isPooled ? 'present; transaction mode is supported' : 'none'),
    writing(isInRecovery, settings.get('default_transaction_read_only') === 'on'),
    good('search_path', settings.get('search_path') ?? 'unknown'),
    good('session settings', other === '' ? "PostgreSQL's defaults" : overridden),
    lockLimit(locks, chunkRelations, settings.get('max_locks_per_transaction') ?? 'unknown'),
  ]
}

function writing(isInRecovery: boolean, isReadOnlyByDefault: boolean): Finding {
  if (isInRecovery) {
    const text = 'the server is in recovery (a standby) and accepts no writes'
    return bad('writing', text, 'Promote it, or set DATABASE_URL to the primary.')
  }
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

async function schema(database: Database): Promise<Finding> {
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

/** Compares the exchange's clock as ingestion sees it: from its events, minus the fastest transfer. */
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
