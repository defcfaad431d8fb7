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

/** The consumer's statements, on PostgreSQL. */
export function databaseStore(database: Database, log: Logger): ConsumerStore {
  let canCopy = true
  const writeWhole = async (batch: Batch) => {
    if (canCopy) {
      try {
        return await database.transaction((connection) => writeBatch(connection, batch, COPYING))
      } catch (error) {
        // The embedded database has no COPY.
        if (sqlStateOf(error) === SQLSTATE.featureNotSupported) canCopy = false
        // A row that is there already, or one that is refused: which, the other statements tell.
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
          // Constraints that wait for the COMMIT would refuse nothing here.
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

/** What a transaction decompresses that is taken back costs nothing later. Without TimescaleDB's own part there is no such limit. */
const NO_DECOMPRESSION_LIMIT = `SELECT set_config(name, '0', true) FROM pg_settings
  WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'`

/** Ends a transaction that is not to be committed; as if the server had said so, the connection can be used on. */
class TakenBack extends Error {
  readonly code = 'TAKEN_BACK'
}

/** How rows get into the two large tables. */
interface Statements {
  readonly trades: (connection: Connection, batch: Batch) => Promise<InsertedTrades[]>
  readonly bookTickers: (connection: Connection, batch: Batch) => Promise<InsertedBookTickers[]>
}

/** Where no row is there yet, as nearly always. */
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

/** One statement a table, and the offsets that the batch reaches. */
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
