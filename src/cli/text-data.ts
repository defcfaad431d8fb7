import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import { withoutPassword } from '../foundation/runtime/without-password.ts'
import type { Settings } from '../foundation/settings/load.ts'
import { withOrigin } from '../foundation/settings/origin.ts'
import { SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { TextReader, type TextReaderOptions } from '../foundation/store/text-reader.ts'
import { fixOfEnded, UnansweredError } from '../foundation/store/unanswered.ts'
import { readRunningEndpoints } from '../sandbox/processes/process-registry.ts'

/**
 * Reads the database of DATABASE_URL, else that of the running `up`, else the default. The
 * connection is read-only.
 *
 * @throws TapelineError `DATABASE` when the work failed there
 */
export async function withTextReader<Result>(
  settings: Settings,
  options: Omit<TextReaderOptions, 'url'>,
  work: (reader: TextReader) => Promise<Result>,
): Promise<Result> {
  const running = settings.isSet('DATABASE_URL') ? null : readRunningEndpoints(settings.DATA_DIR)
  const url = running?.databaseUrl ?? settings.DATABASE_URL
  let reader: TextReader | null = null
  try {
    reader = await TextReader.open({ ...options, url })
    return await work(reader)
  } catch (error) {
    if (error instanceof TapelineError) throw error
    const shown = withoutPassword(url)
    const where =
      running === null
        ? withOrigin(settings, 'DATABASE_URL', shown)
        : `${shown} (of the \`up\` that runs here)`
    if (reader === null) throw notReached(where, error)
    if (error instanceof UnansweredError)
      throw new TapelineError('DATABASE', `${where}: ${describeError(error)}`, {
        fix: fixOfEnded(error) ?? '',
        cause: error,
      })
    const state = sqlStateOf(error)
    throw state === null ? error : refused(error, state)
  } finally {
    await reader?.close()
  }
}

function notReached(where: string, error: unknown): TapelineError {
  return new TapelineError('DATABASE', `${where} cannot be reached: ${describeError(error)}`, {
    fix: 'Start `bin/tapeline up`, or set DATABASE_URL to a database that `bin/tapeline migrate` has prepared.',
    cause: error,
  })
}

/** PostgreSQL's error for a statement, with the SQLSTATE that its manual explains. */
function refused(error: unknown, state: string): TapelineError {
  const hint: unknown = Reflect.get(Object(error), 'hint')
  return new TapelineError('DATABASE', `${describeError(error)} (SQLSTATE ${state})`, {
    fix: typeof hint === 'string' && hint !== '' ? hint : (FIXES[state] ?? ''),
    cause: error,
  })
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
