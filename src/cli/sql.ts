import { Command, Option } from 'commander'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import type { TextColumn, TextReader, TextRow, TextRows } from '../foundation/store/text-reader.ts'
import { countText } from '../foundation/telemetry/plural.ts'
import { countUpTo, parseDuration } from './options.ts'
import { csvLine, jsonLine, tableLines } from './rows-text.ts'
import { withTextReader } from './stored-data.ts'
import { hintAtCase, isNothing } from './symbol-case.ts'

interface SqlFlags {
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
    .description('query the database of DATABASE_URL, or of the running `up`, in a read-only transaction')
    .argument('<query>', 'one statement')
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
      const options = { timeoutMs: flags.timeout, applicationName: 'tapeline-sql' }
      await interruptible((signal) =>
        withTextReader(settings, { ...options, signal }, (reader) => print(reader, query, flags)),
      )
    })
}

const HELP = `
It prints all digits, and times in UTC. It uses the rights of tapeline_reader if the user has them. The embedded database
has one backend, so the services wait during a query, and no timeout applies. docs/recipes.md has common queries.

Examples:
  bin/tapeline sql "SELECT * FROM raw_trades WHERE symbol = 'BTCUSDT' ORDER BY trade_time DESC LIMIT 5"
  bin/tapeline sql "SELECT status, count(*) FROM gaps GROUP BY status"
  bin/tapeline sql --csv "SELECT * FROM candles('BTCUSDT', '1 minute', current_date, now()) ORDER BY bucket" > candles.csv`

async function print(reader: TextReader, query: string, flags: SqlFlags): Promise<void> {
  if (!(await printRows(reader, query, flags))) return
  const hint = await hintAtCase(reader, query)
  if (hint !== null) console.error(hint)
}

/** @returns whether the result is empty or only has zeros */
async function printRows(reader: TextReader, query: string, flags: SqlFlags): Promise<boolean> {
  const { csv, json, limit } = flags
  if (csv === true) return printAll(reader, query, (_columns, row) => csvLine(row), true)
  if (json === true) return printAll(reader, query, jsonLine, false)
  const shown: TextRow[] = []
  let columns: readonly TextColumn[] = []
  for await (const some of answers(reader, query, Math.min(ROWS_AT_ONCE, limit + 1))) {
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
  reader: TextReader,
  query: string,
  line: (columns: readonly TextColumn[], row: TextRow) => string,
  hasHead: boolean,
): Promise<boolean> {
  let isFirst = true
  let saysNothing = true
  for await (const { columns, rows } of answers(reader, query, ROWS_AT_ONCE)) {
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
