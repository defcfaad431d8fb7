import { Command } from 'commander'
import { archiveConfig } from '../archive/config.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { createLogger } from '../foundation/telemetry/log.ts'
import { archiveAdoptCommand } from './archive-adopt.ts'
import { archiveCheckCommand, archiveFilesCommand, archiveStatusCommand } from './archive-stored.ts'
import { runService } from './run-service.ts'

export function archiveCommand(): Command {
  return new Command('archive')
    .description('the archive service: Kafka to Parquet files; subcommands show and check an archive')
    .addHelpText(
      'after',
      '\nWithout a subcommand it runs the service.\n\nExample:\n  KAFKA_BROKERS=kafka:9092 ARCHIVE_URL=/data/archive bin/tapeline archive',
    )
    .action(async () => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const config = archiveConfig(settings)
      const log = createLogger('archive', settings.LOG_LEVEL)
      // Imported here, since the other commands do not need the engine.
      const { startArchive } = await import('../archive/service.ts')
      await runService(() => startArchive(config, log), log)
    })
    .addCommand(archiveStatusCommand())
    .addCommand(archiveFilesCommand())
    .addCommand(archiveCheckCommand())
    .addCommand(archiveAdoptCommand())
}
