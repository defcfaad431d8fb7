import { EVENT_TYPES, type EventType } from '../market/event.ts'
import { ABSENT, EVENT_SOURCES, type EventFields } from '../market/event-fields.ts'
import { type Column, CopyRows } from './copy-rows.ts'
import type { Connection, Queryable } from './database.ts'

/** Tables with a row per event. */
export type MarketTableName = 'trades' | 'book_ticker' | 'depth_updates' | 'depth_snapshots'

export interface MarketTable {
  readonly name: MarketTableName
  /** In the order in which `write` gives their fields. */
  readonly columns: readonly Column[]
  /** SQL for the event type of a row. */
  readonly eventType: string
  /** Writes the fields of a row. The event is not kept. */
  readonly write: (rows: CopyRows, event: EventFields) => void
}

const WORDS = new Map([...EVENT_TYPES, ...EVENT_SOURCES].map((word) => [word, Buffer.from(word)]))
const NO_WORD = Buffer.alloc(0)

/** Trades and aggTrades. `epoch` is how often the exchange had restarted the id sequence. */
export const TRADES: MarketTable = {
  name: 'trades',
  columns: [
    ['trade_time', 'timestamptz'],
    ['event_time', 'timestamptz'],
    ['symbol', 'text'],
    ['event_type', 'text'],
    ['trade_id', 'bigint'],
    ['price', 'numeric'],
    ['quantity', 'numeric'],
    ['first_trade_id', 'bigint'],
    ['last_trade_id', 'bigint'],
    ['is_buyer_maker', 'boolean'],
    ['ingestion_timestamp', 'timestamptz'],
    ['source', 'text'],
    ['epoch', 'integer'],
  ],
  eventType: 'event_type',
  write(rows, event) {
    const { eventTimeUs, firstTradeId, lastTradeId } = event
    rows.timeUs(event.tradeTimeUs)
    if (eventTimeUs === ABSENT) rows.null()
    else rows.timeUs(eventTimeUs)
    rows.text(event.symbol.bytes)
    rows.text(WORDS.get(event.type) ?? NO_WORD)
    rows.bigint(event.id)
    rows.numeric(event.bytes, event.priceStart, event.priceEnd)
    rows.numeric(event.bytes, event.quantityStart, event.quantityEnd)
    if (firstTradeId === ABSENT) rows.null()
    else rows.bigint(firstTradeId)
    if (lastTradeId === ABSENT) rows.null()
    else rows.bigint(lastTradeId)
    rows.boolean(event.isBuyerMaker)
    rows.timeUs(event.receivedUs)
    rows.text(WORDS.get(event.source) ?? NO_WORD)
    rows.integer(event.epoch)
  },
}

export const BOOK_TICKER: MarketTable = {
  name: 'book_ticker',
  columns: [
    ['ingestion_timestamp', 'timestamptz'],
    ['symbol', 'text'],
    ['update_id', 'bigint'],
    ['bid_price', 'numeric'],
    ['bid_quantity', 'numeric'],
    ['ask_price', 'numeric'],
    ['ask_quantity', 'numeric'],
  ],
  eventType: "'bookTicker'",
  write(rows, event) {
    const { bytes } = event
    rows.timeUs(event.receivedUs)
    rows.text(event.symbol.bytes)
    rows.bigint(event.id)
    rows.numeric(bytes, event.priceStart, event.priceEnd)
    rows.numeric(bytes, event.quantityStart, event.quantityEnd)
    rows.numeric(bytes, event.askPriceStart, event.askPriceEnd)
    rows.numeric(bytes, event.askQuantityStart, event.askQuantityEnd)
  },
}

/** Number of new rows by event type and symbol; the others existed already. */
export interface Inserted {
  readonly type: EventType
  readonly symbol: string
  readonly rows: number
}

interface Count extends Inserted {
  rows: number
}

