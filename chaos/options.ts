import { randomInt } from 'node:crypto'
import { Command, InvalidArgumentError, Option } from 'commander'
import { parseDuration } from '../src/cli/options.ts'
import { list, setting, wholeNumber } from '../test/support/option-parsers.ts'
import { RARE_FAULTS, type RareFault } from './exchange-deck.ts'

export const PART_NAMES = ['ingestion', 'consumer', 'broker', 'database', 'archive'] as const
/** A part that can be struck: a process, or all processes of the database. */
export type PartName = (typeof PART_NAMES)[number]

/** Options of a run. Durations in milliseconds. */
export interface ChaosOptions {
  readonly forMs: number
  /** Average messages per second over all symbols and streams. */
  readonly rate: number
  /** Number of symbols. Their popularity falls as in a real market. */
  readonly symbols: number
  readonly seed: number
  readonly parts: readonly PartName[]
  /** Whether two archives run as well, and their disk gets full. */
  readonly archive: boolean
  /** Whether order books are recorded, struck and compared as well. */
  readonly depth: boolean
  /** Random instants at which a recorded order book is compared with the true one. */
  readonly instants: number
  /** Exact numbers of SIGKILLs; null: kills are drawn like pauses and restarts. */
  readonly kills: Readonly<Partial<Record<PartName, number>>> | null
  /** Mean time between drawn faults of processes; null: only the exact kills. */
  readonly everyMs: number | null
  /** Mean time between faults of the exchange; null: none. */
  readonly exchangeEveryMs: number | null
  readonly brokers: 1 | 3
  /** Mean time between rolling restarts, elections and reassignments; null: none. */
  readonly clusterEveryMs: number | null
  /** Interval of elections and reassignments during continuous rolling restarts; null: none. */
  readonly cadenceMs: number | null
  /** Duration of one outage of all brokers; null: none. */
  readonly outageMs: number | null
  /** Mean time between faults of the clock of a service; null: none. */
  readonly clockEveryMs: number | null
  /** Offsets of a wrong clock; negative: it is slow. */
  readonly clockSteps: readonly number[]
  /** Exact pauses of ingestion and of the consumer. */
  readonly freezes: readonly number[]
  /** Whether to measure the heap of both services, after a garbage collection. */
  readonly heap: boolean
  readonly also: readonly RareFault[]
  /** Names of the exchange faults to draw; null: all. */
  readonly only: readonly string[] | null
  /** Longest wait at the end until nothing is missing or in progress. */
  readonly quietMs: number
  readonly database: 'native' | 'embedded' | 'any'
  /** Settings of both services, in addition to those the run needs. */
  readonly settings: Readonly<Record<string, string>>
  readonly jsonFile: string | null
  readonly logsDir: string | null
}

/** Without the archive. */
const USUAL_PARTS = PART_NAMES.filter((name) => name !== 'archive')

const EVERY = '8s'
const EXCHANGE_EVERY = '4s'
const CLUSTER_EVERY = '45s'
const CLOCK_STEPS = '+8h,+2h,-50m,+2s,-2s'

const EXAMPLES = `
Examples:
  $ npm run chaos -- --for 60s --seed 7
  $ npm run chaos -- --for 5m --rate 2000 --parts ingestion,broker --kills ingestion=3,broker=1
  $ npm run chaos -- --for 10m --json chaos.json --logs chaos-logs
  $ npm run chaos -- --for 2m --no-exchange-faults --parts consumer,database
  $ npm run chaos -- --for 10m --brokers 3 --clock-every 30s
  $ npm run chaos -- --archive --for 10m --rate 3000
  $ npm run chaos -- --depth --archive --for 10m --instants 10000
  $ npm run chaos -- --for 20m --brokers 3 --cadence 1m
  $ npm run chaos -- --brokers 3 --outage 20m --heap --quiet 20m
  $ npm run chaos -- --freezes 3s,90s,10m
  $ npm run chaos -- --for 2m --every 1m --only 'cut reset,drop,restError 429'

docs/chaos.md describes the faults, the checks and the report.`

/**
 * Reads the command line. Prints the help or an error and exits for `--help` and invalid options.
 *
 * @param args without node and script
 */
