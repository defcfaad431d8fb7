import { Command } from 'commander'
import { consumerConfig } from '../consumer/config.ts'
import { startConsumer } from '../consumer/service.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { createLogger } from '../foundation/telemetry/log.ts'
import { runService } from './run-service.ts'

export function consumeCommand(): Command {
  return new Command('consume')
    .description('the consumer service: Kafka to TimescaleDB')
    .addHelpText(
      'after',
      '\nExample:\n  KAFKA_BROKERS=kafka:9092 DATABASE_URL=postgres://tapeline:secret@db:5432/tapeline bin/tapeline consume',
    )
    .action(async () => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const config = consumerConfig(settings)
      const log = createLogger('consumer', settings.LOG_LEVEL)
      await runService(() => startConsumer(config, log), log)
    })
}
