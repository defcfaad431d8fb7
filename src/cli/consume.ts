import { setFlagsFromString } from 'node:v8'
import { Command } from 'commander'
import { consumerConfig } from '../consumer/config.ts'
import { startConsumer } from '../consumer/service.ts'
import { loadSettings } from '../settings/load.ts'
import { createLogger } from '../telemetry/log.ts'
import { runService } from './run-service.ts'

/**
 * Messages live until their batch is stored, so V8 takes them for old objects, and would let the heap grow to several
 * times what is alive before it collects them. At 30 % a consumer that drains millions stays under 250 MiB, measured
 * by `npm test -- consumer-drain`.
 */
const HEAP_GROWTH = '--heap-growing-percent=30'

export function consumeCommand(): Command {
  return new Command('consume')
    .description('the consumer service: Kafka to TimescaleDB')
    .addHelpText(
      'after',
      '\nExample:\n  KAFKA_BROKERS=kafka:9092 DATABASE_URL=postgres://tapeline:secret@db:5432/tapeline bin/tapeline consume',
    )
    .action(async () => {
      setFlagsFromString(HEAP_GROWTH)
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const config = consumerConfig(settings)
      const log = createLogger('consumer', settings.LOG_LEVEL)
      await runService(() => startConsumer(config, log), log)
    })
}
