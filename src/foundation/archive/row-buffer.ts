import {
  ABSENT,
  EVENT_SOURCES,
  type EventFields,
  type EventSource,
  type KnownSymbol,
} from '../market/event-fields.ts'
import { LevelCursor } from '../market/levels.ts'
import {
  BLOCK_BYTES,
  type BlockPool,
  CHUNK_ROWS,
  type ColumnValues,
  chunkIn,
  INLINE_BYTES,
  type RowChunk,
  writeInteger,
  writeNull,
} from './row-chunk.ts'
import { type ArchiveColumn, type ArchiveTable, OFFSET_COLUMN } from './tables.ts'

/** Writes a field of an event, or the offset of its message, as the value of a row. */
type FieldWriter = (
  values: ColumnValues,
  row: number,
  event: EventFields,
  offset: number,
  level: RowLevel,
) => void

/** The level of a row of depth, refilled for each row. */
interface RowLevel {
  /** Its side; null in the row of an event without levels. */
  side: Uint32Array | null
  /** From 1 on. */
  number: number
  readonly cursor: LevelCursor
}

/** The chunk to which rows are added. */
interface OpenChunk {
  readonly chunk: RowChunk
  readonly fields: ReadonlyArray<{ readonly values: ColumnValues; readonly write: FieldWriter }>
}

const DAY_US = 86_400_000_000
const TWO_TO_32 = 2 ** 32
const SCALE = 10 ** 8
const SCALE_DIGITS = 8
/** Below this, a decimal in units of its eighth place is a safe integer. */
const SAFE_WHOLE = 90_000_000

const ZERO = 0x30
const DOT = 0x2e
const SOURCES: ReadonlyMap<EventSource, Uint32Array> = new Map(
  EVENT_SOURCES.map((source) => [source, inlineText(Buffer.from(source))]),
)
const NO_TEXT = new Uint32Array(4)
const BID = inlineText(Buffer.from('bid'))
const ASK = inlineText(Buffer.from('ask'))

/**
 * Rows of one table, as columns that DuckDB takes without conversion. Rows are added in the order of
 * their offsets. Nothing of the event is kept.
 */
export class RowBuffer {
  readonly table: ArchiveTable
  readonly chunks: RowChunk[] = []
  readonly #pool: BlockPool
  readonly #columns: readonly ArchiveColumn[]
  readonly #hasLevels: boolean
  /** Returns the time by which an event belongs to a day. */
  readonly #timeOf: (event: EventFields) => number
  readonly #level: RowLevel = { side: null, number: 0, cursor: new LevelCursor() }
  /** Rows by UTC day, as days since the Unix epoch. */
  readonly days = new Map<number, { rows: number }>()
  /** The day of the last row; most rows have the day of the one before. */
  #day = { fromUs: Number.NaN, rows: { rows: 0 } }
  #open: OpenChunk | null = null
  #textBytes = 0
  rows = 0

  constructor(table: ArchiveTable, pool: BlockPool) {
    this.table = table
    this.#pool = pool
    this.#columns = [...table.columns, OFFSET_COLUMN]
    this.#hasLevels = table.within.length > 0
    this.#timeOf = TIMES[table.columns[0]?.name ?? ''] ?? noTime
  }

  /** Bytes of memory. */
  get bytes(): number {
    return this.chunks.length * BLOCK_BYTES + this.#textBytes
  }

  /** @param offset of the event's message */
  add(event: EventFields, offset: number): void {
    if (!this.#hasLevels) this.#addRow(event, offset)
    else if (event.bidCount + event.askCount > 0) {
      this.#addSide(event, offset, BID, event.bidsStart, event.bidsEnd)
      this.#addSide(event, offset, ASK, event.asksStart, event.asksEnd)
    } else {
      this.#level.side = null
      this.#addRow(event, offset)
    }
  }

  #addSide(event: EventFields, offset: number, side: Uint32Array, start: number, end: number): void {
    const level = this.#level
    level.side = side
    level.number = 0
    level.cursor.begin(event.bytes, start, end)
    while (level.cursor.next()) {
      level.number++
      this.#addRow(event, offset)
    }
  }

