import { Command, Option } from 'commander'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings, type Settings } from '../foundation/settings/load.ts'
import {
  csvLine,
  type TextColumn,
  type TextReader,
  type TextRow,
  type TextRows,
} from '../foundation/store/text-reader.ts'
import { countText } from '../foundation/telemetry/plural.ts'
import { countUpTo, parseDuration, parseTimes, type TimeFlags } from './options.ts'
import { jsonLine, tableLines } from './rows-text.ts'
import { storedArchive, withTextReader } from './stored-data.ts'
import { databaseSymbols, hintAtCase, isNothing } from './symbol-case.ts'

interface SqlFlags extends TimeFlags {
  readonly archive?: true
  readonly csv?: true
  readonly json?: true
  readonly limit: number
  readonly timeout: number
}

const ROWS_AT_ONCE = 1000
const TIMEOUT_MS = 60_000

/** `tapeline sql`: queries the database, read-only. */
export function sqlCommand(): Command {
  return new Command('sql')
    .description('query the database of DATABASE_URL or of the running `up`, read-only; or the archive')
    .argument('<query>', 'one statement')
    .option(
      '--archive',
      "query the files of ARCHIVE_URL, or of the running `up`, in DuckDB's SQL (docs/recipes.md)",
    )
    .option('--from <time>', 'with --archive: only rows from this day or time, UTC')
    .option('--to <time>', 'with --archive: only rows until this time; a day is included to its end')
    .addOption(new Option('--csv', 'print CSV, all rows').conflicts('json'))
    .option('--json', 'print one JSON object per line, all rows')
    .option('--limit <count>', 'maximum number of rows in the printed table', countUpTo(999_999), 100)
    .addOption(
      new Option('--timeout <duration>', 'cancel the query after this time: 500ms, 30s, 10m')
        .default(TIMEOUT_MS, '1m')
        .argParser(parseDuration),
    )
    .addHelpText('after', HELP)
    .action(async (query: string, flags: SqlFlags) => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      endQuietlyWithReader()
      const queryStored = flags.archive === true ? queryFiles : queryDatabase
      const hint = await interruptible((signal) => queryStored(settings, query, flags, signal))
      if (hint !== null) console.error(hint)
    })
}

/** @returns a hint for a result that says nothing, or null */
type QueryStored = (
  settings: Settings,
  query: string,
  flags: SqlFlags,
  signal: AbortSignal,
) => Promise<string | null>

const queryDatabase: QueryStored = (settings, query, flags, signal) => {
  if (flags.from !== undefined || flags.to !== undefined)
    throw new TapelineError('INPUT', '--from and --to are for --archive', {
      fix: 'Give the times in the query: trade_time >= ...',
    })
  const options = { timeoutMs: flags.timeout, applicationName: 'tapeline-sql', signal }
  return withTextReader(settings, options, async (reader) => {
    const atOnce = flags.csv || flags.json ? ROWS_AT_ONCE : Math.min(ROWS_AT_ONCE, flags.limit + 1)
    if (!(await print(answers(reader, query, atOnce), flags))) return null
    return hintAtCase(query, (symbols) => databaseSymbols(reader, symbols))
  })
}

const queryFiles: QueryStored = async (settings, query, flags, signal) => {
  const range = { symbols: null, ...parseTimes(flags) }
  // Imported here, since the other commands do not need the engine.
  const { withArchive } = await import('../foundation/archive/archive-reader.ts')
  const { archivedSymbols, queryArchive } = await import('../tools/archive/query.ts')
  return withArchive({ ...storedArchive(settings), signal }, async (reader) => {
    const asked = { sql: query, range, timeoutMs: flags.timeout }
    if (!(await queryArchive(reader, asked, (portions) => print(portions, flags)))) return null
    return hintAtCase(query, (symbols) => archivedSymbols(reader, symbols))
  })
}

const HELP = `
It prints all digits, and times in UTC. It uses the rights of tapeline_reader if the user has them. The embedded database
has one backend, so the services wait during a query, and no timeout applies. docs/recipes.md has common queries.

--archive has the same tables and views, and candles(); it runs in ARCHIVE_MEMORY_MB and changes nothing.

Examples:
  bin/tapeline sql "SELECT * FROM raw_trades WHERE symbol = 'BTCUSDT' ORDER BY trade_time DESC LIMIT 5"
  bin/tapeline sql "SELECT status, count(*) FROM gaps GROUP BY status"
  bin/tapeline sql --csv "SELECT * FROM candles('BTCUSDT', '1 minute', current_date, now()) ORDER BY bucket" > candles.csv
  bin/tapeline sql --archive --from 2026-01-31 --to 2026-01-31 "SELECT symbol, count(*) FROM raw_trades GROUP BY symbol"`

/** @returns whether the result is empty or only has zeros */
async function print(portions: AsyncIterable<TextRows>, flags: SqlFlags): Promise<boolean> {
  const { csv, json, limit } = flags
  if (csv === true) return printAll(portions, (_columns, row) => csvLine(row), true)
  if (json === true) return printAll(portions, jsonLine, false)
  const shown: TextRow[] = []
  let columns: readonly TextColumn[] = []
  for await (const some of portions) {
    columns = some.columns
    for (const row of some.rows) shown.push(row)
    if (shown.length > limit) break
  }
  for (const line of tableLines(columns, shown.slice(0, limit))) console.log(line)
  const first = `Only the first ${countText(limit)} rows are shown`
  if (shown.length > limit) console.error(`${first}: use --limit for more, --csv or --json for all.`)
  return isNothing(shown)
}

async function printAll(
  portions: AsyncIterable<TextRows>,
  line: (columns: readonly TextColumn[], row: TextRow) => string,
  hasHead: boolean,
): Promise<boolean> {
  let isFirst = true
  let saysNothing = true
  for await (const { columns, rows } of portions) {
    const head = isFirst && hasHead ? [columns.map(({ name }) => name)] : []
    const lines = [...head, ...rows].map((row) => line(columns, row))
    saysNothing = isFirst && isNothing(rows)
    isFirst = false
    // Wait for a reader that is slower than the database.
    if (lines.length > 0 && !process.stdout.write(`${lines.join('\n')}\n`))
      await new Promise((resolve) => process.stdout.once('drain', resolve))
  }
  return saysNothing
}

/** Reads queries in parts, whatever the number of rows. Other statements are run as a whole. */
async function* answers(reader: TextReader, query: string, rowsAtOnce: number): AsyncGenerator<TextRows> {
  const text = query.trim().replace(/;$/, '')
  const begins = text.replace(/^(\s|\(|--[^\n]*\n|\/\*[\s\S]*?\*\/)+/, '')
  if (/^(select|with|values|table)\b/i.test(begins)) yield* reader.select(text, [], rowsAtOnce)
  else yield await reader.query(text)
}

/** Ends when the reader closes the output, as in `sql … | head`. */
function endQuietlyWithReader(): void {
  process.stdout.on('error', (error) => {
    if (Reflect.get(error, 'code') !== 'EPIPE') throw error
    process.exit(0)
  })
}
