import { EPOCH_US } from '../store/copy-rows.ts'
import {
  CHUNK_ROWS,
  type ColumnValues,
  emptyChunk,
  INLINE_BYTES,
  type RowChunk,
  writeInteger,
  writeNull,
} from './row-chunk.ts'
import type { ArchiveColumn } from './tables.ts'

/** Signature and flags; the length of the header's extension follows. */
const SIGNATURE_BYTES = 15
const END = -1
const NULL = -1
const TWO_TO_32 = 2 ** 32
const GROUP = 10_000
const NEGATIVE = 0x4000
/** In the base-10,000 digits of a `numeric`: those of eight decimals. */
const SCALE_GROUPS = 2
/** With a first digit below this at the weight 1, a decimal in units of its eighth place is a safe integer. */
const SAFE_FIRST = 9000

/** Where a row is: its time in microseconds, and its id. */
export interface CopiedPlace {
  readonly timeUs: bigint
  readonly id: bigint
}

/**
 * Reads rows that PostgreSQL copies in its binary format (see `copy-rows.ts`) into columns that
 * DuckDB takes. There is no object per row.
 */
export class CopiedRows {
  readonly #columns: readonly ArchiveColumn[]
  readonly #idColumn: number
  readonly #onFull: (chunk: RowChunk) => void
  #open: RowChunk | null = null
  /** The beginning of a row whose end has not come yet. */
  #rest: Buffer = Buffer.alloc(0)
  #hasHead = false
  #last: CopiedPlace | null = null
  rows = 0

  /**
   * @param columns those of the statement, in its order; the first is the time
   * @param idColumn the name of the column with the id
   * @param onFull takes each chunk; the last one comes from {@link flush}
   */
  constructor(columns: readonly ArchiveColumn[], idColumn: string, onFull: (chunk: RowChunk) => void) {
    this.#columns = columns
    this.#idColumn = columns.findIndex(({ name }) => name === idColumn)
    this.#onFull = onFull
  }

  /** The last row that was read; null if there is none. */
  get last(): CopiedPlace | null {
    const chunk = this.#open
    return chunk === null ? this.#last : this.#placeIn(chunk)
  }

  /** Begins with the bytes of another statement. */
  restart(): void {
    this.#hasHead = false
    this.#rest = Buffer.alloc(0)
  }

  /** Reads the next bytes of a statement. @throws RangeError for a value that the columns cannot have */
  add(bytes: Buffer): void {
    const all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    const view = new DataView(all.buffer, all.byteOffset, all.length)
    let at = this.#hasHead ? 0 : headBytes(view)
    if (at > all.length) {
      this.#rest = all
      return
    }
    this.#hasHead = true
    for (let end = endOfRow(view, at); end !== null; end = endOfRow(view, at)) {
      if (end > at + 2) this.#addRow(all, view, at + 2)
      at = end
    }
    this.#rest = all.subarray(at)
  }

  /** Hands over the rows that do not fill a chunk. */
  flush(): void {
    if (this.#open === null) return
    this.#last = this.#placeIn(this.#open)
    this.#onFull(this.#open)
    this.#open = null
  }

  #placeIn({ rows, columns }: RowChunk): CopiedPlace {
    const valueAt = (column: number) => columns[column]?.view.getBigInt64((rows - 1) * 8, true) ?? 0n
    return { timeUs: valueAt(0), id: valueAt(this.#idColumn) }
  }

  #addRow(bytes: Buffer, view: DataView, start: number): void {
    this.#open ??= emptyChunk(this.#columns)
    const chunk = this.#open
    const row = chunk.rows
    let at = start
    for (let i = 0; i < chunk.columns.length; i++) {
      const values = chunk.columns[i] as ColumnValues
      const length = view.getInt32(at)
      at += 4
      if (length === NULL) {
        if (values.validity === null) throw new RangeError(`${values.column.name} is null`)
        writeNull(values, row)
        continue
      }
      switch (values.column.kind) {
        case 'time': {
          const us = view.getInt32(at) * TWO_TO_32 + view.getUint32(at + 4) + EPOCH_US
          if (!Number.isSafeInteger(us)) throw new RangeError(`${values.column.name} is not a time`)
          writeInteger(values, row, us)
          break
        }
        case 'id':
          values.view.setUint32(row * 8, view.getUint32(at + 4), true)
          values.view.setInt32(row * 8 + 4, view.getInt32(at), true)
          break
        case 'number':
          values.view.setInt32(row * 4, view.getInt32(at), true)
          break
        case 'decimal':
          readDecimal(values, row, view, at)
          break
        case 'flag':
          values.bytes[row] = bytes[at] ?? 0
          break
        case 'word':
          if (length > INLINE_BYTES) values.longTexts.push({ row, bytes: bytes.subarray(at, at + length) })
          else {
            values.view.setUint32(row * 16, length, true)
            for (let b = 0; b < length; b++) values.bytes[row * 16 + 4 + b] = bytes[at + b] ?? 0
          }
          break
      }
      at += length
    }
    chunk.rows++
    this.rows++
    if (chunk.rows === CHUNK_ROWS) this.flush()
  }
}

/** Returns the length of the header; more than there is if it is not complete. */
function headBytes(view: DataView): number {
  const withLength = SIGNATURE_BYTES + 4
  return view.byteLength < withLength ? withLength : withLength + view.getUint32(SIGNATURE_BYTES)
}

/** Returns where the row or the mark of the end ends; null if its end is not there yet. */
function endOfRow(view: DataView, start: number): number | null {
  if (start + 2 > view.byteLength) return null
  const fields = view.getInt16(start)
  let at = start + 2
  if (fields === END) return at
  for (let i = 0; i < fields; i++) {
    if (at + 4 > view.byteLength) return null
    at += 4 + Math.max(0, view.getInt32(at))
  }
  return at > view.byteLength ? null : at
}

/** Reads a `numeric` with at most eight decimals, in units of the eighth. @throws RangeError for another */
function readDecimal({ column, view: to }: ColumnValues, row: number, from: DataView, at: number): void {
  const digits = from.getInt16(at)
  const weight = from.getInt16(at + 2)
  const sign = from.getUint16(at + 4)
  const digitAt = (i: number) => (i < digits ? from.getInt16(at + 8 + i * 2) : 0)
  const groups = weight + 1 + SCALE_GROUPS
  if (digits > Math.max(0, groups) || (sign !== 0 && sign !== NEGATIVE))
    throw new RangeError(`${column.name} is no decimal with eight places`)
  const first = digitAt(0)
  const low = row * 16
  if (sign === 0 && (weight < 1 || (weight === 1 && first < SAFE_FIRST))) {
    let value = 0
    for (let i = 0; i < groups; i++) value = value * GROUP + digitAt(i)
    const high = Math.floor(value / TWO_TO_32)
    to.setUint32(low, value - high * TWO_TO_32, true)
    to.setUint32(low + 4, high, true)
    return
  }
  let value = 0n
  for (let i = 0; i < groups; i++) value = value * BigInt(GROUP) + BigInt(digitAt(i))
  if (sign === NEGATIVE) value = -value
  to.setBigUint64(low, BigInt.asUintN(64, value), true)
  to.setBigInt64(low + 8, value >> 64n, true)
}
