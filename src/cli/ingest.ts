import { Command } from 'commander'
import { systemClock } from '../foundation/runtime/clock.ts'
import { loadSettings } from '../foundation/settings/load.ts'
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
      const config = ingestionConfig(settings)
      const log = createLogger('ingestion', settings.LOG_LEVEL)
      await runService(() => startIngestion(config, systemClock(), log), log)
    })
}
