import { existsSync } from 'node:fs'
import type { ArchiveReaderOptions } from '../foundation/archive/archive-reader.ts'
import { archiveLocation } from '../foundation/archive/open-store.ts'
import { describeError, isTapelineError, TapelineError } from '../foundation/runtime/errors.ts'
import { withoutPassword } from '../foundation/runtime/without-password.ts'
import { type Settings, withOrigin } from '../foundation/settings/load.ts'
import { NO_DATABASE } from '../foundation/settings/parsers.ts'
import type { Database } from '../foundation/store/database.ts'
import { openPostgres } from '../foundation/store/postgres.ts'
import { SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { TextReader, type TextReaderOptions } from '../foundation/store/text-reader.ts'
import { fixOfEnded, UnansweredError } from '../foundation/store/unanswered.ts'
import { readRunningEndpoints } from '../sandbox/processes/process-registry.ts'
import { keptArchives } from '../sandbox/up/kept-data.ts'

/** Searching a large table for a text takes a while. */
const STATEMENT_LIMIT_MS = 10 * 60_000

const START =
  'Start `bin/tapeline up`, or set DATABASE_URL to a database that `bin/tapeline migrate` has prepared.'

const ADD_ARCHIVE = 'To read the archive instead, add --archive.'

/** Returns the database of DATABASE_URL, else that of the running `up`, else the default. */
function storedDatabase(settings: Settings, instead = ADD_ARCHIVE): { url: string; where: string } {
  const running = settings.isSet('DATABASE_URL') ? null : readRunningEndpoints(settings.DATA_DIR)
  const url = running?.databaseUrl ?? settings.DATABASE_URL
  if (url === NO_DATABASE) {
    const whose = running === null ? 'This deployment' : 'The `up` that runs here'
    throw new TapelineError('DATABASE', `${whose} has no database`, { fix: instead })
  }
  const shown = withoutPassword(url)
  if (running !== null) return { url, where: `${shown} (of the \`up\` that runs here)` }
  return { url, where: withOrigin(settings, 'DATABASE_URL', shown) }
}

/** Returns how to read the archive of ARCHIVE_URL, else that of the running `up` or of one before. */
export function storedArchive(settings: Settings): ArchiveReaderOptions {
  return {
    ...archiveLocation(settings),
    url: archiveUrl(settings),
    memoryBytes: settings.ARCHIVE_MEMORY_MB * (1 << 20),
    tempFolder: settings.ARCHIVE_TEMP ?? null,
  }
}

/** @throws TapelineError `ARCHIVE` if `up` has written several */
function archiveUrl({ DATA_DIR, ARCHIVE_URL, isSet }: Settings): string {
  if (isSet('ARCHIVE_URL')) return ARCHIVE_URL
  const running = readRunningEndpoints(DATA_DIR)?.archive
  if (running) return running
  if (existsSync(ARCHIVE_URL)) return ARCHIVE_URL
  const [kept, ...others] = keptArchives(DATA_DIR)
  if (kept === undefined) return ARCHIVE_URL
  if (others.length === 0) return kept
  throw new TapelineError('ARCHIVE', `There are several archives below ${DATA_DIR}`, {
    fix: `Set ARCHIVE_URL to one of them: ${[kept, ...others].join(', ')}`,
  })
}

/** Shared by the commands that list and retry. */
export const TOOLS_USE = {
  applicationName: 'tapeline-tools',
  rights: 'Use a user with the rights of tapeline_writer (tapeline_reader may list).',
  instead: 'This command needs one. `bin/tapeline sql --archive` queries gaps and dead_letters.',
}

interface Use {
  readonly applicationName: string
  /** The failed operation in an error, such as "dead letters cannot be listed". */
  readonly failure: string
  /** The fix if the user may not. */
  readonly rights: string
  /** Added to the fix if a statement took too long. */
  readonly narrower?: string
  /** The fix if there is no database. Default: the option --archive. */
  readonly instead?: string
}

/** Opens the stored data, and closes it after the work. @throws TapelineError `DATABASE` */
export async function withStoredData<Result>(
  settings: Settings,
  use: Use,
  work: (database: Database) => Promise<Result>,
): Promise<Result> {
  const { url, where } = storedDatabase(settings, use.instead)
  const { applicationName, failure } = use
  const pool = { poolMin: 0, poolMax: 2, queryTimeoutMs: STATEMENT_LIMIT_MS }
  const database = openPostgres({ url, ...pool, applicationName })
  try {
    return await work(database)
  } catch (error) {
    if (isTapelineError(error)) throw error
    const message = `${where}: ${failure}: ${describeError(error)}`
    throw new TapelineError('DATABASE', message, { fix: fixFor(error, use), cause: error })
  } finally {
    await database.close()
  }
}

function fixFor(error: unknown, { rights, narrower }: Use): string {
  const ended = fixOfEnded(error)
  if (ended !== null) return narrower === undefined ? ended : `${ended} ${narrower}`
  const state = sqlStateOf(error)
  // Undefined table or column: the schema has an earlier version, or does not exist.
  if (state === SQLSTATE.undefinedTable || state === SQLSTATE.undefinedColumn)
    return 'Run: bin/tapeline migrate'
  return state === SQLSTATE.insufficientPrivilege ? rights : START
}

/** Reads the stored data as text, over a read-only connection. @throws TapelineError `DATABASE` */
export async function withTextReader<Result>(
  settings: Settings,
  options: Omit<TextReaderOptions, 'url'>,
  work: (reader: TextReader) => Promise<Result>,
): Promise<Result> {
  const { url, where } = storedDatabase(settings)
  // Only if there may be one: most have no archive.
  const start = settings.isSet('ARCHIVE_URL') ? `${START} ${ADD_ARCHIVE}` : START
  let reader: TextReader | null = null
  try {
    reader = await TextReader.open({ ...options, url })
    return await work(reader)
  } catch (error) {
    if (isTapelineError(error)) throw error
    const failed = (message: string, fix: string) =>
      new TapelineError('DATABASE', message, { fix, cause: error })
    const text = describeError(error)
    if (reader === null) throw failed(`${where} cannot be reached: ${text}`, start)
    if (error instanceof UnansweredError) throw failed(`${where}: ${text}`, fixOfEnded(error) ?? '')
    const state = sqlStateOf(error)
    if (state === null) throw error
    const hint: unknown = Reflect.get(Object(error), 'hint')
    throw failed(`${text} (SQLSTATE ${state})`, String(hint || (FIXES[state] ?? '')))
  } finally {
    await reader?.close()
  }
}

const FIXES: Readonly<Record<string, string>> = {
  '25006': 'This connection is read-only: use psql to change data.',
  [SQLSTATE.insufficientPrivilege]:
    'Use a user with the rights of tapeline_reader. To change data, use psql.',
  '42601': 'Give one SELECT, in quotes.',
  [SQLSTATE.undefinedTable]:
    'docs/database.md lists the tables. If they do not exist, run: bin/tapeline migrate',
  '57014': 'The query took too long: narrow it, or use a longer --timeout with `sql`.',
}
