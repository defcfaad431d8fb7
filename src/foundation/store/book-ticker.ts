import type { EventFields } from '../market/event-fields.ts'
import { bareArray, wordArray } from './array-literal.ts'
import { CopyRows } from './copy-rows.ts'
import type { Connection, Queryable } from './database.ts'

/**
 * Rows for `book_ticker` by column, all of the same length and validated by `market/payload.ts`.
 */
export interface BookTickerColumns {
  readonly ingestionUs: number[]
  readonly symbol: string[]
  readonly updateId: number[]
  readonly bidPrice: string[]
  readonly bidQuantity: string[]
  readonly askPrice: string[]
  readonly askQuantity: string[]
}

export function emptyBookTickerColumns(): BookTickerColumns {
  return {
    ingestionUs: [],
    symbol: [],
    updateId: [],
    bidPrice: [],
    bidQuantity: [],
    askPrice: [],
    askQuantity: [],
  }
}

/** @param event a bookTicker */
export function addBookTicker(columns: BookTickerColumns, event: EventFields): void {
  columns.ingestionUs.push(event.receivedUs)
  columns.symbol.push(event.symbol.text)
  columns.updateId.push(event.id)
  columns.bidPrice.push(event.price)
  columns.bidQuantity.push(event.quantity)
  columns.askPrice.push(event.askPrice)
  columns.askQuantity.push(event.askQuantity)
}

const INSERT = `WITH inserted AS (
  INSERT INTO book_ticker (ingestion_timestamp, symbol, update_id, bid_price, bid_quantity, ask_price, ask_quantity)
  SELECT timestamptz 'epoch' + received_us * interval '1 microsecond', symbol, update_id, bid_price, bid_quantity,
    ask_price, ask_quantity
  FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[])
    AS row (received_us, symbol, update_id, bid_price, bid_quantity, ask_price, ask_quantity)
  ON CONFLICT DO NOTHING
  RETURNING symbol)
SELECT symbol, count(*)::int AS rows FROM inserted GROUP BY symbol`

/** Number of new rows by symbol; the others existed already. */
export interface InsertedBookTickers {
  readonly symbol: string
  readonly rows: number
}

/** Inserts the rows `[from, to)`, by default all. */
export async function insertBookTickers(
  connection: Queryable,
  columns: BookTickerColumns,
  from = 0,
  to = columns.updateId.length,
): Promise<InsertedBookTickers[]> {
  if (from >= to) return []
  const values = [
    bareArray(columns.ingestionUs, from, to),
    wordArray(columns.symbol, from, to),
    bareArray(columns.updateId, from, to),
    bareArray(columns.bidPrice, from, to),
    bareArray(columns.bidQuantity, from, to),
    bareArray(columns.askPrice, from, to),
    bareArray(columns.askQuantity, from, to),
  ]
  return (await connection.query<InsertedBookTickers>(INSERT, values)).rows
}

const COPY = `COPY book_ticker (ingestion_timestamp, symbol, update_id, bid_price, bid_quantity, ask_price, ask_quantity)
  FROM STDIN (FORMAT binary)`

const COPIED_FIELDS = 7

/** Rows for `book_ticker`, encoded for COPY as they are added. */
export class BookTickerRows {
  readonly #rows = new CopyRows()
  readonly #counts = new Map<string, number>()
  #length = 0

  get length(): number {
    return this.#length
  }

  /** @param event a bookTicker, which is not kept */
  add(event: EventFields): void {
    const { symbol, bytes } = event
    const rows = this.#rows
    rows.begin(COPIED_FIELDS)
    rows.timeUs(event.receivedUs)
    rows.text(symbol.bytes)
    rows.bigint(event.id)
    rows.numeric(bytes, event.priceStart, event.priceEnd)
    rows.numeric(bytes, event.quantityStart, event.quantityEnd)
    rows.numeric(bytes, event.askPriceStart, event.askPriceEnd)
    rows.numeric(bytes, event.askQuantityStart, event.askQuantityEnd)
    this.#counts.set(symbol.text, (this.#counts.get(symbol.text) ?? 0) + 1)
    this.#length++
  }

  /** Copies all rows. @throws 23505 if one exists already; then none is written */
  async copy(connection: Connection): Promise<InsertedBookTickers[]> {
    if (this.#length === 0) return []
    await connection.copyIn(COPY, this.#rows.bytes)
    return [...this.#counts].map(([symbol, rows]) => ({ symbol, rows }))
  }
}
