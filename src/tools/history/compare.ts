import { ABSENT } from '../../foundation/market/event-fields.ts'
import { type IdRange, normalise } from '../../foundation/market/id-ranges.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import { type Checksum, checksumOf, type DailyFile } from './daily-file.ts'
import { DailyRows, type Defect, LISTED_MAX } from './daily-rows.ts'
import { DamagedFileError } from './daily-zip.ts'
import type { HistoryRow, StoredRow } from './history-store.ts'
import { Portions } from './portions.ts'

/** A row that both sides have with different values. */
export interface Altered {
  readonly id: number
  readonly field: keyof HistoryRow
  readonly file: string
  readonly stored: string
}

/** The result for a file. Ids are ranges, both ends inclusive. */
export interface Comparison {
  readonly file: string
  readonly symbol: string
  readonly type: DailyFile['type']
  readonly date: string
  readonly checksum: Checksum
  /** Null if the file has no rows. */
  readonly unit: TimeUnit | null
  /** Rows of the file, and rows stored of its day. */
  readonly rows: number
  readonly stored: number
  /** The first {@link LISTED_MAX}. */
  readonly defects: readonly Defect[]
  readonly defectCount: number
  /** Ids between its first and last that the file does not have. */
  readonly missingInFile: readonly IdRange[]
  /** Ids of the file that are not stored, or only with a time of another day. */
  readonly notStored: readonly IdRange[]
  /** Stored ids of the day that the file does not have. */
  readonly notInFile: readonly IdRange[]
  /** The first {@link LISTED_MAX}. */
  readonly altered: readonly Altered[]
  readonly alteredCount: number
}

const FIELDS = ['price', 'quantity', 'isBuyerMaker', 'firstTradeId', 'lastTradeId'] as const

/**
 * Compares a daily file with the stored rows of its day, by id.
 *
 * @param unit of the stored times
 * @param stored ids ascending
 */
export async function compare(
  file: DailyFile,
  unit: TimeUnit,
  stored: AsyncIterable<readonly StoredRow[]>,
  onProgress: (rows: DailyRows) => void = () => {},
): Promise<Comparison> {
  const rows = new DailyRows(file)
  const checksum = await checksumOf(file)
  noteChecksum(rows, checksum)
  const found = new Differences()
  const others = new Portions(stored)
  try {
    let ours = await others.more()
    while (await rows.fill()) {
      onProgress(rows)
      while (rows.next()) {
        const { id } = rows.fields
        while (ours !== null && ours.id < id) {
          found.notInFile(ours)
          ours = others.next() ?? (await others.more())
        }
        if (ours?.id !== id) extend(found.notStored, id)
        while (ours?.id === id) {
          found.both(rows, ours, unit)
          ours = others.next() ?? (await others.more())
        }
      }
    }
    for (; ours !== null; ours = others.next() ?? (await others.more())) found.notInFile(ours)
  } catch (error) {
    if (!(error instanceof DamagedFileError)) throw error
    rows.note('file', error.message)
  } finally {
    await Promise.all([rows.close(), others.close()])
  }
  const { stored: storedRows, extra, notStored, altered, alteredCount } = found
  const { defects, defectCount, missing: missingInFile } = rows
  return {
    ...{ file: file.path, symbol: file.symbol, type: file.type, date: file.date },
    ...{ checksum, unit: rows.unit, rows: rows.rows, stored: storedRows },
    ...{ defects, defectCount, missingInFile, notStored, altered, alteredCount },
    notInFile: normalise(extra),
  }
}

/** Whether the file is whole and equals what is stored. */
export function isEqual({ defects, missingInFile, notStored, notInFile, altered }: Comparison): boolean {
  return [defects, missingInFile, notStored, notInFile, altered].every(({ length }) => length === 0)
}

export function noteChecksum(rows: DailyRows, checksum: Checksum): void {
  if (checksum === 'differs') rows.note('file', 'its SHA-256 differs from that of its .CHECKSUM')
}

/** Appends an id above all others to a list of ranges. */
export function extend(ranges: IdRange[], id: number): void {
  const last = ranges.at(-1)
  if (last !== undefined && last.to === id - 1) ranges[ranges.length - 1] = { from: last.from, to: id }
  else if (last === undefined || last.to < id) ranges.push({ from: id, to: id })
}

class Differences {
  stored = 0
  readonly notStored: IdRange[] = []
  /** Stored, not in the file. */
  readonly extra: IdRange[] = []
  readonly altered: Altered[] = []
  alteredCount = 0

  notInFile({ id }: StoredRow): void {
    this.stored++
    extend(this.extra, id)
  }

  both(rows: DailyRows, stored: StoredRow, unit: TimeUnit): void {
    this.stored++
    const file = historyRow(rows)
    for (const field of FIELDS) if (file[field] !== stored[field]) this.#add(field, file, stored)
    // A time of an imported row may be that of a file in milliseconds.
    const isImported = stored.source === 'archive' && stored.timeUs % 1000 === 0
    const isCoarse = rows.unit === 'millisecond' || unit === 'millisecond' || isImported
    const [theirs, ours] = [file, stored].map(({ timeUs }) => (isCoarse ? Math.floor(timeUs / 1000) : timeUs))
    if (theirs !== ours) this.#add('timeUs', file, stored)
  }

  #add(field: keyof HistoryRow, file: HistoryRow, stored: HistoryRow): void {
    this.alteredCount++
    if (this.altered.length < LISTED_MAX)
      this.altered.push({ id: file.id, field, file: String(file[field]), stored: String(stored[field]) })
  }
}

function historyRow({ fields }: DailyRows): HistoryRow {
  const { id, price, quantity, tradeTimeUs, isBuyerMaker, firstTradeId, lastTradeId } = fields
  return {
    ...{ id, timeUs: tradeTimeUs, isBuyerMaker },
    price: eightDecimals(price),
    quantity: eightDecimals(quantity),
    firstTradeId: firstTradeId === ABSENT ? null : firstTradeId,
    lastTradeId: lastTradeId === ABSENT ? null : lastTradeId,
  }
}

function eightDecimals(text: string): string {
  const dot = text.indexOf('.')
  return dot < 0 ? `${text}.00000000` : text.padEnd(dot + 9, '0')
}
