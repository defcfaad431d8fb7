import { Command } from 'commander'
import { topicNames } from '../foundation/kafka/config.ts'
import { countIds } from '../foundation/market/id-ranges.ts'
import { systemClock } from '../foundation/runtime/clock.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { countText, plural } from '../foundation/telemetry/plural.ts'
import { printable } from '../foundation/telemetry/terminal.ts'
import { dailyFiles } from '../tools/history/daily-file.ts'
import type { Imported, ReadFile } from '../tools/history/import-file.ts'
import { type ImportEvents, type ImportOptions, importFiles } from '../tools/history/import-files.ts'
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
import { onKafka, storedKafka } from './stored-kafka.ts'

interface ImportFlags {
  readonly archive?: true
  readonly dryRun?: true
  readonly json?: true
  readonly limit: number
}

const HELP = `
Publishes to Kafka the trades that are not stored under any time, marked "source":"archive"; the service that stores the
topics takes them from there. Unrecoverable gaps whose ids are then there are closed; open ones are left to ingestion.
A run that was stopped continues with the next one. The user needs the WRITE right on the topics of trades and gaps.
Exit code 1 if a file was refused, or has two different rows under one id.

Examples:
  bin/tapeline history import --dry-run downloads
  bin/tapeline history import BTCUSDT-trades-2026-01-31.zip BTCUSDT-aggTrades-2026-01-31.zip`

export function historyImportCommand(): Command {
  return new Command('import')
    .description('publish the trades of daily files that are not stored, and close the gaps that this fills')
    .argument(...FILES_ARGUMENT)
    .option(...ARCHIVE_OPTION)
    .option('--dry-run', 'show what would be published, and change nothing')
    .option('--json', 'print each file and each closed gap as a line of JSON')
    .option('--limit <n>', 'ids and defects that are listed for a file', countUpTo(1_000_000), 20)
    .addHelpText('after', HELP)
    .action(async (paths: readonly string[], flags: ImportFlags) => {
      const files = await dailyFiles(paths)
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const kafka = storedKafka(settings)
      const isDry = flags.dryRun === true
      const progress = new FileProgress(files, ['reading', 'publishing'])
      const totals = { published: 0, closed: 0, refused: 0 }
      const events: ImportEvents = {
        onWaiting: (messages) =>
          progress.waiting(`waiting until ${plural(messages, 'message')} of Kafka are stored`),
        onProgress: (file, step, rows) => progress.show(file, step, rows),
        onFile(read, imported) {
          progress.clear()
          totals.published += imported === null ? 0 : countIds(imported.published)
          totals.refused += imported === null ? 1 : 0
          report(read, imported, flags)
        },
        onClosed(gap) {
          progress.clear()
          totals.closed += gap.status === 'filled' ? 1 : 0
          const { gap_id, event_type, from_id, to_id, status } = gap
          if (flags.json === true) console.log(JSON.stringify({ gap }))
          else console.log(`${printable(gap_id)}  ${event_type} ${from_id}..${to_id}  ${status}`)
        },
      }
      const flushIntervalMs =
        flags.archive === true ? settings.ARCHIVE_FLUSH_INTERVAL_MS : settings.FLUSH_INTERVAL_MS
      const shared = { kafka, topics: topicNames(settings), clock: systemClock(), flushIntervalMs, isDry }
      const words: Pick<ImportOptions, 'onKafka'> = { onKafka: (work) => onKafka(kafka, work) }
      await interruptible((signal) =>
        withHistory(settings, flags.archive === true, signal, (withStore) =>
          importFiles(files, { ...shared, ...words, withStore, signal }, events),
        ),
      ).finally(() => progress.clear())
      if (flags.json === true) return
      const would = isDry ? ' would be' : ''
      const refused = totals.refused === 0 ? '' : `, ${plural(totals.refused, 'file')} refused`
      console.log(
        `${plural(totals.published, 'row')}${would} published, ${plural(totals.closed, 'gap')}${would} closed${refused}.`,
      )
    })
}

function report({ file, rows, checksum }: ReadFile, imported: Imported | null, flags: ImportFlags): void {
  const { defects, defectCount } = rows
  if (imported === null || defects.some(({ kind }) => kind === 'second')) process.exitCode = 1
  if (flags.json === true) {
    const { path, symbol, type, date } = file
    const about = { file: path, symbol, type, date, checksum, unit: rows.unit, rows: rows.rows }
    console.log(JSON.stringify({ ...about, defects, defectCount, imported }))
    return
  }
  console.log(headLine(file, rows, checksum))
  printDefects(rows, flags.limit)
  if (imported === null) {
    console.log('  REFUSED: nothing of it was published. Download it again.')
    return
  }
  const { published, stored, left } = imported
  const what = flags.dryRun === true ? 'would be published' : 'published'
  printList(what, published, rangeText, flags.limit, countIds(published))
  const compared = stored === 0 ? '' : ', values not compared: `bin/tapeline history check` does'
  console.log(`  stored before: ${countText(stored)}${compared}`)
  if (left > 0) console.log(`  in open gaps, which ingestion backfills: ${countText(left)}`)
}
