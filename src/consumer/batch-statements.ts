import type { InsertedBookTickers } from '../foundation/store/book-ticker.ts'
import { advanceOffsets } from '../foundation/store/consumer-offsets.ts'
import type { Connection, Queryable } from '../foundation/store/database.ts'
import { insertDeadLetters } from '../foundation/store/dead-letters.ts'
import { upsertGaps } from '../foundation/store/gaps.ts'
import { lastStored } from '../foundation/store/last-stored.ts'
import { writeLosses } from '../foundation/store/losses.ts'
import { noteLostIds } from '../foundation/store/lost-ids.ts'
import { writeRecordings } from '../foundation/store/recordings.ts'
import { writeSequenceStarts } from '../foundation/store/sequence-starts.ts'
import { type InsertedTrades, secondUnderId } from '../foundation/store/trades.ts'
import type { Batch } from './batch.ts'
import { OffsetsMovedError, SecondUnderIdError, type Written } from './consumer-store.ts'
import { afterLoss, afterRealLoss, sequenceStarts } from './retention-gaps.ts'

/** Records losses before this batch. Must run before the rows of the batch are inserted. */
export async function writeLost(connection: Connection, batch: Batch): Promise<void> {
  await writeSequenceStarts(connection, sequenceStarts(batch.firstsAfterLoss))
  const firsts = afterRealLoss(batch.firstsAfterLoss)
  if (firsts.length > 0) {
    const stored = await lastStored(connection, firsts)
    const { windows, lost } = afterLoss(firsts, stored, Date.now())
    await upsertGaps(connection, windows)
    await noteLostIds(connection, lost)
  }
  await writeLosses(connection, batch.losses.values())
}

/**
 * Checks that every row of `trades` is stored.
 *
 * @param inserted counts of the inserted rows of `trades`
 * @throws SecondUnderIdError when a row is missing because another event has its id and time
 */
export async function requireNoSecond(
  connection: Queryable,
  batch: Batch,
  inserted: readonly InsertedTrades[],
): Promise<void> {
  if (inserted.reduce((sum, { rows }) => sum + rows, 0) === batch.rowCount('trades')) return
  const second = await secondUnderId(connection, batch.tradeColumns())
  if (second.length > 0) throw new SecondUnderIdError(second)
}

/**
 * Writes ledger rows, dead letters and the offsets that the batch reaches. @returns what the whole
 * batch added
 */
export async function writeReached(
  connection: Connection,
  batch: Batch,
  trades: readonly InsertedTrades[],
  quotes: readonly InsertedBookTickers[],
): Promise<Written> {
  const gaps = await upsertGaps(connection, [...batch.gaps.values()])
  await writeRecordings(connection, batch.recordings)
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
