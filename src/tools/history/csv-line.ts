const COMMA = 0x2c
const DOT = 0x2e
const MINUS = 0x2d
const ZERO = 0x30
/** More cells than any file has: the rest of a longer line is only counted. */
const CELLS_MAX = 16

/** As in `fields.ts`: a longer integer is not exact, a longer decimal does not fit NUMERIC(20,8). */
const INTEGER_DIGITS = 16
const WHOLE_DIGITS = 12
const FRACTION_DIGITS = 8

/** What {@link CsvLine.integer} returns for anything else. */
const NO_INTEGER = -2

/** The cells of one line of a CSV file without quotes, read in place. */
export class CsvLine {
  readonly #ends = new Int32Array(CELLS_MAX)
  #bytes: Buffer = Buffer.alloc(0)
  #start = 0

  /** @returns the number of cells */
  read(bytes: Buffer, start: number, stop: number): number {
    this.#bytes = bytes
    this.#start = start
    const ends = this.#ends
    let count = 0
    for (let at = start; at < stop; at++) {
      if (bytes[at] !== COMMA) continue
      if (count < CELLS_MAX) ends[count] = at
      count++
    }
    if (count < CELLS_MAX) ends[count] = stop
    return count + 1
  }

  startOf(cell: number): number {
    return cell === 0 ? this.#start : this.endOf(cell - 1) + 1
  }

  endOf(cell: number): number {
    return this.#ends[cell] ?? 0
  }

  text(cell: number): string {
    return this.#bytes.toString('utf8', this.startOf(cell), this.endOf(cell))
  }

  /** @returns an exact integer from −1 on; {@link NO_INTEGER} for anything else */
  integer(cell: number): number {
    const bytes = this.#bytes
    const start = this.startOf(cell)
    const end = this.endOf(cell)
    if (end - start === 2 && bytes[start] === MINUS && bytes[start + 1] === ZERO + 1) return -1
    if (end === start || end - start > INTEGER_DIGITS) return NO_INTEGER
    let value = 0
    for (let at = start; at < end; at++) {
      const digit = (bytes[at] ?? 0) - ZERO
      if (digit < 0 || digit > 9) return NO_INTEGER
      value = value * 10 + digit
    }
    return value > Number.MAX_SAFE_INTEGER ? NO_INTEGER : value
  }

  isDecimal(cell: number): boolean {
    const end = this.endOf(cell)
    const start = this.startOf(cell)
    const dot = this.#digitsEnd(start, end)
    if (dot === start || dot - start > WHOLE_DIGITS) return false
    if (dot === end) return true
    if (this.#bytes[dot] !== DOT || end - dot - 1 > FRACTION_DIGITS) return false
    return dot + 1 < end && this.#digitsEnd(dot + 1, end) === end
  }

  /** @returns null if it is neither `True` nor `False`, in any case */
  flag(cell: number): boolean | null {
    const bytes = this.#bytes
    const start = this.startOf(cell)
    const length = this.endOf(cell) - start
    if (length === 4 && bytes.readUInt32BE(start) === TRUE) return true
    if (length === 5 && bytes.readUInt32BE(start) === FALS && bytes[start + 4] === LETTER_E) return false
    const text = this.text(cell).toLowerCase()
    return text === 'true' ? true : text === 'false' ? false : null
  }

  #digitsEnd(start: number, end: number): number {
    const bytes = this.#bytes
    let at = start
    for (; at < end; at++) {
      const digit = (bytes[at] ?? 0) - ZERO
      if (digit < 0 || digit > 9) break
    }
    return at
  }
}

const TRUE = Buffer.from('True').readUInt32BE()
const FALS = Buffer.from('Fals').readUInt32BE()
const LETTER_E = 0x65
