import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { EVENT_TYPES, type EventType, isTickType, TICK_TYPES } from '../foundation/market/event.ts'
import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import { makeFolder } from '../foundation/runtime/folders.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings, type Settings } from '../foundation/settings/load.ts'
import { countText } from '../foundation/telemetry/plural.ts'
import { drawOn } from '../foundation/telemetry/terminal.ts'
import { type Day, parseDay, parseDays } from '../tools/export/day.ts'
import type { DayAudit, Read, Target } from '../tools/export/export-day.ts'
import type { Manifest } from '../tools/export/manifest.ts'
import { audit } from '../tools/verify/verify.ts'
import { type EndOffsets, mayStillArrive } from '../tools/verify/watermark.ts'
import { openStoredEnds, Settling, settleTimes } from './audit-stored.ts'
import { parseSymbols } from './options.ts'
import { withStoredArchive } from './stored-archive.ts'
import { withTextReader } from './stored-data.ts'

interface ExportFlags {
  readonly day?: string
  readonly from?: string
  readonly to?: string
  readonly type: readonly EventType[]
  readonly format: 'parquet' | 'csv'
  readonly out: string
  readonly force?: true
  readonly verify: boolean
  readonly archive?: true
}

const DAY_MS = 86_400_000

/** A row per level. Only the archive has them in this form. */
const DEPTH_TYPES = EVENT_TYPES.filter((type) => !isTickType(type))

/** Sorting a day of a busy symbol takes a while. */
const STATEMENT_TIMEOUT_MS = 3_600_000

/** `tapeline export`: writes days of symbols to files. */
export function exportCommand(): Command {
  return new Command('export')
    .description(
      'write UTC days of symbols to sorted Parquet or CSV files, each with a manifest and the verdict of verify',
    )
    .argument('<symbols...>', 'like BTCUSDT ETHUSDT, or BTCUSDT,ETHUSDT')
    .option('--day <day>', '2026-01-31, today or yesterday; trades by trade time, quotes by receipt')
    .option('--from <day>', 'the first of several days; each has its own files')
    .option('--to <day>', 'the last of them; default: yesterday')
    .addOption(
      new Option('--type <list>', `${TICK_TYPES.join(', ')}; with --archive also ${DEPTH_TYPES.join(', ')}`)
        .default([...TICK_TYPES], 'all but those of depth')
        .argParser(parseTypes),
    )
    .addOption(
      new Option('--format <format>', 'format of the files').choices(['parquet', 'csv']).default('parquet'),
    )
    .option('--archive', 'export from the archive of ARCHIVE_URL instead of the database')
    .option('--out <folder>', 'folder of the files', '.')
    .option('--force', 'replace existing files')
    .option('--no-verify', 'skip the audit; the manifest says so')
    .addHelpText('after', HELP)
    .action(async (given: readonly string[], flags: ExportFlags) => {
      const symbols = parseSymbols(given)
      const depth = flags.type.find((type) => !isTickType(type))
      if (depth !== undefined && flags.archive !== true)
        throw new TapelineError('INPUT', `--type ${depth}: only an archive has a row per level`, {
          fix: 'Add --archive, or leave it out.',
        })
      const days = daysOf(flags, Date.now())
      makeOutFolder(flags.out)
      await interruptible((signal) => exportAll(symbols, days, flags, signal))
    })
}

/** Exports one symbol and day after another, each at one moment. */
async function exportAll(
  symbols: readonly string[],
  days: readonly Day[],
  flags: ExportFlags,
  signal: AbortSignal,
): Promise<void> {
  const settings = loadSettings(process.env, { cwd: process.cwd() })
  // Imported here, since the other commands do not need the engine.
  const { exportDay, refuseExisting } = await import('../tools/export/export-day.ts')
  const { type: types, format, out: folder } = flags
  const all = symbols.flatMap((symbol) => days.map((day) => ({ symbol, day, types, format, folder })))
  const force = flags.force === true
  if (!force) all.forEach(refuseExisting)
  const ends = flags.verify ? await openStoredEnds(settings, signal) : null
  let exported = 0
  const exportFrom = async (readerOf: (one: Target) => Read) => {
    for (const one of all) {
      const settling = new Settling(settleTimes(settings, flags.archive === true))
      const audit = ends === null ? null : auditOf(one, ends, settling, signal)
      const done = await exportDay(readerOf(one), { ...one, force, audit, onProgress: progress() })
      if (done === null) console.error(`Nothing of ${one.symbol} is stored for ${one.day.name}`)
      else report(done, folder)
      exported += done === null ? 0 : 1
    }
  }
  try {
    if (flags.archive === true) await fromArchive(settings, signal, exportFrom)
    else await fromTables(settings, folder, signal, exportFrom)
  } finally {
    await ends?.close()
  }
  if (exported === 0)
    throw new TapelineError('INPUT', 'Nothing was exported', {
      fix: `List the stored symbols and days: bin/tapeline sql ${flags.archive === true ? '--archive ' : ''}'SELECT symbol, min(trade_time), max(trade_time) FROM trades GROUP BY symbol'`,
    })
}

type ExportFrom = (readerOf: (one: Target) => Read) => Promise<void>

