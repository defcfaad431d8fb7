import type { EventType } from '../market/event.ts'
import { wordArray } from './array-literal.ts'
import type { Queryable } from './database.ts'

/** What the table holds last of a symbol and type; null when it holds nothing. */
export interface LastStored {
  readonly symbol: string
  readonly eventType: EventType
  /** The highest that is stored; 0 for bookTicker, which has none. */
  readonly epoch: number
  /** The highest trade id of that epoch; null for bookTicker. */
  readonly id: number | null
  /** Trade time, or receipt for bookTicker; milliseconds since the Unix epoch. */
  readonly timeMs: number
}

/** Two looks into an index: of the epochs after 0, which have one of their own, and where there are none, of epoch 0. */
const TRADES = `SELECT asked.symbol, asked.event_type, last.epoch, last.trade_id AS id, last.trade_time AS time
  FROM unnest($1::text[], $2::text[]) AS asked (symbol, event_type)
  CROSS JOIN LATERAL (
    (SELECT true AS is_later, epoch, trade_id, trade_time FROM trades
      WHERE trades.symbol = asked.symbol AND trades.event_type = asked.event_type AND epoch > 0
      ORDER BY epoch DESC, trade_id DESC LIMIT 1)
    UNION ALL
    (SELECT false, epoch, trade_id, trade_time FROM trades
      WHERE trades.symbol = asked.symbol AND trades.event_type = asked.event_type
      ORDER BY trade_id DESC LIMIT 1)
    ORDER BY is_later DESC LIMIT 1) AS last`

const BOOK_TICKER = `SELECT asked.symbol, 'bookTicker' AS event_type, 0 AS epoch, NULL AS id, last.ingestion_timestamp AS time
  FROM unnest($1::text[]) AS asked (symbol)
  CROSS JOIN LATERAL (
    SELECT ingestion_timestamp FROM book_ticker
    WHERE book_ticker.symbol = asked.symbol
    ORDER BY ingestion_timestamp DESC LIMIT 1) AS last`

/** The last stored row of each symbol and type; those of which nothing is stored are left out. */
export async function lastStored(
  connection: Queryable,
  asked: ReadonlyArray<{ readonly symbol: string; readonly eventType: EventType }>,
): Promise<LastStored[]> {
  const trades = asked.filter(({ eventType }) => eventType !== 'bookTicker')
  const quotes = asked.filter(({ eventType }) => eventType === 'bookTicker')
  type Row = { symbol: string; event_type: EventType; epoch: number; id: string | null; time: Date }
  const answers = [
    await connection.query<Row>(TRADES, [
      wordArray(trades.map(({ symbol }) => symbol)),
      wordArray(trades.map(({ eventType }) => eventType)),
    ]),
    await connection.query<Row>(BOOK_TICKER, [wordArray(quotes.map(({ symbol }) => symbol))]),
  ]
  return answers.flatMap(({ rows }) =>
    rows.map(({ symbol, event_type, epoch, id, time }) => ({
      symbol,
      eventType: event_type,
      epoch,
      id: id === null ? null : Number(id),
      timeMs: time.getTime(),
    })),
  )
}