export function parseOptions(args: readonly string[]): ChaosOptions {
  const command = new Command('chaos')
    .description(
      'Run the whole pipeline under load, inject random faults from a seed, and prove that nothing was lost.',
    )
    .addOption(duration('--for <duration>', 'how long to inject faults', '60s'))
    .addOption(
      new Option('--rate <number>', 'messages per second').argParser(wholeNumber(10, 50_000)).default(2000),
    )
    .addOption(
      new Option('--symbols <number>', 'number of symbols, the most traded first')
        .argParser(wholeNumber(1, 3000))
        .default(3),
    )
    .addOption(
      new Option('--seed <number>', 'seed of all random choices; printed')
        .argParser(wholeNumber(0, 2 ** 32 - 1))
        .default(randomInt(1_000_000), 'random'),
    )
    .addOption(
      new Option('--parts <list>', 'parts to strike')
        .argParser(list(PART_NAMES))
        .default([...USUAL_PARTS], `${USUAL_PARTS.join()}, and archive with --archive`),
    )
    .option('--archive', 'run two archives as well, and compare them with the tables by three readers', false)
    .option('--depth', 'record order books as well, and compare them with those of the exchange', false)
    .addOption(
      new Option('--instants <number>', 'with --depth: how many random instants to compare')
        .argParser(wholeNumber(1, 1_000_000))
        .default(300),
    )
    .addOption(
      new Option('--kills <list>', 'exact numbers of SIGKILLs, like ingestion=3,broker=1')
        .argParser(parseKills)
        .default(null, 'drawn like pauses and restarts'),
    )
    .addOption(
      new Option('--every <duration>', 'mean time between faults of processes')
        .argParser(parseDuration)
        .default(null, `${EVERY}; with --kills only if given`),
    )
    .addOption(
      optionalDuration(
        '--exchange-every <duration>',
        'mean time between faults of the exchange',
        EXCHANGE_EVERY,
      ),
    )
    .option('--no-exchange-faults', 'inject no faults of the exchange')
    .addOption(
      new Option('--brokers <number>', 'Kafka brokers; with 3, topics have three replicas')
        .argParser((text) => oneOrThree(text))
        .default(1),
    )
    .addOption(
      optionalDuration(
        '--cluster-every <duration>',
        'mean time between rolling restarts, elections and reassignments',
        `${CLUSTER_EVERY} with 3 brokers`,
      ),
    )
    .option('--no-cluster-faults', 'inject only faults of single brokers')
    .addOption(
      optionalDuration(
        '--cadence <duration>',
        'continuous rolling restarts, with one election and one reassignment per interval',
        'none; if given, other faults are drawn only on request',
      ),
    )
    .addOption(
      optionalDuration(
        '--outage <duration>',
        'stop all brokers once, for this time',
        'none; if given, other faults are drawn only on request',
      ),
    )
    .addOption(
      optionalDuration('--clock-every <duration>', 'mean time between clock faults of a service', 'none'),
    )
    .addOption(
      new Option('--clock-steps <list>', 'offsets of a wrong clock')
        .argParser((text) => text.split(',').map(parseStep))
        .default(CLOCK_STEPS.split(',').map(parseStep), CLOCK_STEPS),
    )
    .addOption(
      new Option('--freezes <list>', 'exact pauses of ingestion and of the consumer, like 3s,90s')
        .argParser((text) => text.split(',').map(parseDuration))
        .default([], 'none; if given, other faults are drawn only on request'),
    )
    .option('--heap', 'measure the heap of both services, after a garbage collection', false)
    .addOption(
      new Option('--also <list>', `rarer faults: ${RARE_FAULTS.join(', ')}`)
        .argParser(list(RARE_FAULTS))
        .default([], 'none'),
    )
    .addOption(
      new Option('--only <list>', 'faults of the exchange to draw, by their names in the report')
        .argParser((text) => text.split(',').map((name) => name.trim()))
        .default(null, 'all'),
    )
    .addOption(duration('--quiet <duration>', 'longest wait at the end until the system is quiet', '8m'))
    .addOption(
      new Option('--database <kind>', 'which TimescaleDB; any: native if this machine can run it')
        .choices(['native', 'embedded', 'any'])
        .default('any'),
    )
    .addOption(
      new Option('--set <NAME=VALUE>', 'a setting of both services; may be repeated')
        .argParser(setting)
        .default({}, 'none'),
    )
    .option('--json <file>', 'write the result as JSON')
    .option('--logs <folder>', 'keep the logs of all parts in this folder')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
    .parse([...args], { from: 'user' })
  const given = command.opts()
  const { kills, brokers, cadence, outage, freezes, archive } = given
  const isDefault = command.getOptionValueSource('parts') === 'default'
  const parts: readonly PartName[] = archive && isDefault ? PART_NAMES : given['parts']
  const isStruck = parts.includes('archive') || kills?.archive !== undefined
  if (!archive && isStruck) command.error("error: faults of the archive need '--archive'")
  if (brokers === 1 && (cadence !== null || given['clusterEvery'] !== null))
    command.error("error: rolling restarts, elections and reassignments need '--brokers 3'")
  const isExact = cadence !== null || outage !== null || freezes.length > 0
  /** Mean time between drawn faults; with exact faults, only if given. */
  const unlessExact = (everyMs: number | null, fallback: string) =>
    everyMs ?? (isExact ? null : parseDuration(fallback))
  return {
    forMs: given['for'],
    rate: given['rate'],
    symbols: given['symbols'],
    seed: given['seed'],
    parts,
    archive,
    depth: given['depth'],
    instants: given['instants'],
    kills,
    everyMs: kills === null ? unlessExact(given['every'], EVERY) : given['every'],
    exchangeEveryMs: given['exchangeFaults'] ? unlessExact(given['exchangeEvery'], EXCHANGE_EVERY) : null,
    brokers,
    clusterEveryMs:
      brokers === 3 && given['clusterFaults'] ? unlessExact(given['clusterEvery'], CLUSTER_EVERY) : null,
    cadenceMs: cadence,
    outageMs: outage,
    clockEveryMs: given['clockEvery'],
    clockSteps: given['clockSteps'],
    freezes,
    heap: given['heap'],
    also: given['also'],
    only: given['only'],
    quietMs: given['quiet'],
    database: given['database'],
    settings: given['set'],
    jsonFile: given['json'] ?? null,
    logsDir: given['logs'] ?? null,
  }
}

