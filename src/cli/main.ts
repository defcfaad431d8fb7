import { Command } from 'commander'
import { describeError, TapelineError } from '../errors.ts'
import { VERSION } from '../telemetry/version.ts'
import { captureCommand } from './capture.ts'
import { cleanCommand } from './clean.ts'
import { consumeCommand } from './consume.ts'
import { dashboardCommand } from './dashboard.ts'
import { deadLettersCommand } from './dead-letters.ts'
import { exportCommand } from './export.ts'
import { ingestCommand } from './ingest.ts'
import { migrateCommand } from './migrate.ts'
import { replayCommand } from './replay.ts'
import { simulateCommand } from './simulate.ts'
import { sqlCommand } from './sql.ts'
import { topicsCommand } from './topics.ts'
import { upCommand } from './up.ts'
import { verifyCommand } from './verify.ts'

const program = new Command('bin/tapeline')
  .description('Binance market data through Kafka into TimescaleDB, with every trade accounted for')
  .version(VERSION)
  .showHelpAfterError('(add --help for what this command takes)')

for (const command of [
  upCommand(),
  ingestCommand(),
  consumeCommand(),
  simulateCommand(),
  replayCommand(),
  captureCommand(),
  topicsCommand(),
  migrateCommand(),
  verifyCommand(),
  deadLettersCommand(),
  dashboardCommand(),
  exportCommand(),
  sqlCommand(),
  cleanCommand(),
]) {
  program.addCommand(command)
}
refuseWith2(program)

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = error instanceof TapelineError ? error.exitCode : 1
  console.error(message(error))
}

/** A wrong command line is wrong input: exit code 2, as for a wrong setting. */
function refuseWith2(command: Command): void {
  command.exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  for (const subcommand of command.commands) refuseWith2(subcommand)
}

/** One line with the cause, one with the fix; the stack only of what is not meant for a person, or on request. */
function message(error: unknown): string {
  const lines = [`tapeline: ${describeError(error)}`]
  if (error instanceof TapelineError) {
    if (error.fix !== '') lines.push(`  ${error.fix}`)
    if (process.env['LOG_LEVEL'] === 'debug') lines.push(String(error.stack))
  } else if (error instanceof Error) lines.push(String(error.stack))
  return lines.join('\n')
}
