import { Command, InvalidArgumentError, Option } from 'commander'
import { archiveConfig } from '../archive/config.ts'
import type { ArchiveReader } from '../foundation/archive/archive-reader.ts'
import { DAY_TABLES } from '../foundation/archive/tables.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { createLogger } from '../foundation/telemetry/log.ts'
import { countText, plural } from '../foundation/telemetry/plural.ts'
import { drawOn } from '../foundation/telemetry/terminal.ts'
import type { CheckResult } from '../tools/archive/check.ts'
import type { ArchiveReport } from '../tools/archive/status.ts'
import { parseDay } from '../tools/export/day.ts'
import { archiveAdoptCommand } from './archive-adopt.ts'
import { tableLines } from './rows-text.ts'
import { runService } from './run-service.ts'
import { storedArchive } from './stored-data.ts'

export function archiveCommand(): Command {
  return new Command('archive')
    .description('the archive service: Kafka to Parquet files; subcommands show and check an archive')
    .addHelpText(
      'after',
      '\nWithout a subcommand it runs the service.\n\nExample:\n  KAFKA_BROKERS=kafka:9092 ARCHIVE_URL=/data/archive bin/tapeline archive',
    )
    .action(async () => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const config = archiveConfig(settings)
      const log = createLogger('archive', settings.LOG_LEVEL)
      // Imported here, since the other commands do not need the engine.
      const { startArchive } = await import('../archive/service.ts')
      await runService(() => startArchive(config, log), log)
    })
    .addCommand(archiveStatusCommand())
    .addCommand(archiveFilesCommand())
    .addCommand(archiveCheckCommand())
    .addCommand(archiveAdoptCommand())
}

/** PostgreSQL's numbers of types, for the alignment of a column. */
const TEXT = 25
const NUMBER = 20

interface JsonFlag {
  readonly json?: true
}

function archiveStatusCommand(): Command {
  return new Command('status')
    .description('show what the archive of ARCHIVE_URL, or of the running `up`, has')
    .option('--json', 'print everything as JSON')
    .addHelpText(
      'after',
      `\nExit code 1 if there are problems, such as a day that is overdue: over for three hours and not published.

Example:
  ARCHIVE_URL=/data/archive bin/tapeline archive status`,
    )
    .action(async (flags: JsonFlag) => {
      const { archiveReport } = await import('../tools/archive/status.ts')
      const report = await withArchiveOfSettings((reader) => archiveReport(reader, Date.now()))
      console.log(flags.json === true ? JSON.stringify(report, null, 2) : statusLines(report).join('\n'))
      if (report.problems.length > 0) process.exitCode = 1
    })
}

function statusLines({ archive, source, timeUnit, days, newest, chains, problems }: ArchiveReport): string[] {
  const number = (name: string) => ({ name, typeId: NUMBER })
  const text = (name: string) => ({ name, typeId: TEXT })
  const dayRows = days.map((day) => [
    day.table,
    day.date,
    day.list === null ? 'not published' : String(day.list),
    ...[day.files, day.rows, day.bytes].map(countText),
    day.bytesPerRow === null ? '' : day.bytesPerRow.toFixed(2),
    ...[day.segmentRows - day.lateRows, day.lateRows].map(countText),
  ])
  const chainRows = chains.map(({ topic, partition, incarnation, nextOffset, records, lastRecordAt }) => [
    `${topic}/${partition}`,
    ...[incarnation, nextOffset, records].map((count) => (count === null ? '' : countText(count))),
    lastRecordAt ?? '',
  ])
  return [
    `${archive}: ${source}, times in ${timeUnit}s`,
    '',
    ...tableLines(
      [
        ...[text('table'), text('day'), text('list'), number('files'), number('rows'), number('bytes')],
        ...[number('bytes per row'), number('in segments'), number('late')],
      ],
      dayRows,
    ),
    '',
    ...tableLines(
      [
        text('partition'),
        number('incarnation'),
        number('next offset'),
        number('records'),
        text('last record'),
      ],
      chainRows,
    ),
    '',
    ...Object.entries(newest).flatMap(([table, row]) =>
      row === null ? [] : [`Newest row of ${table}: ${row.at}, ${countText(row.ageMs / 1000)} s old`],
    ),
    ...problems.map((problem) => `PROBLEM: ${problem}`),
  ]
}

interface FilesFlags extends JsonFlag {
  readonly day: string
  readonly table?: string
}

