import { Command, InvalidArgumentError, Option } from 'commander'
import {
  type BookAt,
  type BookRefusal,
  bookAt,
  describeRefusal,
  type Instant,
} from '../foundation/order-book/book-at.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings, type Settings } from '../foundation/settings/load.ts'
import { StoredBooks } from '../foundation/store/stored-books.ts'
import { bookLines, refusalFix } from './book-text.ts'
import { countUpTo, parseMicroseconds, parseSymbols } from './options.ts'
import { withStoredArchive } from './stored-archive.ts'
import { withTextReader } from './stored-data.ts'

interface BookFlags {
  readonly at?: string
  readonly receipt?: string
  readonly updateId?: number
  readonly levels: number
  readonly archive?: true
  readonly json?: true
}

const TIMEOUT_MS = 120_000
/** Most levels of a snapshot; a book that has widened can have more. */
const LEVELS_MAX = 100_000
/** The newest book has no later change; the exchange's clock may be ahead of this one. */
const AHEAD_US = 86_400_000_000

/** `tapeline book`: shows a recorded order book at an instant. */
export function bookCommand(): Command {
  return new Command('book')
    .description('show a recorded order book, now or at an instant, and how far it is exact')
    .argument('<symbol>', 'like BTCUSDT')
    .addOption(
      new Option('--at <time>', "by the exchange's time of the changes (E), UTC").conflicts([
        'receipt',
        'updateId',
      ]),
    )
    .addOption(new Option('--receipt <time>', 'what was received by this time, UTC').conflicts('updateId'))
    .option('--update-id <id>', 'with the changes up to this update id, as quotes have', parseUpdateId)
    .option('--levels <count>', 'maximum number of levels per side', countUpTo(LEVELS_MAX), 20)
    .option('--archive', 'read the archive of ARCHIVE_URL, or of the running `up`, not the database')
    .option('--json', 'print JSON: all figures, and single levels known beyond the horizon')
    .addHelpText('after', HELP)
    .action(async (given: string, flags: BookFlags) => {
      const [symbol = '', ...more] = parseSymbols([given])
      if (more.length > 0) throw new TapelineError('INPUT', `${given}: name one symbol`)
      const instant = instantOf(flags)
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const isArchive = flags.archive === true
      const read = isArchive ? archivedBook : databaseBook
      const answer = await interruptible((signal) =>
        read(settings, { symbol, instant, levels: flags.levels }, signal),
      )
      if (answer.kind === 'book') {
        const columns = process.stdout.isTTY ? process.stdout.columns : Number.POSITIVE_INFINITY
        console.log(
          flags.json === true
            ? jsonText(symbol, answer)
            : bookLines(symbol, answer, flags.levels, columns).join('\n'),
        )
        return
      }
      const message = describeRefusal(answer)
      const fix = refusalFix(answer)
      if (flags.json === true) console.log(jsonText(symbol, answer, { message, fix }))
      throw new TapelineError(isArchive ? 'ARCHIVE' : 'DATABASE', `${symbol}: ${message}`, { fix })
    })
}

type ReadBook = (
  settings: Settings,
  wanted: { readonly symbol: string; readonly instant: Instant; readonly levels: number },
  signal: AbortSignal,
) => Promise<BookAt | BookRefusal>

const databaseBook: ReadBook = (settings, { symbol, instant, levels }, signal) =>
  withTextReader(settings, { timeoutMs: TIMEOUT_MS, applicationName: 'tapeline-book', signal }, (reader) =>
    bookAt(new StoredBooks(reader.typed, symbol), instant, levels),
  )

const archivedBook: ReadBook = async (settings, { symbol, instant, levels }, signal) => {
  // Imported here, since the database needs no engine.
  const { ArchivedBooks } = await import('../foundation/archive/archived-books.ts')
  return withStoredArchive(settings, signal, (reader) =>
    reader.read((snapshot) => bookAt(new ArchivedBooks(reader.duckDb, snapshot, symbol), instant, levels)),
  )
}

const HELP = `
Without an instant it shows the newest book. A day means its start; a time may have six decimals of a second.
Levels are shown up to the horizon of their side: so far the book is exact (docs/order-books.md).
Exit code 1 if the book is not known at this instant. The reason, the window and what to do are then printed.

Examples:
  bin/tapeline book BTCUSDT
  bin/tapeline book BTCUSDT --at 2026-01-31T12:30:00.5 --levels 5
  bin/tapeline book BTCUSDT --update-id 51234567890 --json
  bin/tapeline book BTCUSDT --archive --receipt 2026-01-31T12:30:00`

/** @throws TapelineError `INPUT` naming the wrong option */
function instantOf({ at, receipt, updateId }: BookFlags): Instant {
  if (at !== undefined) return { kind: 'event time', us: parseMicroseconds('--at', at) }
  if (receipt !== undefined) return { kind: 'receipt', us: parseMicroseconds('--receipt', receipt) }
  if (updateId !== undefined) return { kind: 'update id', epoch: null, updateId }
  return { kind: 'event time', us: Date.now() * 1000 + AHEAD_US }
}

function parseUpdateId(text: string): number {
  const id = Number(text)
  if (/^\d+$/.test(text) && Number.isSafeInteger(id)) return id
  throw new InvalidArgumentError('Expected a whole number, like the update id u of a quote or a change.')
}

function jsonText(symbol: string, answer: BookAt | BookRefusal, more: object = {}): string {
  return JSON.stringify({ symbol, ...answer, ...more }, null, 2)
}
