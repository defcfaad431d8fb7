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
import type { Queryable } from '../../foundation/store/database.ts'
import type { TextReader, TextRow } from '../../foundation/store/text-reader.ts'
import { VERSION } from '../../foundation/telemetry/version.ts'
import type { Report } from '../verify/report-types.ts'
import { COLUMNS, ID_COLUMN, isoTime, selectOf } from './columns.ts'
import type { Day } from './day.ts'
import { type ExportedFile, type Manifest, readGaps, readIdentity, readMoment } from './manifest.ts'
import { type Format, openRowFile } from './row-files.ts'

/** The audit of the moment whose rows are exported. */
export interface DayAudit {
  /** @param connection sees the rows of that moment and no others */
  of(connection: Queryable): Promise<Report>
  /** Whether ids are missing that may be on their way, so that a later moment is to be exported. */
  wantsLater(report: Report): boolean
  /** Until then. No connection is held meanwhile. */
  wait(): Promise<void>
}

export interface ExportOptions {
  readonly symbol: string
  readonly day: Day
  readonly types: readonly EventType[]
  readonly format: Format
  /** An existing folder. */
  readonly folder: string
  /** Files of before are replaced. */
  readonly force: boolean
  /** Null: the manifest says that none was made. */
  readonly audit: DayAudit | null
  readonly onProgress: (type: EventType, rows: number) => void
}

const ROWS_AT_ONCE = 20_000

/**
 * Writes a day's rows, a file for each type, and a manifest beside them: rows, ledger and audit of one moment. Files have their
 * names only once all of them are whole and on the disk; the manifest comes last.
 *
 * @param read gives a reader, whose rows are all of one moment
 * @returns null when nothing is stored of that day, and no file is left
 * @throws TapelineError `INPUT` when a file is there already
 */
export async function exportDay(
  read: Read,
  options: ExportOptions,
): Promise<{ manifest: Manifest; path: string } | null> {
  const { symbol, day, folder } = options
  const { targets, manifestName, names } = namesOf(options)
  if (!options.force) refuseExisting(options)
  // Of this export alone: another of the same day may be under way.
  const work = mkdtempSync(join(folder, `.${symbol}-${day.name}.partial-`))
  const partial = (name: string) => join(work, name)
  try {
    const stored = await atOneMoment(read, options.audit, async (reader, report) => {
      const takenAt = await readMoment(reader)
      const files: ExportedFile[] = []
      for (const { type, name } of targets) {
        const written = await writeRows(reader, options, type, partial(name))
        files.push({ type, name, ...written, ...(await sizeAndHash(partial(name))) })
      }
      const identity = await readIdentity(reader)
      const gaps = await readGaps(reader, symbol, ...day.bounds)
      return { ...identity, takenAt, files, gaps, verify: report === null ? null : summaryOf(report) }
    })
    if (stored.files.every(({ rows }) => rows === 0)) return null
    const { source, timeUnit, takenAt, files, gaps, verify } = stored
    const manifest: Manifest = {
      format: 1,
      symbol,
      day: day.name,
      dayIsOver: Date.parse(takenAt) >= day.toMs,
      source,
      timeUnit,
      takenAt,
      program: `tapeline ${VERSION}`,
      files,
      gaps,
      verify,
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

type Read = <Result>(work: (reader: TextReader) => Promise<Result>) => Promise<Result>

/** Audits first: where rows are on their way, a later moment is taken before any file is written. */
async function atOneMoment<Result>(
  read: Read,
  audit: DayAudit | null,
  work: (reader: TextReader, report: Report | null) => Promise<Result>,
): Promise<Result> {
  for (;;) {
    const done = await read(async (reader) => {
      const report = audit === null ? null : await audit.of(reader.typed)
      if (report !== null && audit?.wantsLater(report) === true) return null
      return { result: await work(reader, report) }
    })
    if (done !== null) return done.result
    await audit?.wait()
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

function namesOf({ symbol, day, types, format }: Pick<ExportOptions, 'symbol' | 'day' | 'types' | 'format'>) {
  const some = types.length === EVENT_TYPES.length ? '' : `-${types.join('-')}`
  const manifestName = `${symbol}${some}-${day.name}.${format}.manifest.json`
  const targets = types.map((type) => ({ type, name: `${symbol}-${type}-${day.name}.${format}` }))
  return { targets, manifestName, names: [...targets.map(({ name }) => name), manifestName] }
}

/** @throws TapelineError `INPUT` when a file of this export is there already */
export function refuseExisting(
  options: Pick<ExportOptions, 'symbol' | 'day' | 'types' | 'format' | 'folder'>,
): void {
  const there = namesOf(options)
    .names.map((name) => join(options.folder, name))
    .find((path) => existsSync(path))
  if (there !== undefined) throw isThere(there)
}

function isThere(path: string): TapelineError {
  return new TapelineError('INPUT', `${path} is there already`, {
    fix: 'Move it away, choose another folder with --out, or replace it with --force.',
  })
}

function summaryOf({ verdict, takenAt, watermark, sequences, findings }: Report): Manifest['verify'] {
  return { verdict, takenAt, watermark, sequences, findings }
}
