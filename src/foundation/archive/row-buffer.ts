import { ABSENT, EVENT_SOURCES, type EventFields } from '../market/event-fields.ts'
import { type ArchiveColumn, type ArchiveTable, COLUMN_KINDS, OFFSET_COLUMN } from './tables.ts'

/** Rows of one chunk: the most that a DuckDB data chunk takes. */
export const CHUNK_ROWS = 2048

/** The longest text that a `duckdb_string_t` holds itself (duckdb.h); longer ones need a pointer. */
export const INLINE_BYTES = 12

const DAY_US = 86_400_000_000
const TWO_TO_32 = 2 ** 32
const SCALE = 10 ** 8
const SCALE_DIGITS = 8
/** Below this, a decimal in units of its eighth place is a safe integer. */
const SAFE_WHOLE = 90_000_000

const ZERO = 0x30
const DOT = 0x2e
const SOURCES = new Map(EVENT_SOURCES.map((source) => [source, inlineText(Buffer.from(source))]))
const NO_TEXT = new Uint8Array(16)

/** Values of a column, as DuckDB has them in a vector (little-endian). */
export interface ColumnValues {
  readonly column: ArchiveColumn
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly view: DataView
  /** One bit per row, set if the value is not null; null if the column has no nulls. */
  readonly validity: Uint8Array<ArrayBuffer> | null
}

/** At most {@link CHUNK_ROWS} rows. */
export interface RowChunk {
  rows: number
  readonly columns: readonly ColumnValues[]
  /** Texts that are too long for their value, by column and row. */
  readonly longTexts: Array<{ readonly column: number; readonly row: number; readonly bytes: Uint8Array }>
}

/** Returns a chunk without rows. Its values are zero, and not null. */
export function emptyChunk(columns: readonly ArchiveColumn[]): RowChunk {
  const values = columns.map((column): ColumnValues => {
    const bytes = new Uint8Array(COLUMN_KINDS[column.kind].bytes * CHUNK_ROWS)
    const validity = column.isNullable ? new Uint8Array(CHUNK_ROWS / 8).fill(0xff) : null
    return { column, bytes, view: new DataView(bytes.buffer), validity }
  })
  return { rows: 0, columns: values, longTexts: [] }
}

/**
 * Rows of one table, as columns that DuckDB takes without conversion. Rows are added in the order of
 * their offsets. Nothing of the event is kept.
 */
export class RowBuffer {
  readonly table: ArchiveTable
  readonly chunks: RowChunk[] = []
  /** Rows by UTC day, as days since the Unix epoch. */
  readonly days = new Map<number, number>()
  readonly #columns: readonly ArchiveColumn[]
  readonly #chunkBytes: number
  /** The 16 bytes of a symbol's text; null if it is too long. */
  readonly #symbols = new WeakMap<object, Uint8Array | null>()
  #open: RowChunk | null = null
  #textBytes = 0
  rows = 0

  constructor(table: ArchiveTable) {
    this.table = table
    this.#columns = [...table.columns, OFFSET_COLUMN]
    this.#chunkBytes = this.#columns.reduce((sum, { kind }) => sum + COLUMN_KINDS[kind].bytes * CHUNK_ROWS, 0)
  }

  /** Bytes of memory. */
  get bytes(): number {
    return this.chunks.length * this.#chunkBytes + this.#textBytes
  }

  /** @param offset of the event's message */
  add(event: EventFields, offset: number): void {
    const chunk = this.#open ?? this.#begin()
    const row = chunk.rows++
    let timeUs = 0
    for (let i = 0; i < chunk.columns.length; i++) {
      const values = chunk.columns[i] as ColumnValues
      switch (values.column.name) {
        case 'trade_time':
          timeUs = event.tradeTimeUs
          writeBigint(values, row, timeUs)
          break
        case 'event_time':
          writeOptional(values, row, event.eventTimeUs)
          break
        case 'ingestion_timestamp':
          if (i === 0) timeUs = event.receivedUs
          writeBigint(values, row, event.receivedUs)
          break
        case 'symbol':
          this.#writeSymbol(chunk, i, row, event.symbol)
          break
        case 'epoch':
          values.view.setInt32(row * 4, event.epoch, true)
          break
        case 'trade_id':
        case 'update_id':
          writeBigint(values, row, event.id)
          break
        case 'price':
        case 'bid_price':
          writeDecimal(values, row, event.bytes, event.priceStart, event.priceEnd)
          break
        case 'quantity':
        case 'bid_quantity':
          writeDecimal(values, row, event.bytes, event.quantityStart, event.quantityEnd)
          break
        case 'ask_price':
          writeDecimal(values, row, event.bytes, event.askPriceStart, event.askPriceEnd)
          break
        case 'ask_quantity':
          writeDecimal(values, row, event.bytes, event.askQuantityStart, event.askQuantityEnd)
          break
        case 'first_trade_id':
          writeOptional(values, row, event.firstTradeId)
          break
        case 'last_trade_id':
          writeOptional(values, row, event.lastTradeId)
          break
        case 'is_buyer_maker':
          values.bytes[row] = event.isBuyerMaker ? 1 : 0
          break
        case 'source':
          values.bytes.set(SOURCES.get(event.source) ?? NO_TEXT, row * 16)
          break
        case OFFSET_COLUMN.name:
          writeBigint(values, row, offset)
          break
        default:
          throw new Error(`No field for the column ${values.column.name}`)
      }
    }
    this.#added(chunk, timeUs)
  }

