import { insertDeadLetters } from '../foundation/dead-letters/dead-letter.ts'
import { isTradeType } from '../foundation/market/event.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'
import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import {
  advanceOffsets,
  lockOffsets,
  readOffsets,
  takeBackOffset,
  writeStartOffsets,
} from '../foundation/store/consumer-offsets.ts'
import type { Connection, Database, Queryable } from '../foundation/store/database.ts'
import { failureKind } from '../foundation/store/failures.ts'
import { lastStored } from '../foundation/store/last-stored.ts'
import { upsertGaps } from '../foundation/store/ledger-rows.ts'
import { readLosses, writeLosses } from '../foundation/store/losses.ts'
import { noteLostIds } from '../foundation/store/lost-ids.ts'
import type { Inserted, MarketRows } from '../foundation/store/market-rows.ts'
import { writeRecordings, writeSequenceStarts } from '../foundation/store/meta.ts'
import { describeRefusal, SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { Batch, RowTable } from './batch.ts'
import { type ConsumerStore, OffsetsMovedError, SecondUnderIdError, type Written } from './consumer-store.ts'
import { afterLoss, afterRealLoss, sequenceStarts } from './retention-gaps.ts'

/** The consumer's store on PostgreSQL. */
export function databaseStore(database: Database, clock: Clock, log: Logger): ConsumerStore {
  const writeWhole = async (batch: Batch) => {
    if (await database.canCopy()) {
      try {
        return await database.transaction((on) =>
          writeBatch(on, batch, wallMs(clock), (rows) => rows.copy(on)),
        )
      } catch (error) {
        // COPY does not say which row is a duplicate or refused, and cannot write where row-level
        // security applies; INSERT does both.
        if (failureKind(error) !== 'row' && sqlStateOf(error) !== SQLSTATE.featureNotSupported) throw error
      }
    }
    return database.transaction((on) => writeBatch(on, batch, wallMs(clock), (rows) => rows.insert(on)))
  }
  /**
   * Writes the rows of a batch in several transactions, and the offsets in the last one. After an
   * interruption the same messages are read again, and the missing rows are added.
   */
  const writeInPortions = async (batch: Batch, reason: unknown) => {
    log.warn(
      { err: reason },
      `A batch exceeded a limit of the database; writing it in portions: ${describeError(reason)}`,
    )
    await database.transaction((on) => writeLost(on, batch, wallMs(clock)))
    const inserted: Inserted[] = []
    for (const rows of Object.values(batch.rows)) {
      await inPortions(rows.length, async (from, to) => {
        inserted.push(...(await database.transaction((on) => rows.insert(on, from, to))))
      })
    }
    await requireNoSecond(database, batch, inserted)
    return database.transaction((on) => writeReached(on, batch, inserted))
  }
  return {
    async write(batch) {
      try {
        return await writeWhole(batch)
      } catch (error) {
        if (!isLimit(error)) throw error
        return writeInPortions(batch, error)
      }
    },
    async probe(batch, search) {
      const takenBack = new TakenBack()
      try {
        await database.transaction(async (connection) => {
          // Deferred constraints would not be checked before the rollback.
          await connection.query('SET CONSTRAINTS ALL IMMEDIATE')
          await connection.query(NO_DECOMPRESSION_LIMIT)
          await search((table) => (from, to) => tryRows(connection, batch, table, from, to))
          throw takenBack
        })
      } catch (error) {
        if (error !== takenBack) throw error
      }
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

/** @param add adds the rows of a table */
async function writeBatch(
  connection: Connection,
  batch: Batch,
  nowMs: number,
  add: (rows: MarketRows) => Promise<Inserted[]>,
): Promise<Written> {
  await writeLost(connection, batch, nowMs)
  const inserted: Inserted[] = []
  for (const rows of Object.values(batch.rows)) inserted.push(...(await add(rows)))
  await requireNoSecond(connection, batch, inserted)
  return writeReached(connection, batch, inserted)
}

/** Records losses before this batch. Must run before the rows of the batch are inserted. */
async function writeLost(connection: Queryable, batch: Batch, nowMs: number): Promise<void> {
  if (batch.firstsAfterLoss.length > 0) {
    await writeSequenceStarts(connection, sequenceStarts(batch.firstsAfterLoss))
    const firsts = afterRealLoss(batch.firstsAfterLoss)
    const { windows, lost } = afterLoss(firsts, await lastStored(connection, firsts), nowMs)
    await upsertGaps(connection, windows)
    await noteLostIds(connection, lost)
  }
  if (batch.losses.size > 0) await writeLosses(connection, batch.losses.values())
}

/**
 * Checks that every row of `trades` is stored.
 *
 * @throws SecondUnderIdError when a row is missing because another event has its id and time
 */
async function requireNoSecond(
  connection: Queryable,
  { rows }: Batch,
  inserted: readonly Inserted[],
): Promise<void> {
  const { length } = rows.trades
  if (inserted.reduce((sum, one) => sum + (isTradeType(one.type) ? one.rows : 0), 0) === length) return
  const second = await rows.trades.secondUnderId(connection)
  if (second.length > 0) throw new SecondUnderIdError(second)
}

/**
 * Writes ledger rows, dead letters and the offsets that the batch reaches. @returns what the whole
 * batch added
 */
async function writeReached(
  connection: Queryable,
  batch: Batch,
  rows: readonly Inserted[],
): Promise<Written> {
  const { recordings, found, mirrored, copies } = batch
  const gaps = batch.gaps.length === 0 ? 0 : await upsertGaps(connection, batch.gaps)
  if (recordings.length > 0) await writeRecordings(connection, recordings)
  let restored = 0
  if (found.length + mirrored.length + copies.length > 0) {
    await insertDeadLetters(connection, [...found, ...mirrored])
    restored = await insertDeadLetters(connection, copies)
  }
  const advanced = await advanceOffsets(connection, [...batch.steps.values()])
  if (advanced === 'moved') throw new OffsetsMovedError()
  return {
    inserted: rows.reduce((sum, one) => sum + one.rows, gaps),
    deadLettered: found.length + mirrored.length + restored,
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
    if (table === 'gaps') await upsertGaps(connection, batch.gaps.slice(from, to))
    else await batch.rows[table].insert(connection, from, to)
    await connection.query('RELEASE SAVEPOINT before_rows')
    return null
  } catch (error) {
    if (failureKind(error) !== 'row') throw error
    await connection.query('ROLLBACK TO SAVEPOINT before_rows')
    return error
  }
}

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
function isLimit(error: unknown): boolean {
  return sqlStateOf(error) === SQLSTATE.configurationLimitExceeded
}

/**
 * Writes rows in portions, which become half as large when one is too large.
 *
 * @param write writes the rows `[from, to)` in a transaction
 * @throws TapelineError `DATABASE` when a single row exceeds the limit
 */
async function inPortions(rows: number, write: (from: number, to: number) => Promise<void>): Promise<void> {
  let portion = PORTION_ROWS
  for (let from = 0; from < rows; ) {
    const to = Math.min(rows, from + portion)
    try {
      await write(from, to)
      from = to
    } catch (error) {
      if (!isLimit(error)) throw error
      portion = Math.floor((to - from) / 2)
      if (portion > 0) continue
      const message = `A single row exceeds a limit of the database: ${describeRefusal(error)}`
      throw new TapelineError('DATABASE', message, { fix: FIX, cause: error })
    }
  }
}
