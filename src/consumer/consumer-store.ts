import { SECOND_UNDER_ID } from '../foundation/market/event.ts'
import type { StoredOffset } from '../foundation/store/consumer-offsets.ts'
import type { Loss } from '../foundation/store/losses.ts'
import type { Inserted } from '../foundation/store/market-rows.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { Batch, RowTable } from './batch.ts'

/** Where a consumer starts to read. */
export interface StartPositions {
  /** The start of every partition. */
  readonly positions: readonly StoredOffset[]
  /** Positions that the database lacks. */
  readonly toWrite: readonly StoredOffset[]
  /** Unread messages of a recreated topic; on the very first start, where events begin. */
  readonly losses: readonly Loss[]
  /** Messages for the operator, one sentence each. */
  readonly notices: readonly string[]
}

/** What a batch added to the database. */
export interface Written {
  /** New rows of trades, book_ticker and gaps. */
  readonly inserted: number
  /** Messages that became dead letters now or earlier. */
  readonly deadLettered: number
  /** New rows, by event type and symbol. */
  readonly rows: readonly Inserted[]
  /**
   * The batch has messages of a topic that was recreated since. They are stored; the stored offset
   * is that of the new topic.
   */
  readonly isOfRecreated: boolean
}

/**
 * The database was restored and its offsets are below this batch. Nothing was written; positions
 * must be read again.
 */
export class OffsetsMovedError extends Error {
  constructor() {
    super('The offsets in the database are below those read: the database was restored')
    this.name = 'OffsetsMovedError'
  }
}

/**
 * Rows of `trades` whose id and time belong to another event, in the table or earlier in the batch.
 * Nothing was written.
 */
export class SecondUnderIdError extends Error {
  /** A code as the server's errors have: it marks the connection as still usable. */
  readonly code = 'SECOND_UNDER_ID'
  /** In ascending order. */
  readonly indexes: readonly number[]

  constructor(indexes: readonly number[]) {
    super(`${plural(indexes.length, 'row')} of trades: ${SECOND_UNDER_ID}`)
    this.name = 'SecondUnderIdError'
    this.indexes = indexes
  }
}

/**
 * Writes rows `[from, to)` and rolls them back when the database refuses one of them.
 *
 * @returns null when all were accepted; the error when a row was refused (see `failures.ts`);
 *   rejects with other errors
 */
export type TryRows = (from: number, to: number) => Promise<unknown>

/**
 * The database operations of the consumer. Each method is at most one transaction. All reject with
 * the database's error, which `failures.ts` classifies.
 */
export interface ConsumerStore {
  /**
   * Writes rows, dead letters and offsets of a batch, all or nothing. Writing it again after a
   * COMMIT without an answer adds nothing.
   *
   * @throws OffsetsMovedError
   * @throws SecondUnderIdError
   */
  write(batch: Batch): Promise<Written>
  /** Lets `search` try rows of the batch in a transaction that is rolled back at the end. */
  probe(batch: Batch, search: (rowsOf: (table: RowTable) => TryRows) => Promise<void>): Promise<void>
  readOffsets(): Promise<readonly StoredOffset[]>
  readLosses(): Promise<readonly Loss[]>
  /**
   * Calls `decide` with the stored offsets and writes its result. Only one consumer at a time does
   * this.
   */
  establish(decide: (stored: readonly StoredOffset[]) => StartPositions): Promise<StartPositions>
  /** Lowers a stored offset; a lower stored offset stays. */
  takeBack(offset: StoredOffset): Promise<void>
}