  /** Adds a row of a table of texts. */
  addText(timeUs: number, text: string, offset: number): void {
    const chunk = this.#open ?? this.#begin()
    const row = chunk.rows++
    const [time, , at] = chunk.columns
    if (time === undefined || at === undefined) throw new Error(`${this.table.name} is no table of texts`)
    const bytes = Buffer.from(text)
    writeBigint(time, row, timeUs)
    chunk.longTexts.push({ column: 1, row, bytes })
    writeBigint(at, row, offset)
    this.#textBytes += bytes.length
    this.#added(chunk, timeUs)
  }

  #added(chunk: RowChunk, timeUs: number): void {
    this.rows++
    if (chunk.rows === CHUNK_ROWS) this.#open = null
    const day = Math.floor(timeUs / DAY_US)
    this.days.set(day, (this.days.get(day) ?? 0) + 1)
  }

  #begin(): RowChunk {
    const chunk = emptyChunk(this.#columns)
    this.chunks.push(chunk)
    this.#open = chunk
    return chunk
  }

  #writeSymbol(chunk: RowChunk, column: number, row: number, symbol: EventFields['symbol']): void {
    let text = this.#symbols.get(symbol)
    if (text === undefined) {
      text = symbol.bytes.length > INLINE_BYTES ? null : inlineText(symbol.bytes)
      this.#symbols.set(symbol, text)
    }
    if (text === null) chunk.longTexts.push({ column, row, bytes: symbol.bytes })
    else chunk.columns[column]?.bytes.set(text, row * 16)
  }
}

/** Returns a `duckdb_string_t`: the length, and the text itself. */
function inlineText(text: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16)
  new DataView(bytes.buffer).setUint32(0, text.length, true)
  bytes.set(text, 4)
  return bytes
}

/** @param value a safe integer */
export function writeBigint({ view }: ColumnValues, row: number, value: number): void {
  const high = Math.floor(value / TWO_TO_32)
  view.setUint32(row * 8, value - high * TWO_TO_32, true)
  view.setInt32(row * 8 + 4, high, true)
}

function writeOptional(values: ColumnValues, row: number, value: number): void {
  if (value !== ABSENT) writeBigint(values, row, value)
  else writeNull(values, row)
}

/** Does nothing where a column has no nulls. */
export function writeNull({ validity }: ColumnValues, row: number): void {
  if (validity !== null) validity[row >> 3] = (validity[row >> 3] ?? 0) & ~(1 << (row & 7))
}

/** Writes a decimal of at most 12 digits before the point and 8 after it, in units of the eighth place. */
function writeDecimal({ view }: ColumnValues, row: number, text: Buffer, start: number, end: number): void {
  let at = start
  let whole = 0
  for (; at < end; at++) {
    const byte = text[at] ?? 0
    if (byte === DOT) break
    whole = whole * 10 + byte - ZERO
  }
  let fraction = 0
  const digits = Math.max(0, end - at - 1)
  for (at++; at < end; at++) fraction = fraction * 10 + (text[at] ?? 0) - ZERO
  for (let i = digits; i < SCALE_DIGITS; i++) fraction *= 10
  const to = row * 16
  if (whole >= SAFE_WHOLE) {
    const value = BigInt(whole) * BigInt(SCALE) + BigInt(fraction)
    view.setBigUint64(to, BigInt.asUintN(64, value), true)
    view.setBigUint64(to + 8, value >> 64n, true)
    return
  }
  const value = whole * SCALE + fraction
  const high = Math.floor(value / TWO_TO_32)
  view.setUint32(to, value - high * TWO_TO_32, true)
  view.setUint32(to + 4, high, true)
}
