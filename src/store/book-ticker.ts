import { bareArray, wordArray } from './array-literal.ts'
import { timeTextUs } from './copy-text.ts'
import type { Connection, Queryable } from './database.ts'

/** Rows for `book_ticker`, a column each, all of the same length and checked by `market/payload.ts`. */
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

const INSERT = `WITH inserted AS (
  INSERT INTO book_ticker (ingestion_timestamp, symbol, update_id, bid_price, bid_quantity, ask_price, ask_quantity)
  SELECT timestamptz 'epoch' + received_us * interval '1 microsecond', symbol, update_id, bid_price, bid_quantity,
    ask_price, ask_quantity
  FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[])
    AS row (received_us, symbol, update_id, bid_price, bid_quantity, ask_price, ask_quantity)
  ON CONFLICT DO NOTHING
  RETURNING symbol)
SELECT symbol, count(*)::int AS rows FROM inserted GROUP BY symbol`

/** How many rows were new, by symbol; the others were there already. */
export interface InsertedBookTickers {
  readonly symbol: string
  readonly rows: number
}

/** Inserts the rows `[from, to)`, all when not given. */
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
  return (await connection.query<InsertedBookTickers>(INSERT, values, 'insert_book_ticker')).rows
}

const COPY = `COPY book_ticker (ingestion_timestamp, symbol, update_id, bid_price, bid_quantity, ask_price, ask_quantity)
  FROM STDIN`

/** Copies all rows. @throws 23505 when one of them is there already; none is written then */
export async function copyBookTickers(
  connection: Connection,
  columns: BookTickerColumns,
): Promise<InsertedBookTickers[]> {
  const { length } = columns.updateId
  if (length === 0) return []
  const counts = new Map<string, number>()
  let text = ''
  for (let i = 0; i < length; i++) {
    const symbol = columns.symbol[i] ?? ''
    text += `${timeTextUs(columns.ingestionUs[i] ?? 0)}\t${symbol}\t${columns.updateId[i]}\t${columns.bidPrice[i]}\t${columns.bidQuantity[i]}\t${columns.askPrice[i]}\t${columns.askQuantity[i]}\n`
    counts.set(symbol, (counts.get(symbol) ?? 0) + 1)
  }
  await connection.copyIn(COPY, text)
  return [...counts].map(([symbol, rows]) => ({ symbol, rows }))
}
