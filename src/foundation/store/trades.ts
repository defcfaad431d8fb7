import { byTradeType, isTradeType, TRADE_TYPES, type TradeType } from '../market/event.ts'
import { ABSENT, type EventFields } from '../market/event-fields.ts'
import { isoOfUs } from '../market/time-unit.ts'
import { bareArray, wordArray } from './array-literal.ts'
import { CopyRows } from './copy-rows.ts'
import type { Connection, Queryable } from './database.ts'

/** Rows for `trades` by column, all of the same length and validated by `market/payload.ts`. */
export interface TradeColumns {
  readonly tradeTimeUs: number[]
  readonly eventTimeUs: Array<number | null>
  readonly symbol: string[]
  readonly eventType: TradeType[]
  readonly tradeId: number[]
  readonly price: string[]
  readonly quantity: string[]
  readonly firstTradeId: Array<number | null>
  readonly lastTradeId: Array<number | null>
  readonly isBuyerMaker: Array<'t' | 'f'>
  readonly ingestionUs: number[]
  readonly source: Array<'stream' | 'backfill'>
  /** How often the exchange had restarted the id sequence. */
  readonly epoch: number[]
}

export function emptyTradeColumns(): TradeColumns {
  return {
    tradeTimeUs: [],
    eventTimeUs: [],
    symbol: [],
    eventType: [],
    tradeId: [],
    price: [],
    quantity: [],
    firstTradeId: [],
    lastTradeId: [],
    isBuyerMaker: [],
    ingestionUs: [],
    source: [],
    epoch: [],
  }
}

/** @param event a trade or aggTrade */
export function addTrade(columns: TradeColumns, event: EventFields): void {
  const orNull = (value: number) => (value === ABSENT ? null : value)
  if (!isTradeType(event.type)) throw new TypeError('A bookTicker is not a row of trades')
  columns.tradeTimeUs.push(event.tradeTimeUs)
  columns.eventTimeUs.push(orNull(event.eventTimeUs))
  columns.symbol.push(event.symbol.text)
  columns.eventType.push(event.type)
  columns.tradeId.push(event.id)
  columns.price.push(event.price)
  columns.quantity.push(event.quantity)
  columns.firstTradeId.push(orNull(event.firstTradeId))
  columns.lastTradeId.push(orNull(event.lastTradeId))
  columns.isBuyerMaker.push(event.isBuyerMaker ? 't' : 'f')
  columns.ingestionUs.push(event.receivedUs)
  columns.source.push(event.isBackfill ? 'backfill' : 'stream')
  columns.epoch.push(event.epoch)
}

const EPOCH = "timestamptz 'epoch'"

const INSERT = `WITH inserted AS (
  INSERT INTO trades (trade_time, event_time, symbol, event_type, trade_id, price, quantity, first_trade_id,
    last_trade_id, is_buyer_maker, ingestion_timestamp, source, epoch)
  SELECT ${EPOCH} + trade_us * interval '1 microsecond', ${EPOCH} + event_us * interval '1 microsecond', symbol, event_type,
    trade_id, price, quantity, first_id, last_id, maker, ${EPOCH} + received_us * interval '1 microsecond', source,
    epoch
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::numeric[], $7::numeric[],
    $8::bigint[], $9::bigint[], $10::boolean[], $11::bigint[], $12::text[], $13::int[])
    AS row (trade_us, event_us, symbol, event_type, trade_id, price, quantity, first_id, last_id, maker, received_us, source,
      epoch)
  ON CONFLICT DO NOTHING
  RETURNING symbol, event_type)
SELECT symbol, event_type, count(*)::int AS rows FROM inserted GROUP BY symbol, event_type`

/** Number of new rows by symbol and event type; the others existed already. */
export interface InsertedTrades {
  readonly symbol: string
  readonly event_type: TradeType
  readonly rows: number
}

/** Inserts the rows `[from, to)`, by default all. */
export async function insertTrades(
  connection: Queryable,
  columns: TradeColumns,
  from = 0,
  to = columns.tradeId.length,
): Promise<InsertedTrades[]> {
  if (from >= to) return []
  const values = [
    bareArray(columns.tradeTimeUs, from, to),
    bareArray(columns.eventTimeUs, from, to),
    wordArray(columns.symbol, from, to),
    wordArray(columns.eventType, from, to),
    bareArray(columns.tradeId, from, to),
    bareArray(columns.price, from, to),
    bareArray(columns.quantity, from, to),
    bareArray(columns.firstTradeId, from, to),
    bareArray(columns.lastTradeId, from, to),
    bareArray(columns.isBuyerMaker, from, to),
    bareArray(columns.ingestionUs, from, to),
    wordArray(columns.source, from, to),
    bareArray(columns.epoch, from, to),
  ]
  return (await connection.query<InsertedTrades>(INSERT, values)).rows
}

