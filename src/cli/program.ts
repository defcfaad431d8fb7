import { Command } from 'commander'
import { VERSION } from '../foundation/telemetry/service.ts'
import { archiveCommand } from './archive.ts'
import { captureCommand } from './capture.ts'
import { cleanCommand } from './clean.ts'
import { completionCommand } from './completion.ts'
import { consumeCommand } from './consume.ts'
import { dashboardCommand } from './dashboard.ts'
import { deadLettersCommand } from './dead-letters.ts'
import { doctorCommand } from './doctor.ts'
import { exportCommand } from './export.ts'
import { gapsCommand } from './gaps.ts'
import { historyCommand } from './history.ts'
import { ingestCommand } from './ingest.ts'
import { migrateCommand } from './migrate.ts'
import { replayCommand } from './replay.ts'
import { simulateCommand } from './simulate.ts'
import { sqlCommand } from './sql.ts'
import { statusCommand } from './status.ts'
import { topicsCommand } from './topics.ts'
import { upCommand } from './up.ts'
import { verifyCommand } from './verify.ts'

export function createProgram(): Command {
  const program = new Command('bin/tapeline')
    .description('Binance market data through Kafka into TimescaleDB, with every trade accounted for')
    .version(VERSION)
    .showHelpAfterError('(see --help for arguments and options)')

  for (const command of [
    upCommand(),
    ingestCommand(),
    consumeCommand(),
    archiveCommand(),
    simulateCommand(),
    replayCommand(),
    captureCommand(),
    topicsCommand(),
    migrateCommand(),
    verifyCommand(),
    deadLettersCommand(),
    gapsCommand(),
    dashboardCommand(),
    exportCommand(),
    historyCommand(),
    sqlCommand(),
    statusCommand(),
    doctorCommand(),
    cleanCommand(),
  ]) {
    program.addCommand(command.copyInheritedSettings(program))
  }
  program.addCommand(completionCommand(program))
  return program
}