  #addRow(event: EventFields, offset: number): void {
    const { chunk, fields } = this.#open ?? this.#begin()
    const row = chunk.rows++
    for (const { values, write } of fields) write(values, row, event, offset, this.#level)
    this.#added(chunk, this.#timeOf(event))
  }

  /** Adds a row of a table of texts. */
  addText(timeUs: number, text: string, offset: number): void {
    const { chunk } = this.#open ?? this.#begin()
    const row = chunk.rows++
    const [time, json, at] = chunk.columns
    if (time === undefined || json === undefined || at === undefined)
      throw new Error(`${this.table.name} is no table of texts`)
    const bytes = Buffer.from(text)
    writeInteger(time, row, timeUs)
    json.longTexts.push({ row, bytes })
    writeInteger(at, row, offset)
    this.#textBytes += bytes.length
    this.#added(chunk, timeUs)
  }

  #added(chunk: RowChunk, timeUs: number): void {
    this.rows++
    if (chunk.rows === CHUNK_ROWS) this.#open = null
    const sinceMidnightUs = timeUs - this.#day.fromUs
    if (!(sinceMidnightUs >= 0 && sinceMidnightUs < DAY_US)) this.#changeDay(timeUs)
    this.#day.rows.rows++
  }

  #changeDay(timeUs: number): void {
    const day = Math.floor(timeUs / DAY_US)
    const rows = this.days.get(day) ?? { rows: 0 }
    this.days.set(day, rows)
    this.#day = { fromUs: day * DAY_US, rows }
  }

  #begin(): OpenChunk {
    const chunk = chunkIn(this.#pool.take(), this.#columns)
    this.chunks.push(chunk)
    const writers = this.#hasLevels ? LEVEL_WRITERS : WRITERS
    const fields = chunk.columns.map((values) => ({ values, write: writers[values.column.name] ?? noWriter }))
    this.#open = { chunk, fields }
    return this.#open
  }
}

/** By the first column of a table. */
const TIMES: Readonly<Record<string, (event: EventFields) => number>> = {
  trade_time: ({ tradeTimeUs }) => tradeTimeUs,
  event_time: ({ eventTimeUs }) => eventTimeUs,
  ingestion_timestamp: ({ receivedUs }) => receivedUs,
}

/** By column. */
const WRITERS: Readonly<Record<string, FieldWriter>> = {
  trade_time: (values, row, { tradeTimeUs }) => writeInteger(values, row, tradeTimeUs),
  event_time: (values, row, { eventTimeUs }) => writeOptional(values, row, eventTimeUs),
  ingestion_timestamp: (values, row, { receivedUs }) => writeInteger(values, row, receivedUs),
  symbol: writeSymbol,
  epoch: ({ words }, row, { epoch }) => {
    words[row] = epoch
  },
  trade_id: (values, row, { id }) => writeInteger(values, row, id),
  update_id: (values, row, { id }) => writeInteger(values, row, id),
  price: writePrice,
  bid_price: writePrice,
  quantity: writeQuantity,
  bid_quantity: writeQuantity,
  ask_price: ({ words }, row, { bytes, askPriceStart, askPriceEnd }) =>
    writeDecimal(words, row, bytes, askPriceStart, askPriceEnd),
  ask_quantity: ({ words }, row, { bytes, askQuantityStart, askQuantityEnd }) =>
    writeDecimal(words, row, bytes, askQuantityStart, askQuantityEnd),
  first_trade_id: (values, row, { firstTradeId }) => writeOptional(values, row, firstTradeId),
  last_trade_id: (values, row, { lastTradeId }) => writeOptional(values, row, lastTradeId),
  is_buyer_maker: ({ bytes }, row, { isBuyerMaker }) => {
    bytes[row] = isBuyerMaker ? 1 : 0
  },
  source: ({ words }, row, { source }) => writeText(words, row, SOURCES.get(source) ?? NO_TEXT),
  [OFFSET_COLUMN.name]: (values, row, _event, offset) => writeInteger(values, row, offset),
}

