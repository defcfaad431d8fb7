import { FIRST_TIME_US, isDecimal, LAST_TIME_US } from '../../foundation/market/fields.ts'
import type { IdRange } from '../../foundation/market/id-ranges.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import { type DailyFile, linesOf } from './daily-file.ts'

/** A trade of either side, with the digits that a table would have. */
export interface HistoryRow {
  readonly id: number
  /** Eight decimals. */
  readonly price: string
  readonly quantity: string
  /** Microseconds; a time in milliseconds ends in 000. */
  readonly timeUs: number
  readonly isBuyerMaker: boolean
  /** aggTrades only; null in one that the exchange has invalidated. */
  readonly firstTradeId: number | null
  readonly lastTradeId: number | null
}

/** A fault of a file, apart from the stored rows. */
export interface Defect {
  /** From 1; null if it concerns the whole file. */
  readonly line: number | null
  readonly what: string
}

/** From this day on the exchange's files have times in microseconds, before it in milliseconds. */
const MICROSECONDS_SINCE = '2025-01-01'
const DAY_US = 86_400_000_000

/** Columns: id, price, quantity, [quote quantity | first and last trade id], time, buyer was maker, best match. */
const LAYOUTS = {
  trade: { fields: 7, time: 4, isBuyerMaker: 5 },
  aggTrade: { fields: 8, time: 5, isBuyerMaker: 6 },
} as const

/** Reads the rows of a daily file, and collects what is wrong with it. */
export class DailyRows {
  readonly #file: DailyFile
  readonly #startUs: number
  readonly defects: Defect[] = []
  /** Ids between the first and the last that the file does not have. */
  readonly missing: IdRange[] = []
  /** The unit of its times; null before the first row. */
  unit: TimeUnit | null = null
  rows = 0

  constructor(file: DailyFile) {
    this.#file = file
    this.#startUs = Date.parse(`${file.date}T00:00:00Z`) * 1000
  }

  /**
   * Yields valid rows, ids ascending, each id once.
   *
   * @throws DamagedFileError
   */
  async *read(): AsyncGenerator<HistoryRow> {
    let line = 0
    let last: { readonly row: HistoryRow; readonly text: string } | null = null
    for await (const text of linesOf(this.#file)) {
      line++
      // A header names the columns.
      if (text === '' || (line === 1 && /^[a-z]/i.test(text))) continue
      const row = this.#parse(text, line)
      if (row === null) continue
      this.rows++
      if (last !== null && row.id === last.row.id) {
        const what = text === last.text ? 'is repeated' : 'has two different rows'
        this.defects.push({ line, what: `id ${row.id} ${what}` })
        continue
      }
      if (last !== null && row.id < last.row.id) {
        this.defects.push({ line, what: `id ${row.id} follows ${last.row.id}` })
        continue
      }
      if (last !== null && row.id > last.row.id + 1)
        this.missing.push({ from: last.row.id + 1, to: row.id - 1 })
      last = { row, text }
      yield row
    }
    this.#checkUnit()
  }

  #parse(text: string, line: number): HistoryRow | null {
    const fields = text.split(',')
    const { type } = this.#file
    const layout = LAYOUTS[type]
    const refuse = (what: string) => {
      this.defects.push({ line, what })
      return null
    }
    if (fields.length !== layout.fields)
      return refuse(`it has ${fields.length} fields instead of ${layout.fields}`)
    const [idText = '', price = '', quantity = ''] = fields
    const id = integer(idText)
    if (id === null || id < 0) return refuse(`${idText} is no id`)
    for (const text of [price, quantity])
      if (!isDecimal(text)) return refuse(`${text} is no decimal that a column can store`)
    const timeUs = this.#time(fields[layout.time] ?? '')
    if (timeUs === null) return refuse(`${fields[layout.time]} is no time in milliseconds or microseconds`)
    if (timeUs < this.#startUs || timeUs >= this.#startUs + DAY_US)
      return refuse(`id ${id} is of another day`)
    const flag = fields[layout.isBuyerMaker]?.toLowerCase()
    if (flag !== 'true' && flag !== 'false')
      return refuse(`${fields[layout.isBuyerMaker]} is neither True nor False`)
    const [first, end] = type === 'aggTrade' ? [integer(fields[3]), integer(fields[4])] : [null, null]
    if (type === 'aggTrade' && (first === null || end === null || first > end))
      return refuse(`${fields[3]} to ${fields[4]} are no trade ids`)
    const isInvalidated = first !== null && first < 0
    return {
      id,
      price: eightDecimals(price),
      quantity: eightDecimals(quantity),
      timeUs,
      isBuyerMaker: flag === 'true',
      firstTradeId: isInvalidated ? null : first,
      lastTradeId: isInvalidated ? null : end,
    }
  }

  /** @returns microseconds; null if it is no time, or not in the unit of the rows before */
  #time(text: string): number | null {
    const value = integer(text)
    if (value === null) return null
    const unit = isTimeUs(value) ? 'microsecond' : isTimeUs(value * 1000) ? 'millisecond' : null
    if (unit === null || (this.unit !== null && unit !== this.unit)) return null
    this.unit = unit
    return unit === 'microsecond' ? value : value * 1000
  }

  #checkUnit(): void {
    const expected = this.#file.date >= MICROSECONDS_SINCE ? 'microsecond' : 'millisecond'
    if (this.unit === null) this.defects.push({ line: null, what: 'it has no rows' })
    else if (this.unit !== expected)
      this.defects.push({
        line: null,
        what: `its times are ${this.unit}s; files of this day have ${expected}s`,
      })
  }
}

function isTimeUs(value: number): boolean {
  return value >= FIRST_TIME_US && value < LAST_TIME_US
}

function integer(text: string | undefined): number | null {
  if (text === undefined || !/^(-1|\d{1,16})$/.test(text)) return null
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : null
}

function eightDecimals(text: string): string {
  const [whole = '', fraction = ''] = text.split('.')
  return `${whole}.${fraction.padEnd(8, '0')}`
}
