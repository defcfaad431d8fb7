import { Command, Option } from 'commander'
import { list, setting, wholeNumber } from '../test/support/option-parsers.ts'

export const STAGES = [
  'decode',
  'produce',
  'insert',
  'flat out',
  'steady',
  'drain',
  'scale',
  'shards',
] as const
export type Stage = (typeof STAGES)[number]
/** They want many symbols. */
const ON_REQUEST: readonly Stage[] = ['scale', 'shards']

export interface BenchOptions {
  readonly stages: readonly Stage[]
  /** How often each is run; what is compared takes turns. */
  readonly runs: number
  /** In the stage `flat out`; the stage `drain` stores all that the stages before it have sent. */
  readonly messages: number
  readonly warmUp: number
  /** Messages a second of the stage `steady`. */
  readonly rates: readonly number[]
  readonly steadySeconds: number
  readonly symbols: readonly string[]
  /** A folder with another pipeline, run beside this one. */
  readonly peer: string | null
  /** Of both services, beside those the run needs. */
  readonly settings: Readonly<Record<string, string>>
  readonly jsonFile: string | null
}

const EXAMPLES = `
Examples:
  $ npm run bench
  $ npm run bench -- --stages 'flat out,drain' --runs 5 --peer ../peer
  $ npm run bench -- --stages steady --rates 1000 --set FLUSH_INTERVAL_MS=50

docs/bench.md says what is measured and how.`

/**
 * Reads the command line. Prints and exits by itself for `--help` and for what makes no sense.
 *
 * @param args without node and script
 */
export function parseOptions(args: readonly string[]): BenchOptions {
  const command = new Command('bench')
    .description('Measure the pipeline on a real broker and a native TimescaleDB.')
    .addOption(
      new Option('--stages <list>', STAGES.join(', ')).argParser(list(STAGES)).default(
        STAGES.filter((stage) => !ON_REQUEST.includes(stage)),
        'all but scale and shards',
      ),
    )
    .addOption(new Option('--runs <number>', 'of each').argParser(wholeNumber(1, 100)).default(3))
    .addOption(
      new Option('--messages <number>', 'of the stage flat out')
        .argParser(wholeNumber(10_000, 20_000_000))
        .default(300_000),
    )
    .addOption(
      new Option('--warm-up <number>', 'messages before it')
        .argParser(wholeNumber(1000, 1_000_000))
        .default(50_000),
    )
    .addOption(
      new Option('--rates <list>', 'messages a second of the stage steady')
        .argParser((text) => text.split(',').map(wholeNumber(1, 100_000)))
        .default([500, 3000, 10_000], '500,3000,10000'),
    )
    .addOption(new Option('--seconds <number>', 'at each rate').argParser(wholeNumber(5, 3600)).default(20))
    .addOption(
      new Option('--symbols <list>', 'which')
        .argParser((text) => text.toUpperCase().split(','))
        .default(['BTCUSDT', 'ETHUSDT', 'BNBUSDT'], 'BTCUSDT,ETHUSDT,BNBUSDT'),
    )
    .option('--peer <folder>', 'run the pipeline of this folder beside it')
    .addOption(
      new Option('--set <NAME=VALUE>', 'a setting of the services; may be repeated')
        .argParser(setting)
        .default({}, 'none'),
    )
    .option('--json <file>', 'write all figures of all runs')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
    .parse([...args], { from: 'user' })
  const given = command.opts()
  return {
    stages: given['stages'],
    runs: given['runs'],
    messages: given['messages'],
    warmUp: given['warmUp'],
    rates: given['rates'],
    steadySeconds: given['seconds'],
    symbols: given['symbols'],
    peer: given['peer'] ?? null,
    settings: given['set'],
    jsonFile: given['json'] ?? null,
  }
}