function archiveFilesCommand(): Command {
  return new Command('files')
    .description('print the files of a published day, one path or URL per line')
    .requiredOption('--day <day>', '2026-01-31, today or yesterday (UTC)')
    .addOption(new Option('--table <table>', [...DAY_TABLES.keys()].join(', ')).argParser(parseTable))
    .option('--json', 'print the newest lists as JSON: files with SHA-256, counts and ids of each symbol')
    .addHelpText(
      'after',
      `\nThe files of the newest list have each row once, also while late rows are added.

Examples:
  bin/tapeline archive files --day 2026-01-31 --table raw_trades
  duckdb -c "SELECT count(*) FROM read_parquet([$(bin/tapeline archive files --day yesterday --table raw_trades | sed "s/.*/'&'/" | paste -sd,)])"
`,
    )
    .action(async ({ day, table, json }: FilesFlags) => {
      const { name: date } = parseDay('--day', day, Date.now())
      const tables = table === undefined ? [...DAY_TABLES.keys()] : [table]
      const { publishedFiles } = await import('../tools/archive/day-files.ts')
      const days = await withArchiveOfSettings((reader) => publishedFiles(reader, tables, date))
      for (const { list, paths, lateRows, ...of } of days) {
        const files = list.files.map((file, i) => ({ ...file, path: paths[i] }))
        if (json === true) console.log(JSON.stringify({ ...list, files, lateRows }))
        else for (const path of paths) console.log(path)
        if (lateRows > 0)
          console.error(
            `${of.table}: ${plural(lateRows, 'late row')} come with the next list, within the hour`,
          )
      }
    })
}

function archiveCheckCommand(): Command {
  return new Command('check')
    .description(
      'read every list, record and file of the archive, and name what is missing, altered or foreign',
    )
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      `\nExit code 1 if something is wrong or cannot be read. The archive may be written to meanwhile.

Example:
  ARCHIVE_URL=/data/archive bin/tapeline archive check`,
    )
    .action(async ({ json }: JsonFlag) => {
      const { checkArchive } = await import('../tools/archive/check.ts')
      const result = await withArchiveOfSettings((reader) => checkArchive(reader, progress()))
      console.log(json === true ? JSON.stringify(result, null, 2) : checkLines(result).join('\n'))
      if (result.wrong.length + result.unreadable.length > 0) process.exitCode = 1
    })
}

function checkLines({ counts, wrong, unreadable, notes }: CheckResult): string[] {
  const read = [
    plural(counts.records, 'record'),
    plural(counts.lists, 'list'),
    `${plural(counts.files, 'file')} with ${plural(counts.rows, 'row')} (${countText(counts.bytes)} bytes)`,
  ]
  const unchecked =
    unreadable.length === 0
      ? []
      : [`${countText(unreadable.length)} not checked: give this user the right to read all files`]
  const verdict =
    wrong.length === 0
      ? 'Nothing is wrong'
      : `${countText(wrong.length)} wrong: restore damaged and missing files from a copy, remove foreign ones`
  return [
    `Read ${read.join(', ')}`,
    ...notes.map((note) => `note: ${note}`),
    ...unreadable.map((one) => `NOT CHECKED: ${one}`),
    ...wrong.map((one) => `WRONG: ${one}`),
    ...unchecked,
    ...(wrong.length === 0 && unreadable.length > 0 ? [] : [verdict]),
  ]
}

/** Shows the progress in place, only on a terminal. */
function progress(): (key: string, bytes: number) => void {
  if (!process.stderr.isTTY) return () => {}
  let sum = 0
  return (key, bytes) => {
    sum += bytes
    drawOn(process.stderr, `\r${countText(sum / 1e6)} MB: ${key}\u001b[K\r`)
  }
}

async function withArchiveOfSettings<Result>(
  work: (reader: ArchiveReader) => Promise<Result>,
): Promise<Result> {
  const settings = loadSettings(process.env, { cwd: process.cwd() })
  // Imported here, since the other commands do not need the engine.
  const { withArchive } = await import('../foundation/archive/archive-reader.ts')
  return interruptible((signal) => withArchive({ ...storedArchive(settings), signal }, work))
}

function parseTable(text: string): string {
  if (DAY_TABLES.has(text)) return text
  throw new InvalidArgumentError(`Expected one of ${[...DAY_TABLES.keys()].join(', ')}.`)
}
