import { type IdRange, normalise } from '../../foundation/market/id-ranges.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import { checksumOf, type DailyFile, DamagedFileError } from './daily-file.ts'
import { DailyRows, type Defect, type HistoryRow } from './daily-rows.ts'

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
  readonly checksum: 'matches' | 'differs' | 'absent'
  /** Null if the file has no rows. */
  readonly unit: TimeUnit | null
  /** Rows of the file, and rows stored of its day. */
  readonly rows: number
  readonly stored: number
  readonly defects: readonly Defect[]
  /** Ids between its first and last that the file does not have. */
  readonly missingInFile: readonly IdRange[]
  /** Ids of the file that are not stored, or only with a time of another day. */
  readonly notStored: readonly IdRange[]
  /** Stored ids of the day that the file does not have. */
  readonly notInFile: readonly IdRange[]
  readonly altered: readonly Altered[]
}

const FIELDS = ['price', 'quantity', 'isBuyerMaker', 'firstTradeId', 'lastTradeId'] as const

/** Compares a daily file with the stored rows of its day, by id. */
export async function compare(file: DailyFile, stored: AsyncIterator<HistoryRow>): Promise<Comparison> {
  const rows = new DailyRows(file)
  const checksum = await checksumOf(file)
  const result = {
    stored: 0,
    notStored: [] as IdRange[],
    notInFile: [] as IdRange[],
    altered: [] as Altered[],
  }
  const defects: Defect[] = []
  if (checksum === 'differs')
    defects.push({ line: null, what: 'its SHA-256 differs from that of its .CHECKSUM' })
  const nextStored = async () => {
    const { done, value } = await stored.next()
    if (done === true) return null
    result.stored++
    return value
  }
  try {
    let ours = await nextStored()
    for await (const theirs of rows.read()) {
      for (; ours !== null && ours.id < theirs.id; ours = await nextStored())
        extend(result.notInFile, ours.id)
      if (ours?.id !== theirs.id) {
        extend(result.notStored, theirs.id)
        continue
      }
      for (; ours?.id === theirs.id; ours = await nextStored())
        result.altered.push(...difference(theirs, ours, rows.unit))
    }
    for (; ours !== null; ours = await nextStored()) extend(result.notInFile, ours.id)
  } catch (error) {
    if (!(error instanceof DamagedFileError)) throw error
    defects.push({ line: null, what: error.message })
  }
  return {
    ...{ file: file.path, symbol: file.symbol, type: file.type, date: file.date },
    checksum,
    unit: rows.unit,
    rows: rows.rows,
    ...result,
    defects: [...defects, ...rows.defects],
    missingInFile: rows.missing,
    notInFile: normalise(result.notInFile),
  }
}

/** Whether the file is whole and equals what is stored. */
export function isEqual({ defects, missingInFile, notStored, notInFile, altered }: Comparison): boolean {
  return [defects, missingInFile, notStored, notInFile, altered].every(({ length }) => length === 0)
}

/** Appends an id above all others to a list of ranges. */
function extend(ranges: IdRange[], id: number): void {
  const last = ranges.at(-1)
  if (last !== undefined && last.to === id - 1) ranges[ranges.length - 1] = { from: last.from, to: id }
  else if (last === undefined || last.to < id) ranges.push({ from: id, to: id })
}

/** Compares times in the coarser unit: a stored time may have been received in milliseconds. */
function difference(file: HistoryRow, stored: HistoryRow, unit: TimeUnit | null): Altered[] {
  const found = FIELDS.filter((field) => file[field] !== stored[field]).map(
    (field): Altered => ({ id: file.id, field, file: String(file[field]), stored: String(stored[field]) }),
  )
  const isCoarse = unit === 'millisecond' || stored.timeUs % 1000 === 0
  const [theirs, ours] = [file, stored].map(({ timeUs }) => (isCoarse ? Math.floor(timeUs / 1000) : timeUs))
  if (theirs !== ours) {
    found.push({ id: file.id, field: 'timeUs', file: String(file.timeUs), stored: String(stored.timeUs) })
  }
  return found
}
