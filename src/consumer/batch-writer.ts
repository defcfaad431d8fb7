import { insertBookTickers } from '../store/book-ticker.ts'
import { advanceOffsets } from '../store/consumer-offsets.ts'
import type { Database } from '../store/database.ts'
import { insertDeadLetters } from '../store/dead-letters.ts'
import { upsertGaps } from '../store/gaps.ts'
import { lastStored } from '../store/last-stored.ts'
import { insertTrades } from '../store/trades.ts'
import type { Batch } from './batch.ts'
import { retentionGaps } from './retention-gaps.ts'

/** What a batch added to the database. */
export interface Written {
  /** New rows of trades, book_ticker and gaps. */
  readonly inserted: number
  /** Messages that became, or had become, dead letters. */
  readonly deadLettered: number
  /** New rows, by event type and symbol. */
  readonly rows: ReadonlyArray<{
    readonly type: 'trade' | 'aggTrade' | 'bookTicker'
    readonly symbol: string
    readonly rows: number
  }>
}

/**
 * The database's offsets are behind this batch, or belong to another incarnation of the topic: it was restored, or
 * the topic recreated. Nothing was written; positions must be read anew.
 */
export class OffsetsMovedError extends Error {
  constructor() {
    super('The offsets in the database are behind those read: the database was restored or a topic recreated')
    this.name = 'OffsetsMovedError'
  }
}

/**
 * Writes a batch in one transaction: one statement a table, and the offsets that the batch reaches.
 *
 * @throws OffsetsMovedError; or the database's error, after a rollback
 */
export async function writeBatch(database: Database, batch: Batch): Promise<Written> {
  return database.transaction(async (connection) => {
    if (batch.firstsAfterLoss.length > 0) {
      // Before the rows of this batch are there.
      const stored = await lastStored(connection, batch.firstsAfterLoss)
      await upsertGaps(connection, retentionGaps(batch.firstsAfterLoss, stored, Date.now()))
    }
    const trades = await insertTrades(connection, batch.trades)
    const quotes = await insertBookTickers(connection, batch.bookTicker)
    const gaps = await upsertGaps(connection, [...batch.gaps.values()])
    await insertDeadLetters(connection, [...batch.found.map(({ row }) => row), ...batch.mirrored])
    if (!(await advanceOffsets(connection, [...batch.steps.values()]))) throw new OffsetsMovedError()
    const rows = [
      ...trades.map(({ event_type, symbol, rows }) => ({ type: event_type, symbol, rows })),
      ...quotes.map(({ symbol, rows }) => ({ type: 'bookTicker' as const, symbol, rows })),
    ]
    return {
      inserted: rows.reduce((sum, one) => sum + one.rows, gaps),
      deadLettered: batch.found.length + batch.mirrored.length,
      rows,
    }
  })
}
