import type { Connection, Database } from '../../foundation/store/database.ts'
import type { DeadLetterView, GapView, SeriesPoint, StoredView, SymbolView } from './page/snapshot.ts'

/** Rows shown on the page; `tapeline sql` shows the rest. */
const ROWS_SHOWN = 30

const SERIES_SECONDS = 600

/**
 * The start of the day before the newest day of a hypertable, which bounds queries. It reads the
 * catalogue: the view `timescaledb_information.chunks` takes 26 ms for 3,000 chunks.
 */
const NEWEST_CHUNK = `SELECT (max(slice.range_start) / 1000 - 86400000)::float8 AS ms
  FROM _timescaledb_catalog.hypertable AS hypertable
  JOIN _timescaledb_catalog.dimension AS dimension ON dimension.hypertable_id = hypertable.id
  JOIN _timescaledb_catalog.dimension_slice AS slice ON slice.dimension_id = dimension.id
  WHERE format('%I.%I', hypertable.schema_name, hypertable.table_name)::regclass = $1::regclass`

const SYMBOLS = `SELECT s.symbol, t.price::text, (extract(epoch FROM t.trade_time) * 1000)::float8 AS "tradeTimeMs", q.bid_price::text AS bid,
    q.ask_price::text AS ask, (extract(epoch FROM q.ingestion_timestamp) * 1000)::float8 AS "quoteTimeMs"
  FROM unnest($1::text[]) WITH ORDINALITY AS s (symbol, place)
  LEFT JOIN LATERAL (SELECT price, trade_time FROM trades
    WHERE symbol = s.symbol AND event_type = 'trade' AND trade_time >= to_timestamp($2::float8 / 1000)
    ORDER BY trade_time DESC, trade_id DESC LIMIT 1) t ON true
  LEFT JOIN LATERAL (SELECT bid_price, ask_price, ingestion_timestamp FROM book_ticker
    WHERE symbol = s.symbol AND ingestion_timestamp >= to_timestamp($3::float8 / 1000)
    ORDER BY ingestion_timestamp DESC, update_id DESC LIMIT 1) q ON true
  ORDER BY s.place`

const GAPS = `SELECT gap_id AS "gapId", revision, symbol, event_type AS "eventType", from_id::float8 AS "fromId", to_id::float8 AS "toId",
    (extract(epoch FROM from_time) * 1000)::float8 AS "fromMs", (extract(epoch FROM to_time) * 1000)::float8 AS "toMs", cause, status, reason,
    (extract(epoch FROM detected_at) * 1000)::float8 AS "detectedMs", (extract(epoch FROM closed_at) * 1000)::float8 AS "closedMs"
  FROM gaps ORDER BY (status = 'open') DESC, updated_at DESC LIMIT ${ROWS_SHOWN}`

const UNRESOLVED = 'SELECT count(*)::int AS count FROM dead_letters WHERE resolved_at IS NULL'

const GAP_COUNTS = 'SELECT status, count(*)::int AS count FROM gaps GROUP BY status'

const DEAD_LETTERS = `SELECT topic || '/' || partition || '/' || kafka_offset AS place, origin, reason,
    (extract(epoch FROM failed_at) * 1000)::float8 AS "failedMs", attempts, (extract(epoch FROM resolved_at) * 1000)::float8 AS "resolvedMs"
  FROM dead_letters ORDER BY (resolved_at IS NULL) DESC, failed_at DESC LIMIT ${ROWS_SHOWN}`

const SERIES_TRADES = `SELECT (extract(epoch FROM time_bucket('1 second', trade_time)) * 1000)::float8 AS ms, last(price, (epoch::bigint << 53) + trade_id)::float8 AS price
  FROM trades WHERE symbol = $1 AND event_type = 'trade' AND trade_time > to_timestamp($2::float8 / 1000) - interval '${SERIES_SECONDS} seconds'
  GROUP BY 1`

const SERIES_QUOTES = `SELECT (extract(epoch FROM time_bucket('1 second', ingestion_timestamp)) * 1000)::float8 AS ms,
    last(bid_price, ingestion_timestamp)::float8 AS bid, last(ask_price, ingestion_timestamp)::float8 AS ask
  FROM book_ticker WHERE symbol = $1 AND ingestion_timestamp > to_timestamp($2::float8 / 1000) - interval '${SERIES_SECONDS} seconds'
  GROUP BY 1`

/** Reads the page's data: prices through an index, the ledger and the dead letters in full. */
export function readStored(database: Database, symbols: readonly string[]): Promise<StoredView> {
  const read = async (connection: Connection) => {
    const newest = await newestOf(connection, symbols)
    const gaps = await connection.query<GapView>(GAPS)
    const counts = await connection.query<{ status: string; count: number }>(GAP_COUNTS)
    const letters = await connection.query<DeadLetterView>(DEAD_LETTERS)
    const unresolved = await connection.query<{ count: number }>(UNRESOLVED)
    return {
      symbols: newest,
      gaps: gaps.rows,
      gapsByStatus: Object.fromEntries(counts.rows.map(({ status, count }) => [status, count])),
      deadLetters: letters.rows,
      unresolvedDeadLetters: unresolved.rows[0]?.count ?? 0,
    }
  }
  return database.transaction(read, { isSnapshot: true })
}

type Quote = { readonly ms: number; readonly bid: number; readonly ask: number }

/** The last ten minutes of a symbol, one point per second, up to its newest trade or quote. */
export function readSeries(database: Database, symbol: string): Promise<SeriesPoint[]> {
  const read = async (connection: Connection) => {
    const [newest] = await newestOf(connection, [symbol])
    const untilMs = Math.max(newest?.tradeTimeMs ?? 0, newest?.quoteTimeMs ?? 0)
    if (untilMs === 0) return []
    const trades = await connection.query<{ ms: number; price: number }>(SERIES_TRADES, [symbol, untilMs])
    const quotes = await connection.query<Quote>(SERIES_QUOTES, [symbol, untilMs])
    const points = new Map<number, SeriesPoint>()
    for (const { ms, price } of trades.rows) points.set(ms, { atMs: ms, price, bid: null, ask: null })
    for (const { ms, bid, ask } of quotes.rows)
      points.set(ms, { atMs: ms, price: points.get(ms)?.price ?? null, bid, ask })
    return [...points.values()].sort((a, b) => a.atMs - b.atMs)
  }
  return database.transaction(read, { isSnapshot: true })
}

async function newestOf(connection: Connection, symbols: readonly string[]): Promise<SymbolView[]> {
  const tradesFrom = await newestChunkMs(connection, 'trades')
  const quotesFrom = await newestChunkMs(connection, 'book_ticker')
  return (await connection.query<SymbolView>(SYMBOLS, [symbols, tradesFrom, quotesFrom])).rows
}

async function newestChunkMs(connection: Connection, table: string): Promise<number> {
  const { rows } = await connection.query<{ ms: number | null }>(NEWEST_CHUNK, [table])
  return rows[0]?.ms ?? 0
}
