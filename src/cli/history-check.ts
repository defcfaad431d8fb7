import { Command } from 'commander'
import { countIds } from '../foundation/market/id-ranges.ts'
import { UNMARKED_TIME_UNIT } from '../foundation/market/time-unit.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { countText } from '../foundation/telemetry/plural.ts'
import { type Altered, type Comparison, compare, isEqual } from '../tools/history/compare.ts'
import { type DailyFile, dailyFiles } from '../tools/history/daily-file.ts'
import {
  FILES_ARGUMENT,
  FileProgress,
  headLine,
  printDefects,
  printList,
  rangeText,
} from './history-report.ts'
import { countUpTo } from './options.ts'
import { ARCHIVE_OPTION, withHistory } from './stored-history.ts'

interface CheckFlags {
  readonly archive?: true
  readonly json?: true
  readonly limit: number
}

const HELP = `
Exit code 1 if a file is damaged or incomplete, or differs from what is stored.
Next to each file its .CHECKSUM is read, if there is one.

Examples:
  bin/tapeline history check BTCUSDT-trades-2026-01-31.zip
  bin/tapeline history check --json downloads
  bin/tapeline history check --archive downloads`

export function historyCheckCommand(): Command {
  return new Command('check')
    .description('compare daily files with the stored rows of their days, and name every difference')
    .argument(...FILES_ARGUMENT)
    .option(...ARCHIVE_OPTION)
    .option('--json', 'print each file as a line of JSON, with all differences')
    .option('--limit <n>', 'differences of each kind that are listed', countUpTo(1_000_000), 20)
    .addHelpText('after', HELP)
    .action(async (paths: readonly string[], flags: CheckFlags) => {
      const files = await dailyFiles(paths)
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const progress = new FileProgress(files, ['comparing'])
      await interruptible((signal) =>
        withHistory(settings, flags.archive === true, signal, async (withStore) => {
          for (const file of files) {
            const found = await withStore(async (store) => {
              const unit = (await store.identity())?.timeUnit ?? UNMARKED_TIME_UNIT
              return compare(file, unit, store.rowsOf(file), (rows) => {
                signal.throwIfAborted()
                progress.show(file, 'comparing', rows)
              })
            })
            progress.clear()
            report(file, found, flags)
          }
        }),
      )
    })
}

function report(file: DailyFile, found: Comparison, { json, limit }: CheckFlags): void {
  if (!isEqual(found)) process.exitCode = 1
  if (json) {
    console.log(JSON.stringify({ ...found, isEqual: isEqual(found) }))
    return
  }
  const { checksum, stored, missingInFile, notStored, notInFile, altered } = found
  console.log(`${headLine(file, found, checksum)}; ${countText(stored)} stored`)
  printDefects(found, limit)
  printList('missing in the file', missingInFile, rangeText, limit, countIds(missingInFile))
  printList('in the file, not stored', notStored, rangeText, limit, countIds(notStored))
  printList('stored, not in the file', notInFile, rangeText, limit, countIds(notInFile))
  printList('different', altered, alteredText, limit, found.alteredCount)
  console.log(isEqual(found) ? '  equal' : '  NOT EQUAL')
}

function alteredText({ id, field, file, stored }: Altered): string {
  return `id ${id}: ${field} is ${file} in the file, ${stored} in the store`
}
