import { type EventType, isTradeType } from '../market/event.ts'
import type { Queryable } from './database.ts'

/** The last stored row of a symbol and type. */
export interface LastStored {
  readonly symbol: string
  readonly eventType: EventType
  /** The highest stored epoch; 0 for bookTicker, which has none. */
  readonly epoch: number
  /** The highest trade id or update id of that epoch; null for bookTicker. */
  readonly id: number | null
  /** Trade time, event time for depth, or receipt for bookTicker; milliseconds since the Unix epoch. */
  readonly timeMs: number
}

/** A symbol and type with the time of an event. */
export type StoredBefore = Pick<LastStored, 'symbol' | 'eventType' | 'timeMs'>

const ms = (time: string) => `floor(extract(epoch FROM ${time}) * 1000)::float8 AS "timeMs"`

/** Ids do not increase strictly with trade time: the last trade has the highest id of the last second. */
const TRADES = `SELECT asked.symbol, asked.event_type AS "eventType", last.epoch, last.trade_id::float8 AS id,
    ${ms('last.trade_time')}
  FROM unnest($1::text[], $2::text[]) AS asked (symbol, event_type)
  CROSS JOIN LATERAL (
    SELECT trade_time FROM trades
    WHERE trades.symbol = asked.symbol AND trades.event_type = asked.event_type AND trade_time >= $3::timestamptz
    ORDER BY trade_time DESC LIMIT 1) AS newest
  CROSS JOIN LATERAL (
    SELECT epoch, trade_id, trade_time FROM trades
    WHERE trades.symbol = asked.symbol AND trades.event_type = asked.event_type AND trade_time >= $3::timestamptz
      AND trade_time > newest.trade_time - interval '1 second'
    ORDER BY epoch DESC, trade_id DESC LIMIT 1) AS last`

const BOOK_TICKER = `SELECT asked.symbol, 'bookTicker' AS "eventType", 0 AS epoch, NULL AS id,
    ${ms('last.ingestion_timestamp')}
  FROM unnest($1::text[]) AS asked (symbol)
  CROSS JOIN LATERAL (
    SELECT ingestion_timestamp FROM book_ticker
    WHERE book_ticker.symbol = asked.symbol AND ingestion_timestamp >= $2::timestamptz
    ORDER BY ingestion_timestamp DESC LIMIT 1) AS last`

const DEPTH = `SELECT asked.symbol, 'depth' AS "eventType", last.epoch, last.last_update_id::float8 AS id, ${ms('last.event_time')}
  FROM unnest($1::text[]) AS asked (symbol)
  CROSS JOIN LATERAL (
    SELECT epoch, last_update_id, event_time FROM depth_updates
    WHERE depth_updates.symbol = asked.symbol AND event_time >= $2::timestamptz
    ORDER BY epoch DESC, last_update_id DESC LIMIT 1) AS last`

const DAY_MS = 86_400_000

/**
 * How far before the events to search for the last row, in growing steps. PostgreSQL plans for, and
 * locks, each chunk that a query may touch, which takes a second for 1,500 days.
 */
const REACHES_MS = [2 * DAY_MS, 30 * DAY_MS, Number.POSITIVE_INFINITY]

/** Returns the last stored row of each symbol and type, by time; those without rows are left out. */
export async function lastStored(
  connection: Queryable,
  asked: readonly StoredBefore[],
): Promise<LastStored[]> {
  const found: LastStored[] = []
  let left = asked
  for (const reachMs of REACHES_MS) {
    if (left.length === 0) break
    found.push(...(await lastWithin(connection, left, reachMs)))
    const known = new Set(found.map(streamOf))
    left = left.filter((one) => !known.has(streamOf(one)))
  }
  return found
}

const streamOf = ({ symbol, eventType }: Pick<LastStored, 'symbol' | 'eventType'>) => `${symbol} ${eventType}`

async function lastWithin(
  connection: Queryable,
  asked: readonly StoredBefore[],
  reachMs: number,
): Promise<LastStored[]> {
  const fromMs = Math.min(...asked.map(({ timeMs }) => timeMs)) - reachMs
  const from = Number.isFinite(fromMs) ? new Date(fromMs).toISOString() : '-infinity'
  // A symbol in two partitions is requested twice.
  const streams = [...new Map(asked.map((one) => [streamOf(one), one])).values()]
  const trades = streams.filter(({ eventType }) => isTradeType(eventType))
  const rows: LastStored[] = []
  if (trades.length > 0) {
    const values = [trades.map(({ symbol }) => symbol), trades.map(({ eventType }) => eventType), from]
    rows.push(...(await connection.query<LastStored>(TRADES, values)).rows)
  }
  for (const [type, text] of [['bookTicker', BOOK_TICKER] as const, ['depth', DEPTH] as const]) {
    const symbols = streams.flatMap(({ symbol, eventType }) => (eventType === type ? [symbol] : []))
    if (symbols.length > 0) rows.push(...(await connection.query<LastStored>(text, [symbols, from])).rows)
  }
  return rows
}