/**
 * Finds them through the index, within the time range of the rows. The epoch is not part of the
 * identity.
 */
const SECOND = `SELECT (row.place - 1)::int AS index
  FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::numeric[], $6::numeric[], $7::bigint[], $8::bigint[], $9::boolean[])
    WITH ORDINALITY AS row (trade_us, symbol, event_type, trade_id, price, quantity, first_id, last_id, maker, place)
  JOIN trades ON trades.symbol = row.symbol AND trades.event_type = row.event_type AND trades.trade_id = row.trade_id
    AND trades.trade_time = ${EPOCH} + row.trade_us * interval '1 microsecond'
  WHERE trades.trade_time >= $10::timestamptz AND trades.trade_time <= $11::timestamptz
    AND (trades.price, trades.quantity, trades.first_trade_id, trades.last_trade_id, trades.is_buyer_maker)
      IS DISTINCT FROM (row.price, row.quantity, row.first_id, row.last_id, row.maker)
  ORDER BY row.place`

/**
 * Returns the rows that are not stored because another event has their symbol, type, id and time.
 * Call it if not all rows were new: nearly always the others are redeliveries of the same events.
 *
 * @returns their indexes, ascending
 */
export async function secondUnderId(connection: Queryable, columns: TradeColumns): Promise<number[]> {
  if (columns.tradeId.length === 0) return []
  const times = columns.tradeTimeUs
  const { rows } = await connection.query<{ index: number }>(SECOND, [
    bareArray(times),
    wordArray(columns.symbol),
    wordArray(columns.eventType),
    bareArray(columns.tradeId),
    bareArray(columns.price),
    bareArray(columns.quantity),
    bareArray(columns.firstTradeId),
    bareArray(columns.lastTradeId),
    bareArray(columns.isBuyerMaker),
    isoOfUs(times.reduce((least, us) => Math.min(least, us))),
    isoOfUs(times.reduce((most, us) => Math.max(most, us))),
  ])
  return rows.map(({ index }) => index)
}

const COPY = `COPY trades (trade_time, event_time, symbol, event_type, trade_id, price, quantity, first_trade_id, last_trade_id,
  is_buyer_maker, ingestion_timestamp, source, epoch) FROM STDIN (FORMAT binary)`

const COPIED_FIELDS = 13
const TYPE_WORDS = byTradeType((type) => Buffer.from(type))
const STREAM = Buffer.from('stream')
const BACKFILL = Buffer.from('backfill')

/** Rows for `trades`, encoded for COPY as they are added. */
export class TradeRows {
  readonly #rows = new CopyRows()
  readonly #counts = byTradeType(() => new Map<string, number>())
  #length = 0

  get length(): number {
    return this.#length
  }

  /** @param event a trade or aggTrade, which is not kept */
  add(event: EventFields): void {
    const { symbol, type, firstTradeId, lastTradeId, eventTimeUs } = event
    if (!isTradeType(type)) throw new TypeError('A bookTicker is not a row of trades')
    const rows = this.#rows
    rows.begin(COPIED_FIELDS)
    rows.timeUs(event.tradeTimeUs)
    if (eventTimeUs === ABSENT) rows.null()
    else rows.timeUs(eventTimeUs)
    rows.text(symbol.bytes)
    rows.text(TYPE_WORDS[type])
    rows.bigint(event.id)
    rows.numeric(event.bytes, event.priceStart, event.priceEnd)
    rows.numeric(event.bytes, event.quantityStart, event.quantityEnd)
    if (firstTradeId === ABSENT) rows.null()
    else rows.bigint(firstTradeId)
    if (lastTradeId === ABSENT) rows.null()
    else rows.bigint(lastTradeId)
    rows.boolean(event.isBuyerMaker)
    rows.timeUs(event.receivedUs)
    rows.text(event.isBackfill ? BACKFILL : STREAM)
    rows.integer(event.epoch)
    const counts = this.#counts[type]
    counts.set(symbol.text, (counts.get(symbol.text) ?? 0) + 1)
    this.#length++
  }

  /** Copies all rows. @throws 23505 if one exists already; then none is written */
  async copy(connection: Connection): Promise<InsertedTrades[]> {
    if (this.#length === 0) return []
    await connection.copyIn(COPY, this.#rows.bytes)
    return TRADE_TYPES.flatMap((event_type) =>
      [...this.#counts[event_type]].map(([symbol, rows]) => ({ symbol, event_type, rows })),
    )
  }
}