async function fromArchive(settings: Settings, signal: AbortSignal, exportFrom: ExportFrom): Promise<void> {
  const { archiveStore } = await import('../tools/export/archive-store.ts')
  await withStoredArchive(settings, signal, (reader) =>
    exportFrom(
      ({ symbol, day }) =>
        (work) =>
          reader.read(async (snapshot) => work(await archiveStore(reader, snapshot, symbol, day))),
    ),
  )
}

/** The engine writes the files, within ARCHIVE_MEMORY_MB; the rest is in a folder that is removed. */
async function fromTables(
  settings: Settings,
  folder: string,
  signal: AbortSignal,
  exportFrom: ExportFrom,
): Promise<void> {
  const { openDuckDb } = await import('../foundation/archive/duckdb.ts')
  const { tableStore } = await import('../tools/export/table-store.ts')
  const options = { timeoutMs: STATEMENT_TIMEOUT_MS, applicationName: 'tapeline-export', signal }
  const tempFolder = mkdtempSync(join(settings.ARCHIVE_TEMP ?? folder, '.tapeline-export-'))
  try {
    const engine = await openDuckDb({
      memoryBytes: settings.ARCHIVE_MEMORY_MB * 2 ** 20,
      tempFolder,
      threads: availableParallelism(),
    })
    try {
      const duckDb = await engine.connect()
      signal.addEventListener('abort', () => duckDb.interrupt(), { once: true })
      await exportFrom(
        () => (work) => withTextReader(settings, options, (reader) => work(tableStore(reader, duckDb))),
      )
    } finally {
      engine.close()
    }
  } finally {
    rmSync(tempFolder, { recursive: true, force: true })
  }
}

function auditOf(
  { symbol, day, types }: Target,
  { read: readEnds }: EndOffsets,
  settling: Settling,
  signal: AbortSignal,
): DayAudit {
  const scope = { symbols: [symbol], fromMs: day.fromMs, toMs: day.toMs }
  return {
    of: async ({ connection, storedUntil, depthRows: all }) => {
      const depthRows = types.every(isTickType) ? null : all
      const how = { scope, limit: 5, readEnds, signal, allowsUnknown: true, storedUntil, depthRows }
      const found = await audit(connection, how)
      return settling.wantsLater(found.watermark, (first) => mayStillArrive(found, first)) ? null : found
    },
    wait: () => settling.wait(signal),
  }
}

function report({ manifest, path }: { readonly manifest: Manifest; readonly path: string }, folder: string) {
  for (const { name, rows, bytes } of manifest.files)
    console.log(`${join(folder, name)}: ${countText(rows)} rows, ${countText(bytes)} bytes`)
  const verdict = manifest.verify?.verdict ?? 'not run'
  console.log(`${path}: ${countText(manifest.gaps.length)} rows of the ledger, verdict of verify: ${verdict}`)
  if (!manifest.dayIsOver)
    console.log(
      Date.parse(manifest.takenAt) < Date.parse(manifest.day) + DAY_MS
        ? 'The day is not over yet.'
        : 'The archive has not published the day yet: its last rows may be missing.',
    )
  if (verdict === 'not clean') process.exitCode = 1
}

const HELP = `
Exit code 1 when verify has unexplained findings. The files are still written, and the manifest names the findings.

Examples:
  bin/tapeline export BTCUSDT --day yesterday --out exports
  bin/tapeline export BTCUSDT ETHUSDT --from 2026-01-01 --to 2026-01-31 --out exports
  bin/tapeline export BTCUSDT --day 2026-01-31 --type trade --format csv
  bin/tapeline export BTCUSDT --day 2026-01-31 --archive`

/** @throws TapelineError `INPUT` */
function daysOf({ day, from, to }: ExportFlags, nowMs: number): Day[] {
  if (day !== undefined && from === undefined && to === undefined) return [parseDay('--day', day, nowMs)]
  if (day === undefined && from !== undefined) return parseDays(from, to ?? 'yesterday', nowMs)
  throw new TapelineError('INPUT', 'Either --day or --from is needed', {
    fix: 'Give --day 2026-01-31, or --from 2026-01-01 --to 2026-01-31.',
  })
}

function parseTypes(text: string): EventType[] {
  const names = text.split(',').map((name) => name.trim())
  const types = EVENT_TYPES.filter((type) => names.includes(type))
  if (types.length !== new Set(names).size)
    throw new InvalidArgumentError(`Expected a comma list of ${EVENT_TYPES.join(', ')}.`)
  return types
}

/** @throws TapelineError `INPUT` when the folder cannot be created */
function makeOutFolder(path: string): void {
  try {
    makeFolder(path)
  } catch (error) {
    const text = `--out ${path} is not a folder and cannot be created: ${describeError(error)}`
    throw new TapelineError('INPUT', text, { fix: 'Name another folder.', cause: error })
  }
}

/** Shows the progress in place, only on a terminal. */
function progress(): (type: EventType, rows: number) => void {
  if (!process.stderr.isTTY) return () => {}
  return (type, rows) => drawOn(process.stderr, `\r${type}: ${countText(rows)} rows\u001b[K\r`)
}
