import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { localFiles } from '../../foundation/archive/local-files.ts'
import { declarationOf, type EventType, TICK_TYPES } from '../../foundation/market/event.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { VERSION } from '../../foundation/telemetry/service.ts'
import type { Report } from '../verify/report-types.ts'
import type { Day } from './day.ts'
import type { DayStore } from './day-store.ts'
import { type ExportedFile, type Manifest, readGaps } from './manifest.ts'
import { type Format, writeRowFile } from './row-files.ts'

/** Audits the same moment whose rows are exported. */
export interface DayAudit {
  /** @returns null when missing ids may still arrive, so that the export should use a later moment */
  of(store: DayStore): Promise<Report | null>
  /** Waits for that moment without holding a connection. */
  wait(): Promise<void>
}

/** The rows of a day that are exported, and their folder. */
export interface Target {
  readonly symbol: string
  readonly day: Day
  readonly types: readonly EventType[]
  readonly format: Format
  /** An existing folder. */
  readonly folder: string
}

export interface ExportOptions extends Target {
  readonly force: boolean
  /** Null: no audit; the manifest says so. */
  readonly audit: DayAudit | null
  readonly onProgress: (type: EventType, rows: number) => void
}

/**
 * Writes a day's rows, one file per type, and a manifest: rows, ledger and audit of one moment.
 * Files get their names only when all of them are complete and synced to disk. The manifest comes
 * last.
 * @param read provides a store whose rows are all of one moment
 * @returns null when nothing is stored of that day; then no file is left
 * @throws TapelineError `INPUT` when a file exists already
 */
export async function exportDay(
  read: Read,
  options: ExportOptions,
): Promise<{ manifest: Manifest; path: string } | null> {
  const { symbol, day, format, folder, onProgress } = options
  const { targets, manifestName, isDefault } = namesOf(options)
  if (!options.force) refuseExisting(options)
  // Private to this export, since another one of the same day may be running.
  const work = mkdtempSync(join(folder, `.${symbol}-${day.name}.partial-`))
  const partial = (name: string) => join(work, name)
  try {
    const manifest = await atOneMoment(read, options.audit, async (store, report): Promise<Manifest> => {
      const { takenAt, source, timeUnit, dayIsOver } = await store.facts(day)
      const files: ExportedFile[] = []
      for (const { type, name } of targets) {
        const rows = await store.rowsOf(type, symbol, day, onProgress)
        const written = await writeRowFile(store.duckDb, type, rows, format, partial(name))
        // Most record no block trades, and an empty file would say that there were none.
        if (written.rows === 0 && isDefault && !declarationOf(type).isDefault) continue
        files.push({ type, name, ...written, ...(await sizeAndHash(partial(name))) })
      }
      return {
        format: 1,
        symbol,
        day: day.name,
        dayIsOver,
        source,
        timeUnit,
        takenAt: takenAt.toISOString(),
        program: `tapeline ${VERSION}`,
        files,
        gaps: await readGaps(store.connection, symbol, day.bounds),
        verify: report === null ? null : summaryOf(report),
      }
    })
    if (manifest.files.every(({ rows }) => rows === 0)) return null
    writeFileSync(partial(manifestName), `${JSON.stringify(manifest, null, 2)}\n`)
    toDisk(partial(manifestName))
    const written = [...manifest.files.map(({ name }) => name), manifestName]
    for (const name of written) publish(partial(name), join(folder, name), options.force)
    // An earlier export of the day, which this one replaces, may have had more types.
    for (const { name } of targets)
      if (options.force && !written.includes(name)) rmSync(join(folder, name), { force: true })
    toDisk(folder)
    return { manifest, path: join(folder, manifestName) }
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** Provides a store whose rows are all of one moment. The work may run again at a later one. */
export type Read = <Result>(work: (store: DayStore) => Promise<Result>) => Promise<Result>

/** Audits first. If rows may still arrive, waits for a later moment before it writes a file. */
async function atOneMoment<Result>(
  read: Read,
  audit: DayAudit | null,
  work: (store: DayStore, report: Report | null) => Promise<Result>,
): Promise<Result> {
  for (;;) {
    const done = await read(async (store) => {
      const report = audit === null ? null : await audit.of(store)
      return audit !== null && report === null ? null : { result: await work(store, report) }
    })
    if (done !== null) return done.result
    await audit?.wait()
  }
}

/** Gives the file its final name. Only `force` replaces a file created in the meantime. */
function publish(from: string, to: string, force: boolean): void {
  try {
    if (force) renameSync(from, to)
    else linkSync(from, to)
  } catch (error) {
    if (Reflect.get(Object(error), 'code') === 'EEXIST') throw isThere(to)
    throw error
  }
}

async function sizeAndHash(path: string): Promise<Pick<ExportedFile, 'bytes' | 'sha256'>> {
  toDisk(path)
  const { bytes, sha256 } = await localFiles.hash(path)
  return { bytes, sha256 }
}

/** Syncs a file to disk, so that it survives a power failure. */
function toDisk(path: string): void {
  const file = openSync(path, 'r')
  fsyncSync(file)
  closeSync(file)
}

function namesOf({ symbol, day, types, format }: Target) {
  const isDefault = types.join() === TICK_TYPES.join()
  const some = isDefault ? '' : `-${types.join('-')}`
  const manifestName = `${symbol}${some}-${day.name}.${format}.manifest.json`
  const targets = types.map((type) => ({ type, name: `${symbol}-${type}-${day.name}.${format}` }))
  return { targets, manifestName, isDefault, names: [...targets.map(({ name }) => name), manifestName] }
}

/** @throws TapelineError `INPUT` when a file of this export exists already */
export function refuseExisting(target: Target): void {
  const paths = namesOf(target).names.map((name) => join(target.folder, name))
  const there = paths.find((path) => existsSync(path))
  if (there !== undefined) throw isThere(there)
}

function isThere(path: string): TapelineError {
  return new TapelineError('INPUT', `${path} exists already`, {
    fix: 'Move it away, choose another folder with --out, or replace it with --force.',
  })
}

function summaryOf({ verdict, takenAt, watermark, sequences, findings }: Report): Manifest['verify'] {
  return { verdict, takenAt, watermark, sequences, findings }
}
