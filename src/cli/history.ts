import { Command } from 'commander'
import { countIds, type IdRange } from '../foundation/market/id-ranges.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { countText, plural } from '../foundation/telemetry/plural.ts'
import { type Altered, type Comparison, compare, isEqual } from '../tools/history/compare.ts'
import { type DailyFile, dailyFile } from '../tools/history/daily-file.ts'
import type { Defect } from '../tools/history/daily-rows.ts'
import { storedRows } from '../tools/history/stored-rows.ts'
import { countUpTo } from './options.ts'
import { withTextReader } from './stored-data.ts'

interface CheckFlags {
  readonly json?: true
  readonly limit: number
}

/** Reading a day of a busy symbol in the order of its ids takes a while. */
const STATEMENT_TIMEOUT_MS = 3_600_000

/** `tapeline history`: the exchange's daily files of trades. */
export function historyCommand(): Command {
  return new Command('history')
    .description("compare stored trades with the exchange's daily files")
    .addCommand(
      new Command('check')
        .description('compare daily files with the stored rows of their days, and name every difference')
        .argument('<files...>', 'like BTCUSDT-trades-2026-01-31.zip or BTCUSDT-aggTrades-2026-01-31.zip')
        .option('--json', 'print each file as a line of JSON, with all differences')
        .option('--limit <n>', 'differences of each kind that are listed', countUpTo(1_000_000), 20)
        .addHelpText('after', HELP)
        .action(async (paths: readonly string[], flags: CheckFlags) => {
          const files = paths.map(dailyFile)
          const settings = loadSettings(process.env, { cwd: process.cwd() })
          await interruptible(async (signal) => {
            const options = { timeoutMs: STATEMENT_TIMEOUT_MS, applicationName: 'tapeline-history', signal }
            for (const file of files) {
              const found = await withTextReader(settings, options, (reader) =>
                compare(file, storedRows(reader, file)),
              )
              report(file, found, flags)
            }
          })
        }),
    )
}

const HELP = `
Exit code 1 if a file is damaged or incomplete, or differs from what is stored.
Next to each file its .CHECKSUM is read, if there is one.

Examples:
  bin/tapeline history check BTCUSDT-trades-2026-01-31.zip
  bin/tapeline history check --json downloads/*.zip`

function report({ name }: DailyFile, found: Comparison, { json, limit }: CheckFlags): void {
  if (!isEqual(found)) process.exitCode = 1
  if (json) {
    console.log(JSON.stringify({ ...found, isEqual: isEqual(found) }))
    return
  }
  const { rows, stored, checksum, unit } = found
  const sum = {
    matches: 'its checksum matches',
    differs: 'ITS CHECKSUM DIFFERS',
    absent: 'without a .CHECKSUM',
  }[checksum]
  console.log(
    `${name}: ${plural(rows, 'row')}, ${countText(stored)} stored, ${sum}${unit === null ? '' : `, times in ${unit}s`}`,
  )
  list('wrong in the file', found.defects, defectText, limit)
  list('missing in the file', found.missingInFile, rangeText, limit, countIds(found.missingInFile))
  list('in the file, not stored', found.notStored, rangeText, limit, countIds(found.notStored))
  list('stored, not in the file', found.notInFile, rangeText, limit, countIds(found.notInFile))
  list('different', found.altered, alteredText, limit)
  console.log(isEqual(found) ? '  equal' : '  NOT EQUAL')
}

function list<One>(
  what: string,
  all: readonly One[],
  text: (one: One) => string,
  limit: number,
  count = all.length,
): void {
  if (all.length === 0) return
  console.log(`  ${what}: ${countText(count)}`)
  for (const one of all.slice(0, limit)) console.log(`    ${text(one)}`)
  if (all.length > limit)
    console.log(`    and ${countText(all.length - limit)} more: --limit, or --json for all`)
}

function defectText({ line, what }: Defect): string {
  return line === null ? what : `line ${line}: ${what}`
}

function rangeText({ from, to }: IdRange): string {
  return from === to ? `id ${from}` : `ids ${from} to ${to}`
}

function alteredText({ id, field, file, stored }: Altered): string {
  return `id ${id}: ${field} is ${file} in the file, ${stored} in the database`
}
