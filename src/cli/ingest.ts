import { Command } from 'commander'
import { systemClock } from '../foundation/runtime/clock.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { loadSettings, type Settings } from '../foundation/settings/load.ts'
import { createLogger } from '../foundation/telemetry/log.ts'
import { ingestionConfig } from '../ingestion/config.ts'
import { startIngestion } from '../ingestion/service.ts'
import { runService } from './run-service.ts'

export function ingestCommand(): Command {
  return new Command('ingest')
    .description('the ingestion service: the exchange to Kafka')
    .addHelpText(
      'after',
      '\nExample:\n  SYMBOLS=BTCUSDT,ETHUSDT KAFKA_BROKERS=kafka:9092 bin/tapeline ingest',
    )
    .action(async () => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      rejectDepth(settings)
      const config = ingestionConfig(settings)
      const log = createLogger('ingestion', settings.LOG_LEVEL)
      await runService(() => startIngestion(config, systemClock(), log), log)
    })
}

/** @throws TapelineError `SETTINGS` if order books are wanted: neither store has a table for them */
function rejectDepth({ STREAM_TYPES: types }: Settings): void {
  if (!types.includes('depth')) return
  throw new TapelineError('SETTINGS', `STREAM_TYPES=${types.join()}: no store keeps depth`, {
    fix: 'Remove depth from STREAM_TYPES.',
  })
}
