import { bareArray, wordArray } from './array-literal.ts'
import { NULL, timeText, timeTextUs } from './copy-text.ts'
import type { Connection, Queryable } from './database.ts'

/** Rows for `trades`, a column each, all of the same length and checked by `market/payload.ts`. */
export interface TradeColumns {
  readonly tradeTimeMs: number[]
  readonly eventTimeMs: Array<number | null>
  readonly symbol: string[]
  readonly eventType: Array<'trade' | 'aggTrade'>
  readonly tradeId: number[]
  readonly price: string[]
  readonly quantity: string[]
  readonly firstTradeId: Array<number | null>
  readonly lastTradeId: Array<number | null>
  readonly isBuyerMaker: Array<'t' | 'f'>
  readonly ingestionUs: number[]
  readonly source: Array<'stream' | 'backfill'>
  /** How often the exchange had begun the id sequence anew. */
  readonly epoch: number[]
}

export function emptyTradeColumns(): TradeColumns {
  return {
    tradeTimeMs: [],
    eventTimeMs: [],
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

const EPOCH = "timestamptz 'epoch'"

const INSERT = `WITH inserted AS (
  INSERT INTO trades (trade_time, event_time, symbol, event_type, trade_id, price, quantity, first_trade_id,
    last_trade_id, is_buyer_maker, ingestion_timestamp, source, epoch)
  SELECT ${EPOCH} + trade_ms * interval '1 millisecond', ${EPOCH} + event_ms * interval '1 millisecond', symbol, event_type,
    trade_id, price, quantity, first_id, last_id, maker, ${EPOCH} + received_us * interval '1 microsecond', source,
    epoch
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::numeric[], $7::numeric[],
    $8::bigint[], $9::bigint[], $10::boolean[], $11::bigint[], $12::text[], $13::int[])
    AS row (trade_ms, event_ms, symbol, event_type, trade_id, price, quantity, first_id, last_id, maker, received_us, source,
      epoch)
  ON CONFLICT DO NOTHING
  RETURNING symbol, event_type)
SELECT symbol, event_type, count(*)::int AS rows FROM inserted GROUP BY symbol, event_type`

/** How many rows were new, by symbol and event type; the others were there already. */
export interface InsertedTrades {
  readonly symbol: string
  readonly event_type: 'trade' | 'aggTrade'
  readonly rows: number
}

/** Inserts the rows `[from, to)`, all when not given. */
export async function insertTrades(
  connection: Queryable,
  columns: TradeColumns,
  from = 0,
  to = columns.tradeId.length,
): Promise<InsertedTrades[]> {
  if (from >= to) return []
  const values = [
    bareArray(columns.tradeTimeMs, from, to),
    bareArray(columns.eventTimeMs, from, to),
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
  return (await connection.query<InsertedTrades>(INSERT, values, 'insert_trades')).rows
}

const COPY = `COPY trades (trade_time, event_time, symbol, event_type, trade_id, price, quantity, first_trade_id, last_trade_id,
  is_buyer_maker, ingestion_timestamp, source, epoch) FROM STDIN`

/** Copies all rows. @throws 23505 when one of them is there already; none is written then */
export async function copyTrades(connection: Connection, columns: TradeColumns): Promise<InsertedTrades[]> {
  const { length } = columns.tradeId
  if (length === 0) return []
  const counts = new Map<string, { symbol: string; event_type: 'trade' | 'aggTrade'; rows: number }>()
  let text = ''
  for (let i = 0; i < length; i++) {
    const symbol = columns.symbol[i] ?? ''
    const event_type = columns.eventType[i] ?? 'trade'
    const eventMs = columns.eventTimeMs[i] ?? null
    text += `${timeText(columns.tradeTimeMs[i] ?? 0)}\t${eventMs === null ? NULL : timeText(eventMs)}\t${symbol}\t${event_type}\t${columns.tradeId[i]}\t${columns.price[i]}\t${columns.quantity[i]}\t${columns.firstTradeId[i] ?? NULL}\t${columns.lastTradeId[i] ?? NULL}\t${columns.isBuyerMaker[i]}\t${timeTextUs(columns.ingestionUs[i] ?? 0)}\t${columns.source[i]}\t${columns.epoch[i]}\n`
    const key = symbol + event_type
    const count = counts.get(key)
    if (count === undefined) counts.set(key, { symbol, event_type, rows: 1 })
    else count.rows++
  }
  await connection.copyIn(COPY, text)
  return [...counts.values()]
}
