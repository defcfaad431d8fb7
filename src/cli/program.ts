import { Command } from 'commander'
import { VERSION } from '../foundation/telemetry/service.ts'
import { completionCommand } from './completion.ts'

/** In the order of the help. Each is loaded when it is used: a start with all takes twice as long. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  up: async () => (await import('./up.ts')).upCommand(),
  ingest: async () => (await import('./ingest.ts')).ingestCommand(),
  consume: async () => (await import('./consume.ts')).consumeCommand(),
  archive: async () => (await import('./archive.ts')).archiveCommand(),
  simulate: async () => (await import('./simulate.ts')).simulateCommand(),
  replay: async () => (await import('./replay.ts')).replayCommand(),
  capture: async () => (await import('./capture.ts')).captureCommand(),
  topics: async () => (await import('./topics.ts')).topicsCommand(),
  migrate: async () => (await import('./migrate.ts')).migrateCommand(),
  verify: async () => (await import('./verify.ts')).verifyCommand(),
  'dead-letters': async () => (await import('./dead-letters.ts')).deadLettersCommand(),
  gaps: async () => (await import('./gaps.ts')).gapsCommand(),
  dashboard: async () => (await import('./dashboard.ts')).dashboardCommand(),
  book: async () => (await import('./book.ts')).bookCommand(),
  export: async () => (await import('./export.ts')).exportCommand(),
  history: async () => (await import('./history.ts')).historyCommand(),
  sql: async () => (await import('./sql.ts')).sqlCommand(),
  status: async () => (await import('./status.ts')).statusCommand(),
  doctor: async () => (await import('./doctor.ts')).doctorCommand(),
  clean: async () => (await import('./clean.ts')).cleanCommand(),
}

export const COMMAND_NAMES: readonly string[] = Object.keys(COMMANDS)

/** @param name the only command that is used, for a quick start; all if it is none of them */
export async function createProgram(name = ''): Promise<Command> {
  const program = new Command('bin/tapeline')
    .description('Binance market data through Kafka into TimescaleDB, with every trade accounted for')
    .version(VERSION)
    .showHelpAfterError('(see --help for arguments and options)')
  const only = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  const loaders = only === undefined ? Object.values(COMMANDS) : [only]
  for (const command of await Promise.all(loaders.map((load) => load())))
    program.addCommand(command.copyInheritedSettings(program))
  if (only === undefined) program.addCommand(completionCommand(program))
  return program
}
