import { type InsertedBookTickers, insertBookTickers } from '../foundation/store/book-ticker.ts'
import {
  lockOffsets,
  readOffsets,
  takeBackOffset,
  writeStartOffsets,
} from '../foundation/store/consumer-offsets.ts'
import type { Connection, Database, Queryable } from '../foundation/store/database.ts'
import { failureKind } from '../foundation/store/failures.ts'
import { upsertGaps } from '../foundation/store/gaps.ts'
import { readLosses, writeLosses } from '../foundation/store/losses.ts'
import { SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { type InsertedTrades, insertTrades } from '../foundation/store/trades.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { type Batch, highestRevisions, type RowTable } from './batch.ts'
import { requireNoSecond, writeLost, writeReached } from './batch-statements.ts'
import type { ConsumerStore, Written } from './consumer-store.ts'
import { isLimit, writeInPortions } from './portions.ts'
import type { TryRows } from './rejected-rows.ts'

/** The consumer's store on PostgreSQL. */
export function databaseStore(database: Database, log: Logger): ConsumerStore {
  let canCopy = true
  const writeWhole = async (batch: Batch) => {
    if (canCopy) {
      try {
        return await database.transaction((connection) => writeBatch(connection, batch, COPYING))
      } catch (error) {
        // The embedded database has no COPY.
        if (sqlStateOf(error) === SQLSTATE.featureNotSupported) canCopy = false
        // COPY does not say which row is a duplicate or refused; INSERT does.
        else if (failureKind(error) !== 'row') throw error
      }
    }
    return database.transaction((connection) => writeBatch(connection, batch, INSERTING))
  }
  return {
    async write(batch) {
      try {
        return await writeWhole(batch)
      } catch (error) {
        if (!isLimit(error)) throw error
        return writeInPortions(database, batch, error, log)
      }
    },
    async probe<Result>(batch: Batch, search: (rowsOf: (table: RowTable) => TryRows) => Promise<Result>) {
      const found = Promise.withResolvers<Result>()
      const takenBack = new TakenBack()
      try {
        await database.transaction(async (connection) => {
          // Deferred constraints would not be checked before the rollback.
          await connection.query('SET CONSTRAINTS ALL IMMEDIATE')
          await connection.query(NO_DECOMPRESSION_LIMIT)
          found.resolve(await search((table) => (from, to) => tryRows(connection, batch, table, from, to)))
          throw takenBack
        })
      } catch (error) {
        if (error !== takenBack) throw error
      }
      return found.promise
    },
    readOffsets: () => readOffsets(database),
    readLosses: () => readLosses(database),
    establish: (decide) =>
      database.transaction(async (connection) => {
        await lockOffsets(connection)
        const start = decide(await readOffsets(connection))
        await writeStartOffsets(connection, start.toWrite)
        await writeLosses(connection, start.losses)
        return start
      }),
    takeBack: (offset) =>
      database.transaction(async (connection) => {
        await lockOffsets(connection)
        await takeBackOffset(connection, offset)
      }),
  }
}

/**
 * Lifts the limit, since the transaction is rolled back. Selects nothing where the setting does not
 * exist.
 */
const NO_DECOMPRESSION_LIMIT = `SELECT set_config(name, '0', true) FROM pg_settings
  WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'`

/**
 * Rolls a transaction back. Has a code as the server's errors have, so that the connection stays
 * usable.
 */
class TakenBack extends Error {
  readonly code = 'TAKEN_BACK'
}

/** How rows are inserted into the two large tables. */
interface Statements {
  readonly trades: (connection: Connection, batch: Batch) => Promise<InsertedTrades[]>
  readonly bookTickers: (connection: Connection, batch: Batch) => Promise<InsertedBookTickers[]>
}

/** For batches without duplicates, which is almost always the case. */
const COPYING: Statements = {
  trades: (connection, batch) => batch.tradeRows.copy(connection),
  bookTickers: (connection, batch) => batch.bookTickerRows.copy(connection),
}
const INSERTING: Statements = {
  async trades(connection, batch) {
    const inserted = await insertTrades(connection, batch.tradeColumns())
    await requireNoSecond(connection, batch, inserted)
    return inserted
  },
  bookTickers: (connection, batch) => insertBookTickers(connection, batch.bookTickerColumns()),
}

/** Writes a batch with one statement per table. */
async function writeBatch(connection: Connection, batch: Batch, into: Statements): Promise<Written> {
  await writeLost(connection, batch)
  const trades = await into.trades(connection, batch)
  const quotes = await into.bookTickers(connection, batch)
  return writeReached(connection, batch, trades, quotes)
}

async function tryRows(
  connection: Queryable,
  batch: Batch,
  table: RowTable,
  from: number,
  to: number,
): Promise<unknown> {
  await connection.query('SAVEPOINT before_rows')
  try {
    await insertRows(connection, batch, table, from, to)
    await connection.query('RELEASE SAVEPOINT before_rows')
    return null
  } catch (error) {
    if (failureKind(error) !== 'row') throw error
    await connection.query('ROLLBACK TO SAVEPOINT before_rows')
    return error
  }
}

async function insertRows(
  connection: Queryable,
  batch: Batch,
  table: RowTable,
  from: number,
  to: number,
): Promise<void> {
  switch (table) {
    case 'trades':
      await insertTrades(connection, batch.tradeColumns(), from, to)
      break
    case 'book_ticker':
      await insertBookTickers(connection, batch.bookTickerColumns(), from, to)
      break
    case 'gaps':
      await upsertGaps(connection, [...highestRevisions(batch.gapRows.slice(from, to)).values()])
  }
}
