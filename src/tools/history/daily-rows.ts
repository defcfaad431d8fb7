import { EventFields } from '../../foundation/market/event-fields.ts'
import { FIRST_TIME_US, LAST_TIME_US } from '../../foundation/market/fields.ts'
import type { IdRange } from '../../foundation/market/id-ranges.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import { CsvLine } from './csv-line.ts'
import type { DailyFile } from './daily-file.ts'
import { type CsvFacts, contentOf, DamagedFileError } from './daily-zip.ts'

/**
 * The faults of a file, apart from the stored rows.
 *
 * - `file`: it cannot be trusted as a whole: damaged, another checksum, no rows.
 * - `unit`: its times are not in the unit of files of its day.
 * - `line`: a line that is no trade of this file.
 * - `repeated`: a line that is there twice.
 * - `second`: another row under the id of the row before, as some of the exchange's aggregates have.
 */
export type DefectKind = 'file' | 'unit' | 'line' | 'repeated' | 'second'

export interface Defect {
  readonly kind: DefectKind
  /** From 1; null if it concerns the whole file. */
  readonly line: number | null
  readonly what: string
}

/** Defects beyond these are only counted: a file may have millions of lines. */
export const LISTED_MAX = 100_000

export interface RowMark {
  readonly id: number
  readonly timeUs: number
}

/** From this day on the exchange's files have times in microseconds, before it in milliseconds. */
const MICROSECONDS_SINCE = '2025-01-01'
const DAY_US = 86_400_000_000
const LINE_MAX_BYTES = 4096
const LINE_END = 0x0a
const RETURN = 0x0d
const NO_BYTES = Buffer.alloc(0)

/** Columns: id, price, quantity, [quote quantity | first and last trade id], time, buyer was maker, best match. */
const LAYOUTS = {
  trade: { columns: 7, time: 4, hasTiles: false },
  aggTrade: { columns: 8, time: 5, hasTiles: true },
} as const

/**
 * Reads the rows of a daily file, and collects what is wrong with it. No object is made for a row:
 * a day of a busy symbol has millions.
 *
 *     while (await rows.fill()) while (rows.next()) use(rows.fields)
 */
export class DailyRows {
  /** The current row, until the next call of a method. Its decimals have the file's digits. */
  readonly fields = new EventFields()
  /** The exchange's `M` of the current row. */
  isBestMatch = false
  readonly defects: Defect[] = []
  defectCount = 0
  readonly kinds = new Set<DefectKind>()
  /** Ids between the first and the last that the file does not have. */
  readonly missing: IdRange[] = []
  /** Null before the first row. */
  unit: TimeUnit | null = null
  rows = 0
  /** Id and time of the first row; null before it. */
  first: RowMark | null = null
  /** Null before the first piece was read. */
  facts: CsvFacts | null = null
  readonly #file: DailyFile
  readonly #layout: (typeof LAYOUTS)[DailyFile['type']]
  readonly #pieces: AsyncGenerator<Buffer, void, undefined>
  readonly #startUs: number
  readonly #cells = new CsvLine()
  #bytes = NO_BYTES
  #at = 0
  #read = 0
  #line = 0
  #isEnd = false
  #isFinished = false
  #lastId = -1
  #lastTimeUs = 0
  /** The line of the last row, which a repeated one equals: a part of the piece, or a copy of it. */
  #lastStart = 0
  #lastStop = 0
  #lastLine = NO_BYTES