/** The same of tables with a row per level. */
const LEVEL_WRITERS: typeof WRITERS = {
  ...WRITERS,
  first_update_id: (values, row, { firstId }) => writeInteger(values, row, firstId),
  last_update_id: (values, row, { id }) => writeInteger(values, row, id),
  level_limit: ({ words }, row, { limit }) => {
    words[row] = limit
  },
  side: (values, row, _event, _offset, { side }) => {
    if (side === null) writeNull(values, row)
    writeText(values.words, row, side ?? NO_TEXT)
  },
  level: (values, row, _event, _offset, { side, number }) => {
    if (side === null) writeNull(values, row)
    else values.words[row] = number
  },
  price: (values, row, { bytes }, _offset, { side, cursor }) => {
    if (side === null) writeNull(values, row)
    else writeDecimal(values.words, row, bytes, cursor.priceStart, cursor.priceEnd)
  },
  quantity: (values, row, { bytes }, _offset, { side, cursor }) => {
    if (side === null) writeNull(values, row)
    else writeDecimal(values.words, row, bytes, cursor.quantityStart, cursor.quantityEnd)
  },
}

function writePrice({ words }: ColumnValues, row: number, event: EventFields): void {
  writeDecimal(words, row, event.bytes, event.priceStart, event.priceEnd)
}

function writeQuantity({ words }: ColumnValues, row: number, event: EventFields): void {
  writeDecimal(words, row, event.bytes, event.quantityStart, event.quantityEnd)
}

function noTime(): number {
  throw new Error('Its first column is the time of no event')
}

function noWriter({ column }: ColumnValues): void {
  throw new Error(`No field for the column ${column.name}`)
}

/** The texts of symbols; null for one that is too long. */
const symbolTexts = new WeakMap<KnownSymbol, Uint32Array | null>()

function writeSymbol({ words, longTexts }: ColumnValues, row: number, { symbol }: EventFields): void {
  let text = symbolTexts.get(symbol)
  if (text === undefined) {
    text = symbol.bytes.length > INLINE_BYTES ? null : inlineText(symbol.bytes)
    symbolTexts.set(symbol, text)
  }
  if (text === null) longTexts.push({ row, bytes: symbol.bytes })
  else writeText(words, row, text)
}

/** Returns a `duckdb_string_t`: the length, and the text itself. */
function inlineText(text: Uint8Array): Uint32Array {
  const words = new Uint32Array(4)
  words[0] = text.length
  new Uint8Array(words.buffer).set(text, 4)
  return words
}

/** Word by word: a call to copy so few bytes costs more. */
function writeText(words: Uint32Array, row: number, text: Uint32Array): void {
  for (let i = 0; i < 4; i++) words[row * 4 + i] = text[i] ?? 0
}

function writeOptional(values: ColumnValues, row: number, value: number): void {
  if (value === ABSENT) writeNull(values, row)
  else writeInteger(values, row, value)
}

/** Writes a decimal of at most 12 digits before the point and 8 after it, in units of the eighth place. */
function writeDecimal(words: Uint32Array, row: number, text: Buffer, start: number, end: number): void {
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
  const to = row * 4
  if (whole >= SAFE_WHOLE) {
    const value = BigInt(whole) * BigInt(SCALE) + BigInt(fraction)
    for (let i = 0; i < 4; i++) words[to + i] = Number(BigInt.asUintN(32, value >> BigInt(32 * i)))
    return
  }
  const value = whole * SCALE + fraction
  words[to] = value
  words[to + 1] = value / TWO_TO_32
  words[to + 2] = 0
  words[to + 3] = 0
}
