import { Command } from 'commander'
import { partitionOf } from '../foundation/kafka/partition.ts'
import { initTopics } from '../foundation/kafka/topics.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { plural } from '../foundation/telemetry/plural.ts'

export function topicsCommand(): Command {
  const command = new Command('topics').description('the Kafka topics')
  command
    .command('init')
    .description('create missing topics; an existing topic that differs is reported and not changed')
    .addHelpText(
      'after',
      '\nExample:\n  KAFKA_BROKERS=kafka:9092 KAFKA_REPLICATION_FACTOR=3 bin/tapeline topics init',
    )
    .action(async () => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      for (const { name, partitions, state, differences } of await initTopics(settings)) {
        const detail = state === 'differs' ? differences.join('; ') : plural(partitions, 'partition')
        console.log(`${name.padEnd(24)} ${state.padEnd(8)} ${detail}`)
      }
    })
  command
    .command('map')
    .description('show which symbol goes to which partition')
    .argument('[symbols...]', 'symbols; default: those of SYMBOLS')
    .option('--partitions <count>', 'the number of partitions; default: KAFKA_PARTITIONS')
    .addHelpText('after', '\nExample:\n  bin/tapeline topics map BTCUSDT ETHUSDT SOLUSDT --partitions 6')
    .action((given: string[], options: { partitions?: string }) => {
      const environment = {
        ...process.env,
        ...(given.length > 0 ? { SYMBOLS: given.join() } : {}),
        ...(options.partitions === undefined ? {} : { KAFKA_PARTITIONS: options.partitions }),
      }
      const settings = loadSettings(environment, { cwd: process.cwd() })
      const byPartition = Map.groupBy(settings.SYMBOLS, (symbol) =>
        partitionOf(symbol, settings.KAFKA_PARTITIONS),
      )
      for (let partition = 0; partition < settings.KAFKA_PARTITIONS; partition++) {
        console.log(`partition ${partition}: ${byPartition.get(partition)?.join(' ') ?? '(empty)'}`)
      }
    })
  return command
}
