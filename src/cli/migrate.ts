import { Command } from 'commander'
import { describeError, isTapelineError, TapelineError } from '../foundation/runtime/errors.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { withoutPassword } from '../foundation/runtime/without-password.ts'
import { loadSettings, withOrigin } from '../foundation/settings/load.ts'
import { compressionObstacle } from '../foundation/store/chunks.ts'
import type { Database } from '../foundation/store/database.ts'
import { migrate } from '../foundation/store/migrate.ts'
import { loadMigrations, renderMigrations } from '../foundation/store/migrations.ts'
import { openPostgres } from '../foundation/store/postgres.ts'
import { applyRoles } from '../foundation/store/roles.ts'
import { SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { fixOfEnded } from '../foundation/store/unanswered.ts'

export function migrateCommand(): Command {
  return new Command('migrate')
    .description('update the schema of the database')
    .option('--print', 'print the SQL for an empty database instead')
    .addHelpText(
      'after',
      '\nExamples:\n  DATABASE_URL=postgres://tapeline:secret@db:5432/tapeline bin/tapeline migrate\n  bin/tapeline migrate --print > init-db.sql',
    )
    .action(async (options: { print?: boolean }) => {
      if (options.print === true) {
        process.stdout.write(renderMigrations(loadMigrations()))
        return
      }
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const url = settings.DATABASE_URL
      const database = openPostgres({ url, poolMin: 0, poolMax: 1, applicationName: 'tapeline-migrate' })
      try {
        const { from, to } = await interruptible((signal) => migrate(database, { signal }))
        const migrated = from !== to
        console.log(
          `Schema ${migrated ? `migrated from version ${from} to ${to}` : `is up to date, version ${to}`}`,
        )
        printNotAllowed(await rolesOf(database))
        const obstacle = await compressionObstacle(database)
        const compression = obstacle === null ? 'available' : `not available, ${obstacle}`
        console.log(`Compression (COMPRESS_AFTER_DAYS): ${compression}`)
      } catch (error) {
        if (isTapelineError(error)) throw error
        const where = withOrigin(settings, 'DATABASE_URL', withoutPassword(url))
        const fix = settings.isSet('DATABASE_URL')
          ? 'Check DATABASE_URL, and that its user owns the database or is a superuser.'
          : 'Set DATABASE_URL to your TimescaleDB; `bin/tapeline up` migrates its own database.'
        throw new TapelineError('DATABASE', `${where} cannot be migrated: ${describeError(error)}`, {
          fix: fixOfEnded(error) ?? fix,
          cause: error,
        })
      } finally {
        await database.close()
      }
    })
}

/** Runs even without a migration: an operator may have run the refused statements since. */
async function rolesOf(database: Database): Promise<readonly string[]> {
  try {
    return await database.transaction(applyRoles)
  } catch (error) {
    // Only the owner of the schema may. Others only need to know that it is up to date.
    if (sqlStateOf(error) === SQLSTATE.insufficientPrivilege) return []
    throw error
  }
}

function printNotAllowed(statements: readonly string[]): void {
  if (statements.length === 0) return
  console.log(
    'This user may not run these statements for the roles. Run them as a user who may, then run `bin/tapeline migrate` again:',
  )
  for (const statement of statements) console.log(`  ${statement}`)
}
