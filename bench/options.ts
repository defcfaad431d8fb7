import { Command, Option } from 'commander'
import { list, setting, wholeNumber } from '../test/support/option-parsers.ts'

export const ARCHIVE_STAGES = [
  'archive drain',
  'archive steady',
  'archive compaction',
  'archive bytes',
  'archive queries',
  'archive market',
  'export',
] as const

export const STAGES = [
  'decode',
  'produce',
  'insert',
  'rebuild',
  'depth',
  'flat out',
  'steady',
  'drain',
  'scale',
  'shards',
  'depth flat out',
  'depth market',
  ...ARCHIVE_STAGES,
] as const
export type Stage = (typeof STAGES)[number]
/** Stages that need many symbols, minutes, or recorded frames. */
const ON_REQUEST: readonly Stage[] = [
  'rebuild',
  'depth',
  'scale',
  'shards',
  'depth flat out',
  'depth market',
  ...ARCHIVE_STAGES,
]

export interface BenchOptions {
  readonly stages: readonly Stage[]
  /** Number of runs of each pipeline. Compared pipelines take turns. */
  readonly runs: number
  /**
   * Messages of the stages `flat out` and `depth flat out`. The stage `drain` stores all messages that the stages before
   * it sent.
   */
  readonly messages: number
  readonly warmUp: number
  /** Messages per second in the stage `steady`. */
  readonly rates: readonly number[]
  readonly steadySeconds: number
  readonly symbols: readonly string[]
  /** Symbols of the stages `depth market` and `archive market`. */
  readonly marketSymbols: number
  /** Folder of another pipeline to run next to this one. */
  readonly peer: string | null
  /** Settings of both services, in addition to those the run needs. */
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
 * Reads the command line. Prints the help or an error and exits for `--help` and invalid options.
 *
 * @param args without node and script
 */
export function parseOptions(args: readonly string[]): BenchOptions {
  const command = new Command('bench')
    .description('Measure the pipeline on a real broker and a native TimescaleDB.')
    .addOption(
      new Option('--stages <list>', STAGES.join(', ')).argParser(list(STAGES)).default(
        STAGES.filter((stage) => !ON_REQUEST.includes(stage)),
        'all but rebuild, scale, shards, export and those of depth and of the archive',
      ),
    )
    .addOption(new Option('--runs <number>', 'of each').argParser(wholeNumber(1, 100)).default(3))
    .addOption(
      new Option('--messages <number>', 'messages of the stages flat out and depth flat out')
        .argParser(wholeNumber(10_000, 20_000_000))
        .default(300_000),
    )
    .addOption(
      new Option('--warm-up <number>', 'messages sent before them')
        .argParser(wholeNumber(1000, 1_000_000))
        .default(50_000),
    )
    .addOption(
      new Option('--rates <list>', 'messages per second in the stage steady')
        .argParser((text) => text.split(',').map(wholeNumber(1, 100_000)))
        .default([500, 3000, 10_000], '500,3000,10000'),
    )
    .addOption(
      new Option('--seconds <number>', 'duration of each rate').argParser(wholeNumber(5, 3600)).default(20),
    )
    .addOption(
      new Option('--symbols <list>', 'which')
        .argParser((text) => text.toUpperCase().split(','))
        .default(['BTCUSDT', 'ETHUSDT', 'BNBUSDT'], 'BTCUSDT,ETHUSDT,BNBUSDT'),
    )
    .addOption(
      new Option('--market-symbols <number>', 'symbols of the stages depth market and archive market')
        .argParser(wholeNumber(1, 5000))
        .default(1500),
    )
    .option('--peer <folder>', 'also run the pipeline of this folder')
    .addOption(
      new Option('--set <NAME=VALUE>', 'a setting of the services; may be repeated')
        .argParser(setting)
        .default({}, 'none'),
    )
    .option('--json <file>', 'write the figures of all runs to this file')
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
    marketSymbols: given['marketSymbols'],
    peer: given['peer'] ?? null,
    settings: given['set'],
    jsonFile: given['json'] ?? null,
  }
}
