import { resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { loadSettings, type Settings } from '../foundation/settings/load.ts'
import { NO_DATABASE } from '../foundation/settings/parsers.ts'
import { cacheDirectory, type ExchangeChoice } from '../sandbox/up/data-directory.ts'
import type { Stores } from '../sandbox/up/stack-environment.ts'
import { runUp } from '../sandbox/up/up.ts'
import { parseDuration } from './options.ts'

interface UpArguments {
  readonly simulate?: true
  readonly replay?: string
  readonly speed?: number
  readonly for?: number
  readonly seed?: number
  readonly rate?: number
  readonly faults?: true
  readonly archive?: true
  /** False with --no-database. */
  readonly database: boolean
}

/** `tapeline up`: runs the whole pipeline on this machine. */
export function upCommand(): Command {
  return new Command('up')
    .description('run everything on this machine: Kafka, TimescaleDB, and the services')
    .addOption(new Option('--simulate', 'use the simulated exchange instead of Binance').conflicts('replay'))
    .option('--replay <file>', 'use a recording instead of Binance')
    .option('--speed <factor>', 'with --replay: multiple of the original speed', positive)
    .option('--seed <n>', 'with --simulate: seed of another market', wholeNumber)
    .option('--rate <n>', 'with --simulate: messages per second, on average', positive)
    .option('--faults', 'with --simulate or --replay: inject faults over HTTP (docs/faults.md)')
    .option('--archive', 'also write Parquet files, in DATA_DIR or at ARCHIVE_URL (docs/archive.md)')
    .option('--no-database', 'with --archive: no TimescaleDB and no consumer')
    .option('--for <duration>', 'stop after this time: 500ms, 30s, 10m, 2h', parseDuration)
    .addHelpText('after', HELP)
    .action(async (given: UpArguments) => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      process.exitCode = await runUp({
        settings,
        environment: process.env,
        source: exchangeChoice(given),
        stores: storesOf(given, settings),
        forMs: given.for ?? null,
        cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? cacheDirectory(settings.DATA_DIR),
        command: commandLine(given),
        output: process.stdout,
        colours: (process.env['NO_COLOR'] ?? '') === '',
      })
    })
}

const HELP = `
If KAFKA_BROKERS or DATABASE_URL is set, it uses that one and does not start one. Data stays in DATA_DIR (.tapeline), separately
for each source; "bin/tapeline clean" removes it. Ctrl-C stops everything in order.

Examples:
  bin/tapeline up                         live, from Binance
  bin/tapeline up --simulate              without the exchange
  bin/tapeline up --simulate --rate 5000 --for 1m
  bin/tapeline up --simulate --archive    and Parquet files in .tapeline/simulated/archive
  bin/tapeline up --archive --no-database only Parquet files
  bin/tapeline up --simulate --faults     and then: curl -s localhost:9443/faults
  bin/tapeline up --replay capture.ndjson.gz --speed 10`

function exchangeChoice({ simulate, replay, speed, seed, rate, faults }: UpArguments): ExchangeChoice {
  const requires = (option: string, given: unknown, other: string, isThere: boolean) => {
    if (given === undefined || isThere) return
    const fix = `Add ${other}, or leave ${option} out.`
    throw new TapelineError('INPUT', `${option} requires ${other}`, { fix })
  }
  requires('--speed', speed, '--replay', replay !== undefined)
  requires('--seed', seed, '--simulate', simulate === true)
  requires('--rate', rate, '--simulate', simulate === true)
  requires('--faults', faults, '--simulate or --replay', simulate === true || replay !== undefined)
  const control = faults && { faults }
  if (replay !== undefined)
    return { kind: 'replay', file: resolve(replay), ...(speed && { speed }), ...control }
  if (simulate === undefined) return { kind: 'binance' }
  return { kind: 'simulated', ...(seed !== undefined && { seed }), ...(rate && { rate }), ...control }
}

/** @throws TapelineError `INPUT` if nothing would store the rows */
function storesOf({ archive, database }: UpArguments, settings: Settings): Stores {
  const isWithout = !database || settings.DATABASE_URL === NO_DATABASE
  if (isWithout && archive === undefined) {
    const option = database ? 'DATABASE_URL=none' : '--no-database'
    throw new TapelineError('INPUT', `${option} requires --archive: nothing would store the rows`, {
      fix: `Add --archive, or leave ${option} out.`,
    })
  }
  return { database: !isWithout, archive: archive === true }
}

/** The command that resumes with the same source and stores. */
function commandLine(given: UpArguments): string {
  const names = ['simulate', 'replay', 'speed', 'seed', 'rate', 'faults', 'archive'] as const
  const words = names.flatMap((name) => {
    const value = given[name]
    return value === undefined ? [] : [`--${name}`, ...(value === true ? [] : [String(value)])]
  })
  return ['bin/tapeline up', ...words, ...(given.database ? [] : ['--no-database'])].join(' ')
}

function positive(text: string): number {
  const value = Number(text)
  if (text.trim() !== '' && Number.isFinite(value) && value > 0) return value
  throw new InvalidArgumentError('Expected a number above 0.')
}

function wholeNumber(text: string): number {
  const value = Number(text)
  if (/^\d+$/.test(text.trim()) && Number.isSafeInteger(value)) return value
  throw new InvalidArgumentError('Expected a whole number, 0 or more.')
}
