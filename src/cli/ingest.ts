import { setFlagsFromString } from 'node:v8'
import { Command } from 'commander'
import { ingestionConfig } from '../ingestion/config.ts'
import { startIngestion } from '../ingestion/service.ts'
import { loadSettings } from '../settings/load.ts'
import { createLogger } from '../telemetry/log.ts'
import { systemClock } from '../timing/clock.ts'
import { runService } from './run-service.ts'

/** While Kafka is behind the queue is full of old objects: see the same flag of the consumer. */
const HEAP_GROWTH = '--heap-growing-percent=30'

export function ingestCommand(): Command {
  return new Command('ingest')
    .description('the ingestion service: the exchange to Kafka')
    .addHelpText(
      'after',
      '\nExample:\n  SYMBOLS=BTCUSDT,ETHUSDT KAFKA_BROKERS=kafka:9092 bin/tapeline ingest',
    )
    .action(async () => {
      setFlagsFromString(HEAP_GROWTH)
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const config = ingestionConfig(settings)
      const log = createLogger('ingestion', settings.LOG_LEVEL)
      await runService(() => startIngestion(config, systemClock(), log), log)
    })
}
