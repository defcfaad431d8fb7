import { Command } from 'commander'
import { renderAudit } from '../audit/report.ts'
import { type Audit, mayBeSettling, verify } from '../audit/verify.ts'
import { describeError, TapelineError } from '../errors.ts'
import { readRunningEndpoints } from '../local/process-registry.ts'
import { loadSettings, type Settings, withoutPassword } from '../settings/load.ts'
import type { Database } from '../store/database.ts'
import { openPostgres } from '../store/postgres.ts'
import { sleep } from '../timing/backoff.ts'

/** How long, and how often, to look again before ids that are said to be filled count as missing. */
const SETTLE_LIMIT_MS = 30_000
const SETTLE_STEP_MS = 2000

export function verifyCommand(): Command {
  return new Command('verify')
    .description('audit what is stored; exit 1 if anything is missing or doubled that nothing explains')
    .option('--json', 'print the whole audit as JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  tapeline verify          while `tapeline up` runs, or with DATABASE_URL set\n  tapeline verify --json',
    )
    .action(async (options: { json?: boolean }) => {
      const url = databaseUrl(loadSettings(process.env, { cwd: process.cwd() }))
      const database = openPostgres({
        url,
        poolMin: 0,
        poolMax: 1,
        queryTimeoutMs: null,
        applicationName: 'tapeline-verify',
      })
      try {
        const audit = await verifyPatiently(database)
        console.log(options.json === true ? JSON.stringify(audit, null, 2) : renderAudit(audit))
        if (!audit.clean) process.exitCode = 1
      } catch (error) {
        if (error instanceof TapelineError && error.code === 'ACCESS') throw error
        throw new TapelineError(
          'DATABASE',
          `${withoutPassword(url)} cannot be audited: ${describeError(error)}`,
          {
            fix: 'Start `tapeline up`, or set DATABASE_URL to a database that `tapeline migrate` has prepared.',
            cause: error,
          },
        )
      } finally {
        await database.close()
      }
    })
}

/**
 * Looks again for a while where the ledger may have overtaken the rows: a lasting loss is still one after that, and a
 * backlog that is being stored is none.
 */
async function verifyPatiently(database: Database): Promise<Audit> {
  const deadlineMs = performance.now() + SETTLE_LIMIT_MS
  let audit = await verify(database)
  while (mayBeSettling(audit) && performance.now() < deadlineMs) {
    console.error('Ids that are said to be filled are not stored yet; looking again ...')
    await sleep(SETTLE_STEP_MS)
    audit = await verify(database)
  }
  return audit
}

/** The database that is set, else that of the `up` which runs here, else the default. */
function databaseUrl(settings: Settings): string {
  if (settings.isSet('DATABASE_URL')) return settings.DATABASE_URL
  return readRunningEndpoints(settings.DATA_DIR)?.databaseUrl ?? settings.DATABASE_URL
}
