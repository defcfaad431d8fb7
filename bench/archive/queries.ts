import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { type DuckDb, openDuckDb } from '../../src/foundation/archive/duckdb.ts'
import { MARKET_DAY, MARKET_SYMBOLS } from '../../test/support/market-messages.ts'
import { withDatabase } from '../place.ts'
import type { Figures } from '../run.ts'
import { spreadOf } from '../summary.ts'
import type { BothStores } from './both-stores.ts'

const DAY_MS = 86_400_000
/** Runs of each query in each store, in turn; the median counts. */
const TIMES = 3
/** The default of `ARCHIVE_MEMORY_MB`. */
const MEMORY_BYTES = 384 << 20
const KEY = '(epoch::BIGINT << 53) + trade_id'
const WIDTH = `INTERVAL '1 minute'`
const NEXT_DAY = new Date(Date.parse(MARKET_DAY) + DAY_MS).toISOString().slice(0, 10)
const SYMBOLS = MARKET_SYMBOLS.map((symbol) => `'${symbol}'`).join()

/** Each as docs/recipes.md and docs/research.md have it, for the whole day. */
const QUERIES = {
  candles: {
    inTables: `SELECT symbol, candle.* FROM unnest(ARRAY[${SYMBOLS}]) AS symbol
      CROSS JOIN LATERAL candles(symbol, '1 minute', '${MARKET_DAY}', '${NEXT_DAY}') AS candle ORDER BY symbol, bucket`,
    inArchive: `SELECT symbol, time_bucket(${WIDTH}, trade_time) AS bucket, arg_min(price, ${KEY}) AS open, max(price) AS high,
      min(price) AS low, arg_max(price, ${KEY}) AS close, sum(quantity) AS volume, count(*) AS trades
      FROM raw_trades GROUP BY symbol, bucket ORDER BY symbol, bucket`,
  },
  VWAP: {
    inTables: `SELECT symbol, sum(price * quantity) / sum(quantity) AS vwap, sum(quantity) AS volume, count(*) AS trades
      FROM raw_trades WHERE trade_time >= '${MARKET_DAY}' AND trade_time < '${NEXT_DAY}' GROUP BY symbol ORDER BY symbol`,
    inArchive: `SELECT symbol, sum(price * quantity) / sum(quantity) AS vwap, sum(quantity) AS volume, count(*) AS trades
      FROM raw_trades GROUP BY symbol ORDER BY symbol`,
  },
  spread: {
    inTables: `SELECT symbol, time_bucket(${WIDTH}, ingestion_timestamp) AS minute, avg(ask_price - bid_price) AS mean,
      max(ask_price - bid_price) AS widest, count(*) AS quotes FROM book_ticker
      WHERE ingestion_timestamp >= '${MARKET_DAY}' AND ingestion_timestamp < '${NEXT_DAY}' GROUP BY symbol, minute ORDER BY symbol, minute`,
    inArchive: `SELECT symbol, time_bucket(${WIDTH}, ingestion_timestamp) AS minute, avg(ask_price - bid_price) AS mean,
      max(ask_price - bid_price) AS widest, count(*) AS quotes FROM book_ticker GROUP BY symbol, minute ORDER BY symbol, minute`,
  },
} as const

/** Milliseconds of the same queries over a day in both stores, taking turns. */
export async function queryBoth({ databaseUrl, archiveUrl }: BothStores): Promise<Record<string, Figures>> {
  const engine = await openDuckDb({
    memoryBytes: MEMORY_BYTES,
    tempFolder: join(archiveUrl, '_staging', 'engine'),
    threads: availableParallelism(),
  })
  try {
    const duckDb = await engine.connect()
    await view(duckDb, archiveUrl, 'raw_trades')
    await view(duckDb, archiveUrl, 'book_ticker')
    return await withDatabase(databaseUrl, async (database) => {
      await database.query('ANALYZE')
      const figures: Record<string, Figures> = {}
      for (const [name, { inTables, inArchive }] of Object.entries(QUERIES)) {
        const [tables, archive]: [number[], number[]] = [[], []]
        for (let i = 0; i < TIMES; i++) {
          const [fromTables, tablesMs] = await timed(async () => (await database.query(inTables)).rows)
          const [fromArchive, archiveMs] = await timed(() => duckDb.rows(inArchive))
          if (fromTables.length === 0 || fromTables.length !== fromArchive.length)
            throw new Error(
              `${name}: ${fromTables.length} rows from tables, ${fromArchive.length} from the archive`,
            )
          tables.push(tablesMs)
          archive.push(archiveMs)
        }
        const [tablesMs, archiveMs] = [spreadOf(tables).median, spreadOf(archive).median]
        figures[`archive queries, ${name}`] = {
          'tables ms': tablesMs,
          'archive ms': archiveMs,
          'tables / archive': tablesMs / archiveMs,
        }
      }
      return figures
    })
  } finally {
    engine.close()
  }
}

async function view(duckDb: DuckDb, folder: string, table: string): Promise<void> {
  await duckDb.run(`CREATE VIEW ${table} AS FROM read_parquet('${folder}/${table}/*/*.parquet')`)
}

async function timed<Result>(work: () => Promise<Result>): Promise<[result: Result, ms: number]> {
  const startedMs = performance.now()
  const result = await work()
  return [result, performance.now() - startedMs]
}
