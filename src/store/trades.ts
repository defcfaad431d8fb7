import { bareArray, wordArray } from './array-literal.ts'
import type { Queryable } from './database.ts'

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
  }
}

const EPOCH = "timestamptz 'epoch'"

const INSERT = `WITH inserted AS (
  INSERT INTO trades (trade_time, event_time, symbol, event_type, trade_id, price, quantity, first_trade_id,
    last_trade_id, is_buyer_maker, ingestion_timestamp, source)
  SELECT ${EPOCH} + trade_ms * interval '1 millisecond', ${EPOCH} + event_ms * interval '1 millisecond', symbol, event_type,
    trade_id, price, quantity, first_id, last_id, maker, ${EPOCH} + received_us * interval '1 microsecond', source
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::numeric[], $7::numeric[],
    $8::bigint[], $9::bigint[], $10::boolean[], $11::bigint[], $12::text[])
    AS row (trade_ms, event_ms, symbol, event_type, trade_id, price, quantity, first_id, last_id, maker, received_us, source)
  ON CONFLICT DO NOTHING
  RETURNING symbol, event_type)
SELECT symbol, event_type, count(*)::int AS rows FROM inserted GROUP BY symbol, event_type`

/** How many rows were new, by symbol and event type; the others were there already. */
export interface InsertedTrades {
  readonly symbol: string
  readonly event_type: 'trade' | 'aggTrade'
  readonly rows: number
}

export async function insertTrades(connection: Queryable, columns: TradeColumns): Promise<InsertedTrades[]> {
  if (columns.tradeId.length === 0) return []
  const values = [
    bareArray(columns.tradeTimeMs),
    bareArray(columns.eventTimeMs),
    wordArray(columns.symbol),
    wordArray(columns.eventType),
    bareArray(columns.tradeId),
    bareArray(columns.price),
    bareArray(columns.quantity),
    bareArray(columns.firstTradeId),
    bareArray(columns.lastTradeId),
    bareArray(columns.isBuyerMaker),
    bareArray(columns.ingestionUs),
    wordArray(columns.source),
  ]
  return (await connection.query<InsertedTrades>(INSERT, values, 'insert_trades')).rows
}