/** Rows of a table, encoded as they are added. COPY and INSERT send the same bytes. */
export class MarketRows {
  readonly #table: MarketTable
  readonly #rows: CopyRows
  readonly #counts = new Map<string, Count>()
  /** The count that contains each row. */
  readonly #countOf: Count[] = []

  constructor(table: MarketTable) {
    this.#table = table
    this.#rows = new CopyRows(table.columns)
  }

  get length(): number {
    return this.#rows.length
  }

  /** @param event of the table's types; it is not kept */
  add(event: EventFields): void {
    this.#rows.begin()
    this.#table.write(this.#rows, event)
    const count = this.#countOfStream(event)
    count.rows++
    this.#countOf.push(count)
  }

  remove(index: number): void {
    this.#rows.remove(index)
    for (const count of this.#countOf.splice(index, 1)) count.rows--
  }

  #countOfStream({ type, symbol: { text } }: EventFields): Count {
    const key = `${type} ${text}`
    const known = this.#counts.get(key)
    if (known !== undefined) return known
    const count = { type, symbol: text, rows: 0 }
    this.#counts.set(key, count)
    return count
  }

  /** Copies all rows. @throws 23505 if one exists already; then none is written */
  async copy(connection: Connection): Promise<Inserted[]> {
    if (this.length === 0) return []
    const { name, columns } = this.#table
    await connection.copyIn(`COPY ${name} (${namesOf(columns)}) FROM STDIN (FORMAT binary)`, this.#rows.bytes)
    return [...this.#counts.values()].filter(({ rows }) => rows > 0)
  }

  /** Inserts those of the rows `[from, to)` that do not exist. */
  async insert(connection: Queryable, from = 0, to = this.length): Promise<Inserted[]> {
    if (from >= to) return []
    const { name, columns, eventType } = this.#table
    const { rows } = await connection.query<Inserted>(
      `WITH inserted AS (
         INSERT INTO ${name} (${namesOf(columns)}) SELECT * FROM unnest(${parametersOf(columns)})
         ON CONFLICT DO NOTHING RETURNING ${eventType} AS type, symbol)
       SELECT type, symbol, count(*)::int AS rows FROM inserted GROUP BY type, symbol`,
      this.#rows.arrays(from, to),
    )
    return rows
  }

  /**
   * Returns the indexes of rows that are not stored because another event has their symbol, type, id and
   * time, for `trades`. The epoch is not part of the identity. Call it if not all rows were new: nearly
   * always the others are redeliveries of the same events.
   */
  async secondUnderId(connection: Queryable): Promise<number[]> {
    if (this.length === 0) return []
    const { columns } = this.#table
    const arrays = this.#rows.arrays(0, this.length)
    // Only constants keep other chunks out of the plan.
    const { rows: bounds } = await connection.query<{ first: string; last: string }>(
      'SELECT min(time)::text AS first, max(time)::text AS last FROM unnest($1::timestamptz[]) AS row (time)',
      [arrays[0]],
    )
    const { rows } = await connection.query<{ index: number }>(
      `SELECT (row.place - 1)::int AS index
       FROM unnest(${parametersOf(columns)}) WITH ORDINALITY AS row (${namesOf(columns)}, place)
       JOIN trades USING (symbol, event_type, trade_id, trade_time)
       WHERE trades.trade_time >= $14::timestamptz AND trades.trade_time <= $15::timestamptz
         AND (trades.price, trades.quantity, trades.first_trade_id, trades.last_trade_id, trades.is_buyer_maker)
           IS DISTINCT FROM (row.price, row.quantity, row.first_trade_id, row.last_trade_id, row.is_buyer_maker)
       ORDER BY row.place`,
      [...arrays, bounds[0]?.first, bounds[0]?.last],
    )
    return rows.map(({ index }) => index)
  }
}

function namesOf(columns: readonly Column[]): string {
  return columns.map(([name]) => name).join(', ')
}

/** `$1::timestamptz[], $2::text[], …` */
function parametersOf(columns: readonly Column[]): string {
  return columns.map(([, type], i) => `$${i + 1}::${type}[]`).join(', ')
}
