import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import { type InsertedBookTickers, insertBookTickers } from '../foundation/store/book-ticker.ts'
import type { Database } from '../foundation/store/database.ts'
import { describeRefusal, SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { type InsertedTrades, insertTrades } from '../foundation/store/trades.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { Batch } from './batch.ts'
import { requireNoSecond, writeLost, writeReached } from './batch-statements.ts'
import type { Written } from './consumer-store.ts'

/**
 * To look for a duplicate of a row, TimescaleDB may decompress up to 1,000 rows. Its limit is
 * 100,000 per transaction.
 */
const PORTION_ROWS = 100

const FIX =
  'Raise the limit that the message names; for rows of compressed chunks: ' +
  'ALTER DATABASE … SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0. Then start the consumer again: ' +
  'no offset has moved past a row that is not stored.'

/**
 * Whether a transaction exceeded a limit of the server's settings. A retry does not help; a smaller
 * transaction may.
 */
export function isLimit(error: unknown): boolean {
  return sqlStateOf(error) === SQLSTATE.configurationLimitExceeded
}

/**
 * Writes the rows of a batch in several transactions, and the offsets in the last one. After an
 * interruption the same messages are read again, and the missing rows are added.
 *
 * @param reason the error of the transaction that was too large
 * @throws TapelineError `DATABASE` when a single row exceeds the limit
 */
export async function writeInPortions(
  database: Database,
  batch: Batch,
  reason: unknown,
  log: Logger,
): Promise<Written> {
  log.warn(
    { err: reason },
    `A batch exceeded a limit of the database; writing it in portions: ${describeError(reason)}`,
  )
  await database.transaction((connection) => writeLost(connection, batch))
  const trades: InsertedTrades[] = []
  const quotes: InsertedBookTickers[] = []
  await inPortions(batch.rowCount('trades'), async (from, to) => {
    const columns = batch.tradeColumns()
    trades.push(...(await database.transaction((on) => insertTrades(on, columns, from, to))))
  })
  await requireNoSecond(database, batch, trades)
  await inPortions(batch.rowCount('book_ticker'), async (from, to) => {
    const columns = batch.bookTickerColumns()
    quotes.push(...(await database.transaction((on) => insertBookTickers(on, columns, from, to))))
  })
  return database.transaction((connection) => writeReached(connection, batch, trades, quotes))
}

async function inPortions(rows: number, write: (from: number, to: number) => Promise<void>): Promise<void> {
  for (let from = 0; from < rows; from += PORTION_ROWS) {
    await writeOrHalve(from, Math.min(rows, from + PORTION_ROWS), write)
  }
}

async function writeOrHalve(
  from: number,
  to: number,
  write: (from: number, to: number) => Promise<void>,
): Promise<void> {
  try {
    await write(from, to)
  } catch (error) {
    if (!isLimit(error)) throw error
    if (to - from === 1) {
      const message = `A single row exceeds a limit of the database: ${describeRefusal(error)}`
      throw new TapelineError('DATABASE', message, { fix: FIX, cause: error })
    }
    const middle = from + Math.floor((to - from) / 2)
    await writeOrHalve(from, middle, write)
    await writeOrHalve(middle, to, write)
  }
}
