import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import { withoutPassword } from '../foundation/runtime/without-password.ts'
import type { Settings } from '../foundation/settings/load.ts'
import { withOrigin } from '../foundation/settings/origin.ts'
import type { Database } from '../foundation/store/database.ts'
import { openPostgres } from '../foundation/store/postgres.ts'
import { SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { fixOfEnded } from '../foundation/store/unanswered.ts'
import { readRunningEndpoints } from '../sandbox/processes/process-registry.ts'

/** Searching a large table for a text takes a while. */
const STATEMENT_LIMIT_MS = 10 * 60_000

/**
 * Opens the database of DATABASE_URL, else that of the running `up`, else the default. Closes it
 * after the work.
 *
 * @param failure the failed operation, such as "dead letters cannot be listed"
 * @throws TapelineError `DATABASE` when the work failed there
 */
export async function withStoredData<Result>(
  settings: Settings,
  failure: string,
  work: (database: Database) => Promise<Result>,
): Promise<Result> {
  const running = settings.isSet('DATABASE_URL') ? null : readRunningEndpoints(settings.DATA_DIR)
  const url = running?.databaseUrl ?? settings.DATABASE_URL
  const database = openPostgres({
    url,
    poolMin: 0,
    poolMax: 2,
    queryTimeoutMs: STATEMENT_LIMIT_MS,
    applicationName: 'tapeline-tools',
  })
  try {
    return await work(database)
  } catch (error) {
    if (error instanceof TapelineError) throw error
    const where =
      running === null
        ? withOrigin(settings, 'DATABASE_URL', withoutPassword(url))
        : `${withoutPassword(url)} (of the \`up\` that runs here)`
    const message = `${where}: ${failure}: ${describeError(error)}`
    throw new TapelineError('DATABASE', message, { fix: fixFor(error), cause: error })
  } finally {
    await database.close()
  }
}

function fixFor(error: unknown): string {
  const ended = fixOfEnded(error)
  if (ended !== null) return ended
  const state = sqlStateOf(error)
  // Undefined table or column: the schema has an earlier version, or does not exist.
  if (state === SQLSTATE.undefinedTable || state === SQLSTATE.undefinedColumn)
    return 'Run: bin/tapeline migrate'
  if (state === SQLSTATE.insufficientPrivilege)
    return 'Use a user with the rights of tapeline_writer (tapeline_reader may list).'
  return 'Start `bin/tapeline up`, or set DATABASE_URL to a database that `bin/tapeline migrate` has prepared.'
}
