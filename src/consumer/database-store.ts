import { type InsertedBookTickers, insertBookTickers } from '../foundation/store/book-ticker.ts'
import {
  advanceOffsets,
  lockOffsets,
  readOffsets,
  takeBackOffset,
  writeStartOffsets,
} from '../foundation/store/consumer-offsets.ts'
import type { Connection, Database, Queryable } from '../foundation/store/database.ts'
import { insertDeadLetters } from '../foundation/store/dead-letters.ts'
import { failureKind } from '../foundation/store/failures.ts'
import { upsertGaps } from '../foundation/store/gaps.ts'
import { lastStored } from '../foundation/store/last-stored.ts'
import { readLosses, writeLosses } from '../foundation/store/losses.ts'
import { noteLostIds } from '../foundation/store/lost-ids.ts'
import { SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { type InsertedTrades, insertTrades } from '../foundation/store/trades.ts'
import { type Batch, highestRevisions, type RowTable } from './batch.ts'
import { type ConsumerStore, OffsetsMovedError, type Written } from './consumer-store.ts'
import type { TryRows } from './rejected-rows.ts'
import { afterLoss } from './retention-gaps.ts'

/** The consumer's statements, on PostgreSQL. */
export function databaseStore(database: Database): ConsumerStore {
  let canCopy = true
  return {
    async write(batch) {
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
    },
    async probe<Result>(batch: Batch, search: (rowsOf: (table: RowTable) => TryRows) => Promise<Result>) {
      const found = Promise.withResolvers<Result>()
      const takenBack = new TakenBack()
      try {
        await database.transaction(async (connection) => {
          // Constraints that wait for the COMMIT would refuse nothing here.
          await connection.query('SET CONSTRAINTS ALL IMMEDIATE')
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
  trades: (connection, batch) => insertTrades(connection, batch.tradeColumns()),
  bookTickers: (connection, batch) => insertBookTickers(connection, batch.bookTickerColumns()),
}

/** One statement a table, and the offsets that the batch reaches. */
async function writeBatch(connection: Connection, batch: Batch, into: Statements): Promise<Written> {
  if (batch.firstsAfterLoss.length > 0) {
    // Before the rows of this batch are there.
    const stored = await lastStored(connection, batch.firstsAfterLoss)
    const { windows, lost } = afterLoss(batch.firstsAfterLoss, stored, Date.now())
    await upsertGaps(connection, windows)
    await noteLostIds(connection, lost)
  }
  await writeLosses(connection, batch.losses.values())
  const trades = await into.trades(connection, batch)
  const quotes = await into.bookTickers(connection, batch)
  const gaps = await upsertGaps(connection, [...batch.gaps.values()])
  await insertDeadLetters(connection, [...batch.found.map(({ row }) => row), ...batch.mirrored])
  const restored = await insertDeadLetters(connection, batch.copies)
  const advanced = await advanceOffsets(connection, [...batch.steps.values()])
  if (advanced === 'moved') throw new OffsetsMovedError()
  const rows = [
    ...trades.map(({ event_type, symbol, rows }) => ({ type: event_type, symbol, rows })),
    ...quotes.map(({ symbol, rows }) => ({ type: 'bookTicker' as const, symbol, rows })),
  ]
  return {
    inserted: rows.reduce((sum, one) => sum + one.rows, gaps),
    deadLettered: batch.found.length + batch.mirrored.length + restored,
    rows,
    isOfRecreated: advanced === 'recreated',
  }
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