  constructor(file: DailyFile) {
    this.#file = file
    this.#layout = LAYOUTS[file.type]
    this.#startUs = Date.parse(`${file.date}T00:00:00Z`) * 1000
    const { fields } = this
    fields.begin(file.type, 'microsecond')
    fields.symbol = { text: file.symbol, bytes: Buffer.from(file.symbol) }
    fields.source = 'archive'
    this.#pieces = contentOf(file, (facts) => {
      this.facts = facts
    })
  }

  /** Id and time of the last row; null before it. */
  get last(): RowMark | null {
    return this.#lastId < 0 ? null : { id: this.#lastId, timeUs: this.#lastTimeUs }
  }

  /** Share of the file that was read, from 0 to 1. */
  get share(): number {
    return this.facts === null || this.facts.bytes === 0 ? 0 : this.#read / this.facts.bytes
  }

  /**
   * Reads the next piece of the file.
   *
   * @returns false at its end
   * @throws DamagedFileError; TapelineError `INPUT` if the file cannot be read
   */
  async fill(): Promise<boolean> {
    if (this.#isEnd) return this.#finish()
    const { done, value } = await this.#pieces.next()
    this.#read += value?.length ?? 0
    const rest = this.#bytes.subarray(this.#at)
    if (rest.length > LINE_MAX_BYTES)
      throw new DamagedFileError(`line ${this.#line + 1} is longer than ${LINE_MAX_BYTES} bytes`)
    if (this.#lastStop > 0)
      this.#lastLine = Buffer.from(this.#bytes.subarray(this.#lastStart, this.#lastStop))
    this.#lastStop = 0
    this.#at = 0
    this.#isEnd = done === true
    // The last line need not end.
    this.#bytes = Buffer.concat([rest, value ?? Buffer.of(LINE_END)])
    return true
  }

  /** Stops reading before the end. */
  async close(): Promise<void> {
    await this.#pieces.return()
  }

  /** Reads the next valid row: ids ascend, and each comes once. @returns false if the piece has no more */
  next(): boolean {
    for (;;) {
      const end = this.#bytes.indexOf(LINE_END, this.#at)
      if (end < 0) return false
      const start = this.#at
      this.#at = end + 1
      this.#line++
      const stop = end > start && this.#bytes[end - 1] === RETURN ? end - 1 : end
      if (stop === start || (this.#line === 1 && this.#isHeader(start))) continue
      if (this.#parse(start, stop) && this.#follows(start, stop)) return true
    }
  }

  /** Notes a defect of the whole file. */
  note(kind: DefectKind, what: string): void {
    this.#add({ kind, line: null, what })
  }

  #isHeader(start: number): boolean {
    const letter = (this.#bytes[start] ?? 0) | 0x20
    return letter >= 0x61 && letter <= 0x7a
  }

  #refuse(what: string): false {
    this.#add({ kind: 'line', line: this.#line, what })
    return false
  }

  #add(defect: Defect): void {
    this.defectCount++
    this.kinds.add(defect.kind)
    if (this.defects.length < LISTED_MAX) this.defects.push(defect)
  }

  /** Whether the row comes after the last one. */
  #follows(start: number, stop: number): boolean {
    const { id, tradeTimeUs: timeUs } = this.fields
    this.rows++
    const last = this.#lastId
    if (id === last) {
      const lastLine =
        this.#lastStop > 0 ? this.#bytes.subarray(this.#lastStart, this.#lastStop) : this.#lastLine
      const isSame = this.#bytes.subarray(start, stop).equals(lastLine)
      const what = `id ${id} ${isSame ? 'is repeated' : 'has two different rows'}`
      this.#add({ kind: isSame ? 'repeated' : 'second', line: this.#line, what })
      return false
    }
    if (id < last) return this.#refuse(`id ${id} follows ${last}`)
    if (last >= 0 && id > last + 1) this.missing.push({ from: last + 1, to: id - 1 })
    this.#lastId = id
    this.#lastTimeUs = timeUs
    this.#lastStart = start
    this.#lastStop = stop
    this.first ??= { id, timeUs }
    return true
  }

  #parse(start: number, stop: number): boolean {
    const { fields } = this
    const cells = this.#cells
    const { columns, time, hasTiles } = this.#layout
    const count = cells.read(this.#bytes, start, stop)
    if (count !== columns) return this.#refuse(`it has ${count} fields instead of ${columns}`)
    fields.bytes = this.#bytes
    fields.id = cells.integer(0)
    if (fields.id < 0) return this.#refuse(`${cells.text(0)} is no id`)
    for (const cell of [1, 2])
      if (!cells.isDecimal(cell))
        return this.#refuse(`${cells.text(cell)} is no decimal that a column can store`)
    fields.priceStart = cells.startOf(1)
    fields.priceEnd = cells.endOf(1)
    fields.quantityStart = cells.startOf(2)
    fields.quantityEnd = cells.endOf(2)
    if (!this.#readTime(cells.integer(time)))
      return this.#refuse(`${cells.text(time)} is no time in milliseconds or microseconds`)
    const sinceStartUs = fields.tradeTimeUs - this.#startUs
    if (sinceStartUs < 0 || sinceStartUs >= DAY_US) return this.#refuse(`id ${fields.id} is of another day`)
    const [isBuyerMaker, isBestMatch] = [cells.flag(time + 1), cells.flag(time + 2)]
    if (isBuyerMaker === null) return this.#refuse(`${cells.text(time + 1)} is neither True nor False`)
    if (isBestMatch === null) return this.#refuse(`${cells.text(time + 2)} is neither True nor False`)
    fields.isBuyerMaker = isBuyerMaker
    this.isBestMatch = isBestMatch
    return !hasTiles || this.#readTiles()
  }

  /** Reads the trade ids of an aggregate; both are −1 in one that the exchange has invalidated. */
  #readTiles(): boolean {
    const cells = this.#cells
    const [first, last] = [cells.integer(3), cells.integer(4)]
    if (first < -1 || last < first || first < 0 !== last < 0)
      return this.#refuse(`${cells.text(3)} to ${cells.text(4)} are no trade ids`)
    this.fields.firstTradeId = first
    this.fields.lastTradeId = last
    return true
  }

  /** @returns false if it is no time, or not in the unit of the rows before */
  #readTime(value: number): boolean {
    const unit = isTimeUs(value) ? 'microsecond' : isTimeUs(value * 1000) ? 'millisecond' : null
    if (unit === null || (this.unit !== null && unit !== this.unit)) return false
    this.unit = unit
    this.fields.timeUnit = unit
    this.fields.tradeTimeUs = unit === 'microsecond' ? value : value * 1000
    return true
  }

  #finish(): false {
    if (this.#isFinished) return false
    this.#isFinished = true
    const expected = this.#file.date >= MICROSECONDS_SINCE ? 'microsecond' : 'millisecond'
    if (this.unit === null) this.note('file', 'it has no rows')
    else if (this.unit !== expected)
      this.note('unit', `its times are ${this.unit}s; files of this day have ${expected}s`)
    return false
  }
}

function isTimeUs(value: number): boolean {
  return value >= FIRST_TIME_US && value < LAST_TIME_US
}
