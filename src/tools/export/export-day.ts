import { createHash } from 'node:crypto'
import {
  closeSync,
  createReadStream,
  existsSync,
  fsyncSync,
  linkSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { EVENT_TYPES, type EventType } from '../../foundation/market/event.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import type { TextReader, TextRow } from '../../foundation/store/text-reader.ts'
import { VERSION } from '../../foundation/telemetry/version.ts'
import type { Report } from '../verify/report-types.ts'
import { COLUMNS, ID_COLUMN, isoTime, selectOf } from './columns.ts'
import type { Day } from './day.ts'
import { type ExportedFile, type Manifest, readExchangeIdentity, readGaps } from './manifest.ts'
import { type Format, openRowFile } from './row-files.ts'

export interface ExportOptions {
  readonly symbol: string
  readonly day: Day
  readonly types: readonly EventType[]
  readonly format: Format
  /** An existing folder. */
  readonly folder: string
  /** Files of before are replaced. */
  readonly force: boolean
  readonly audit: () => Promise<Report | null>
  readonly onProgress: (type: EventType, rows: number) => void
  readonly nowMs: number
}

const ROWS_AT_ONCE = 20_000

/**
 * Writes a day's rows, a file for each type, and a manifest beside them. Files have their names only once all of them are
 * whole and on the disk; the manifest comes last.
 *
 * @param read gives a reader, whose rows are all of one moment
 * @throws TapelineError `INPUT` when a file is there already, or nothing is stored of that day
 */
export async function exportDay(
  read: <Result>(work: (reader: TextReader) => Promise<Result>) => Promise<Result>,
  options: ExportOptions,
): Promise<{ manifest: Manifest; path: string }> {
  const { symbol, day, types, format, folder } = options
  const some = types.length === EVENT_TYPES.length ? '' : `-${types.join('-')}`
  const manifestName = `${symbol}${some}-${day.name}.${format}.manifest.json`
  const targets = types.map((type) => ({ type, name: `${symbol}-${type}-${day.name}.${format}` }))
  const names = [...targets.map(({ name }) => name), manifestName]
  refuseExisting(
    names.map((name) => join(folder, name)),
    options.force,
  )
  // Of this export alone: another of the same day may be under way.
  const work = mkdtempSync(join(folder, `.${symbol}-${day.name}.partial-`))
  const partial = (name: string) => join(work, name)
  try {
    const stored = await read(async (reader) => {
      const files: ExportedFile[] = []
      for (const { type, name } of targets) {
        const written = await writeRows(reader, options, type, partial(name))
        files.push({ type, name, ...written, ...(await sizeAndHash(partial(name))) })
      }
      const gaps = await readGaps(reader, symbol, ...day.bounds)
      return { source: await readExchangeIdentity(reader), files, gaps }
    })
    if (stored.files.every(({ rows }) => rows === 0)) throw nothingStored(symbol, day)
    // Behind the transaction: the embedded database has one backend.
    const audit = await options.audit()
    const manifest: Manifest = {
      format: 1,
      symbol,
      day: day.name,
      dayIsOver: options.nowMs >= day.toMs,
      takenAt: new Date(options.nowMs).toISOString(),
      program: `tapeline ${VERSION}`,
      ...stored,
      verify: audit === null ? null : summaryOf(audit),
    }
    writeFileSync(partial(manifestName), `${JSON.stringify(manifest, null, 2)}\n`)
    toDisk(partial(manifestName))
    for (const name of names) publish(partial(name), join(folder, name), options.force)
    toDisk(folder)
    return { manifest, path: join(folder, manifestName) }
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** Under its name at last. A file that has come to be there meanwhile is not replaced. */
function publish(from: string, to: string, force: boolean): void {
  if (force) {
    renameSync(from, to)
    return
  }
  try {
    linkSync(from, to)
  } catch (error) {
    if (Reflect.get(Object(error), 'code') === 'EEXIST') throw isThere(to)
    throw error
  }
}

async function writeRows(
  reader: TextReader,
  { symbol, day, format, onProgress }: ExportOptions,
  type: EventType,
  path: string,
): Promise<Pick<ExportedFile, 'rows' | 'first' | 'last'>> {
  const file = openRowFile(format, path, type)
  let rows = 0
  let first: TextRow | undefined
  let last: TextRow | undefined
  for await (const some of reader.select(selectOf(type), [symbol, ...day.bounds], ROWS_AT_ONCE)) {
    file.add(some.rows)
    rows += some.rows.length
    first ??= some.rows[0]
    last = some.rows.at(-1) ?? last
    onProgress(type, rows)
  }
  file.finish()
  return { rows, first: endOf(type, first), last: endOf(type, last) }
}

function endOf(type: EventType, row: TextRow | undefined): ExportedFile['first'] {
  if (row === undefined) return null
  const at = COLUMNS[type].findIndex(({ name }) => name === ID_COLUMN[type])
  return { id: Number(row[at]), time: isoTime(BigInt(row[0] ?? '0')) }
}

async function sizeAndHash(path: string): Promise<Pick<ExportedFile, 'bytes' | 'sha256'>> {
  toDisk(path)
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return { bytes: statSync(path).size, sha256: hash.digest('hex') }
}

/** What was written is there after a power cut. */
function toDisk(path: string): void {
  const file = openSync(path, 'r')
  fsyncSync(file)
  closeSync(file)
}

function refuseExisting(paths: readonly string[], force: boolean): void {
  const there = paths.find((path) => existsSync(path))
  if (there !== undefined && !force) throw isThere(there)
}

function isThere(path: string): TapelineError {
  return new TapelineError('INPUT', `${path} is there already`, {
    fix: 'Move it away, choose another folder with --out, or replace it with --force.',
  })
}

function nothingStored(symbol: string, day: Day): TapelineError {
  return new TapelineError('INPUT', `Nothing of ${symbol} is stored of ${day.name}`, {
    fix: "Which symbols and days there are: bin/tapeline sql 'SELECT symbol, min(trade_time), max(trade_time) FROM trades GROUP BY symbol'",
  })
}

function summaryOf({ verdict, takenAt, watermark, sequences, findings }: Report): Manifest['verify'] {
  return { verdict, takenAt, watermark, sequences, findings }
}
