import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import { withoutPassword } from '../foundation/runtime/without-password.ts'
import type { Settings } from '../foundation/settings/load.ts'
import { withOrigin } from '../foundation/settings/origin.ts'
import { SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { TextReader, type TextReaderOptions } from '../foundation/store/text-reader.ts'
import { fixOfEnded, UnansweredError } from '../foundation/store/unanswered.ts'
import { readRunningEndpoints } from '../sandbox/processes/process-registry.ts'

/**
 * Reads the database that is set, else that of the `up` which runs here, else the default; it cannot be written to.
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

/** What PostgreSQL says of a statement, with the SQLSTATE that its manual explains. */
function refused(error: unknown, state: string): TapelineError {
  const hint: unknown = Reflect.get(Object(error), 'hint')
  return new TapelineError('DATABASE', `${describeError(error)} (SQLSTATE ${state})`, {
    fix: typeof hint === 'string' && hint !== '' ? hint : (FIXES[state] ?? ''),
    cause: error,
  })
}

const FIXES: Readonly<Record<string, string>> = {
  '25006': 'Nothing can be changed here: connect with psql to do that.',
  [SQLSTATE.insufficientPrivilege]:
    'Use a user with the rights of tapeline_reader; what changes something is for psql.',
  '42601': 'Give one SELECT, in quotes.',
  [SQLSTATE.undefinedTable]:
    'The tables are in docs/database.md; a database without them wants: bin/tapeline migrate',
  '57014': 'It took too long: ask for less; `sql` takes a longer --timeout.',
}