/** Returns the command that repeats the run. */
export function commandOf(options: ChaosOptions): string {
  const { kills, also, settings, symbols, brokers, freezes } = options
  const flag = (name: string, ms: number | null) => (ms === null ? '' : `--${name} ${ms}ms`)
  const words = [
    `--seed ${options.seed} --for ${options.forMs}ms --rate ${options.rate} --parts ${options.parts.join()}`,
    symbols === 3 ? '' : `--symbols ${symbols}`,
    kills === null
      ? ''
      : `--kills ${Object.entries(kills)
          .map(([part, count]) => `${part}=${count}`)
          .join()}`,
    options.archive ? '--archive' : '',
    options.depth ? `--depth --instants ${options.instants}` : '',
    brokers === 1 ? '' : `--brokers ${brokers}`,
    flag('every', options.everyMs),
    options.exchangeEveryMs === null
      ? '--no-exchange-faults'
      : `--exchange-every ${options.exchangeEveryMs}ms`,
    brokers === 3 && options.clusterEveryMs === null
      ? '--no-cluster-faults'
      : flag('cluster-every', options.clusterEveryMs),
    flag('cadence', options.cadenceMs),
    flag('outage', options.outageMs),
    flag('clock-every', options.clockEveryMs),
    options.clockEveryMs === null ? '' : `--clock-steps=${options.clockSteps.map(stepText).join()}`,
    freezes.length === 0 ? '' : `--freezes ${freezes.map((ms) => `${ms}ms`).join()}`,
    options.heap ? '--heap' : '',
    also.length === 0 ? '' : `--also ${also.join()}`,
    options.only === null ? '' : `--only '${options.only.join()}'`,
    options.database === 'any' ? '' : `--database ${options.database}`,
    ...Object.entries(settings).map(([name, value]) => `--set ${name}=${value}`),
  ]
  return `npm run chaos -- ${words.filter((word) => word !== '').join(' ')}`
}

function duration(flags: string, description: string, fallback: string): Option {
  return new Option(flags, description).argParser(parseDuration).default(parseDuration(fallback), fallback)
}

function optionalDuration(flags: string, description: string, fallback: string): Option {
  return new Option(flags, description).argParser(parseDuration).default(null, fallback)
}

function oneOrThree(text: string): 1 | 3 {
  if (text === '1') return 1
  if (text === '3') return 3
  throw new InvalidArgumentError('Expected 1 or 3.')
}

/** Parses a duration with a sign: `+8h`, `-50m`. */
function parseStep(text: string): number {
  const [, sign, rest] = /^([+-])(.+)$/.exec(text.trim()) ?? []
  if (rest === undefined) throw new InvalidArgumentError('Expected steps like +8h,-50m.')
  return (sign === '-' ? -1 : 1) * parseDuration(rest)
}

function stepText(ms: number): string {
  return `${ms < 0 ? '-' : '+'}${Math.abs(ms)}ms`
}

function parseKills(text: string): Partial<Record<PartName, number>> {
  const kills: Partial<Record<PartName, number>> = {}
  for (const pair of text.split(',')) {
    const [, name, count] = /^(\w+)=(\d{1,3})$/.exec(pair.trim()) ?? []
    const part = PART_NAMES.find((each) => each === name)
    if (part === undefined)
      throw new InvalidArgumentError(
        `Expected counts like ingestion=3,broker=1, of ${PART_NAMES.join(', ')}.`,
      )
    kills[part] = Number(count)
  }
  return kills
}
