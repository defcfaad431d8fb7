import type { ArchiveSnapshot, RowRange } from '../../foundation/archive/archive-snapshot.ts'
import type { DuckDb } from '../../foundation/archive/duckdb.ts'

/*
 * The tables and views of the database as views of an archive, with the same names and columns, so
 * that most queries run unchanged.
 */

/** Who took, as in the database's views. */
const TAKER_SIDE = "CASE WHEN is_buyer_maker THEN 'sell' ELSE 'buy' END AS taker_side"
/** Orders the trades of a symbol, also over a restart of its ids. */
const ORDER_KEY = '(epoch::BIGINT << 53) + trade_id'

interface View {
  /** Views that it reads. */
  readonly reads?: readonly string[]
  /** Returns the statement after `CREATE TEMP`. */
  readonly sql: (snapshot: ArchiveSnapshot, range: RowRange) => Promise<string>
}

/** All columns of a table of the archive. */
function tableView(name: string): View {
  return { sql: async (snapshot, range) => `VIEW ${name} AS ${await snapshot.relation(name, range)}` }
}

function tradeView(name: string, table: string, columns: string): View {
  return {
    sql: async (snapshot, range) =>
      `VIEW ${name} AS SELECT ${columns} FROM (${await snapshot.relation(table, range)})`,
  }
}

function textView(name: string, table: 'gaps' | 'recordings' | 'deadLetters'): View {
  return { sql: async (snapshot) => `VIEW ${name} AS ${await snapshot.textRelation(table)}` }
}

function derived(reads: readonly string[], sql: string): View {
  return { reads, sql: async () => sql }
}

const VIEWS: Readonly<Record<string, View>> = {
  raw_trades: tradeView(
    'raw_trades',
    'raw_trades',
    `trade_time, event_time, symbol, epoch, trade_id, price, quantity, is_buyer_maker, ${TAKER_SIDE}, ingestion_timestamp, source`,
  ),
  agg_trades: tradeView(
    'agg_trades',
    'agg_trades',
    `trade_time, event_time, symbol, epoch, trade_id AS agg_trade_id, first_trade_id, last_trade_id, price, quantity,
     is_buyer_maker, ${TAKER_SIDE}, ingestion_timestamp, source`,
  ),
  block_trades: tradeView(
    'block_trades',
    'block_trades',
    `trade_time, event_time, symbol, epoch, trade_id AS block_trade_id, price, quantity, is_buyer_maker, ${TAKER_SIDE},
     ingestion_timestamp, source`,
  ),
  book_ticker: tableView('book_ticker'),
  // The tables of the database have packed levels: see docs/order-books.md.
  depth: tableView('depth'),
  depth_snapshots: tableView('depth_snapshots'),
  depth_levels: derived(['depth'], 'VIEW depth_levels AS SELECT * FROM depth'),
  depth_snapshot_levels: derived(
    ['depth_snapshots'],
    `VIEW depth_snapshot_levels AS
     SELECT ingestion_timestamp, symbol, epoch, last_update_id, 'rest' AS kind, side, level, price, quantity FROM depth_snapshots`,
  ),
  gaps: textView('gaps', 'gaps'),
  recordings: textView('recordings', 'recordings'),
  dead_letters: textView('dead_letters', 'deadLetters'),
  trades: derived(
    ['raw_trades', 'agg_trades', 'block_trades'],
    `VIEW trades AS ${[
      ['raw_trades', 'trade', 'trade_id', 'NULL::BIGINT, NULL::BIGINT'],
      ['agg_trades', 'aggTrade', 'agg_trade_id', 'first_trade_id, last_trade_id'],
      ['block_trades', 'blockTrade', 'block_trade_id', 'NULL::BIGINT, NULL::BIGINT'],
    ]
      .map(
        ([view, type, id, tiles], i) =>
          `SELECT trade_time, event_time, symbol, '${type}'${i === 0 ? ' AS event_type' : ''}, epoch, ${id}${i === 0 ? ' AS trade_id' : ''}, price, quantity,
           ${i === 0 ? 'NULL::BIGINT AS first_trade_id, NULL::BIGINT AS last_trade_id' : tiles}, is_buyer_maker, ingestion_timestamp, source FROM ${view}`,
      )
      .join(' UNION ALL ')}`,
  ),
  spreads: derived(
    ['book_ticker'],
    `VIEW spreads AS SELECT ingestion_timestamp, symbol, update_id, bid_price, ask_price, (bid_price + ask_price) * 0.5 AS mid_price,
     ask_price - bid_price AS spread, 20000 * (ask_price - bid_price) / nullif(bid_price + ask_price, 0) AS spread_bps FROM book_ticker`,
  ),
  candles: derived(
    ['raw_trades'],
    `MACRO candles(of_symbol, width, from_time, to_time) AS TABLE
     SELECT time_bucket(width::INTERVAL, trade_time) AS bucket, arg_min(price, ${ORDER_KEY}) AS open, max(price) AS high,
            min(price) AS low, arg_max(price, ${ORDER_KEY}) AS close, sum(quantity) AS volume, sum(price * quantity) AS quote_volume,
            count(*) AS trades, coalesce(sum(quantity) FILTER (WHERE NOT is_buyer_maker), 0) AS taker_buy_volume
     FROM raw_trades
     WHERE symbol = of_symbol AND trade_time >= from_time::TIMESTAMPTZ AND trade_time < to_time::TIMESTAMPTZ
     GROUP BY 1`,
  ),
}

/** The names that a query may use. */
export const VIEW_NAMES = Object.keys(VIEWS)

/**
 * Creates the views that a query names. Others would read lists for nothing.
 *
 * @param range of the rows that the views have
 */
export async function createViews(
  duckDb: DuckDb,
  snapshot: ArchiveSnapshot,
  query: string,
  range: RowRange,
): Promise<void> {
  const words = new Set(query.toLowerCase().match(/\w+/g))
  const wanted = VIEW_NAMES.filter((name) => words.has(name))
  const all = new Set(wanted.flatMap((name) => [...(VIEWS[name]?.reads ?? []), name]))
  for (const name of VIEW_NAMES)
    if (all.has(name)) await duckDb.run(`CREATE OR REPLACE TEMP ${await VIEWS[name]?.sql(snapshot, range)}`)
}
