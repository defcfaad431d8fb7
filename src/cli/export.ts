import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { EVENT_TYPES, type EventType } from '../foundation/market/event.ts'
import { isSymbol } from '../foundation/market/fields.ts'
import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { countText } from '../foundation/telemetry/plural.ts'
import { drawOn } from '../foundation/telemetry/terminal.ts'
import { parseDay } from '../tools/export/day.ts'
import { verifyStored } from './audit-stored.ts'
import { interruptible } from './interruptible.ts'
import { withTextReader } from './text-data.ts'

interface ExportFlags {
  readonly day: string
  readonly type: readonly EventType[]
  readonly format: 'parquet' | 'csv'
  readonly out: string
  readonly force?: true
  readonly verify: boolean
}

/** Sorting a day of a busy symbol takes a while. */
const STATEMENT_TIMEOUT_MS = 3_600_000

/** `tapeline export`: a day of a symbol as files. */
export function exportCommand(): Command {
  return new Command('export')
    .description(
      'one UTC day of a symbol as Parquet or CSV, sorted, with a manifest and the verdict of verify',
    )
    .argument('<symbol>', 'like BTCUSDT')
    .requiredOption('--day <day>', '2026-01-31, today or yesterday; trades by trade time, quotes by receipt')
    .addOption(
      new Option('--type <list>', 'trade, aggTrade, bookTicker')
        .default([...EVENT_TYPES], 'all')
        .argParser(parseTypes),
    )
    .addOption(new Option('--format <format>', 'of the files').choices(['parquet', 'csv']).default('parquet'))
    .option('--out <folder>', 'where the files go', '.')
    .option('--force', 'replace files that are there already')
    .option('--no-verify', 'leave out the audit; the manifest says so')
    .addHelpText('after', HELP)
    .action(async (given: string, flags: ExportFlags) => {
      const symbol = given.toUpperCase()
      if (!isSymbol(symbol))
        throw new TapelineError('INPUT', `${given}: not a symbol`, { fix: 'Name it as BTCUSDT.' })
      makeFolder(flags.out)
      const nowMs = Date.now()
      const day = parseDay(flags.day, nowMs)
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      // Only here: other commands need not carry what writes Parquet.
      const { exportDay } = await import('../tools/export/export-day.ts')
      const scope = { symbols: [symbol], fromMs: Date.parse(day.bounds[0]), toMs: day.toMs }
      const options = { timeoutMs: STATEMENT_TIMEOUT_MS, applicationName: 'tapeline-export' }
      const { manifest, path } = await interruptible((signal) =>
        exportDay((work) => withTextReader(settings, { ...options, signal }, work), {
          ...{ symbol, day, types: flags.type, format: flags.format, folder: flags.out, nowMs },
          force: flags.force === true,
          audit: async () => (flags.verify ? verifyStored(settings, { scope, limit: 5, signal }) : null),
          onProgress: progress(),
        }),
      )
      for (const { name, rows, bytes } of manifest.files)
        console.log(`${join(flags.out, name)}: ${countText(rows)} rows, ${countText(bytes)} bytes`)
      const verdict = manifest.verify?.verdict ?? 'not asked'
      console.log(`${path}: ${countText(manifest.gaps.length)} rows of the ledger, verify says: ${verdict}`)
      if (!manifest.dayIsOver) console.log('The day is not over yet.')
      if (verdict === 'not clean') process.exitCode = 1
    })
}

const HELP = `
Exit code 1 when verify finds something that nothing explains: the files are there all the same, and the manifest names it.

Examples:
  bin/tapeline export BTCUSDT --day yesterday --out exports
  bin/tapeline export BTCUSDT --day 2026-01-31 --type trade --format csv`

function parseTypes(text: string): EventType[] {
  const names = text.split(',').map((name) => name.trim())
  const types = EVENT_TYPES.filter((type) => names.includes(type))
  if (types.length !== new Set(names).size)
    throw new InvalidArgumentError(`Expected a comma list of ${EVENT_TYPES.join(', ')}.`)
  return types
}

/** @throws TapelineError `INPUT` when there cannot be such a folder */
function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true })
  } catch (error) {
    throw new TapelineError(
      'INPUT',
      `--out ${path} is no folder and cannot be made one: ${describeError(error)}`,
      {
        fix: 'Name another folder.',
        cause: error,
      },
    )
  }
}

/** On a terminal alone, in place. */
function progress(): (type: EventType, rows: number) => void {
  if (!process.stderr.isTTY) return () => {}
  return (type, rows) => drawOn(process.stderr, `\r${type}: ${countText(rows)} rows\u001b[K\r`)
}
