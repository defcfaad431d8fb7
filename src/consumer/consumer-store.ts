import { SECOND_UNDER_ID } from '../foundation/market/event.ts'
import type { StoredOffset } from '../foundation/store/consumer-offsets.ts'
import type { Loss } from '../foundation/store/losses.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { Batch, RowTable } from './batch.ts'
import type { TryRows } from './rejected-rows.ts'
import type { StartPositions } from './start-positions.ts'

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
  /** The batch has messages of a topic that was deleted and made again since: they are stored, its offset is another's. */
  readonly isOfRecreated: boolean
}

/** The database was restored: its offsets are below this batch. Nothing was written; positions must be read again. */
export class OffsetsMovedError extends Error {
  constructor() {
    super('The offsets in the database are below those read: the database was restored')
    this.name = 'OffsetsMovedError'
  }
}

/** Rows of `trades` whose id and time another event has in the table, or earlier in the batch. Nothing was written. */
export class SecondUnderIdError extends Error {
  /** The connection can be used on, as after a refusal of the server. */
  readonly code = 'SECOND_UNDER_ID'
  /** Rising. */
  readonly indexes: readonly number[]

  constructor(indexes: readonly number[]) {
    super(`${plural(indexes.length, 'row')} of trades: ${SECOND_UNDER_ID}`)
    this.name = 'SecondUnderIdError'
    this.indexes = indexes
  }
}

/**
 * What the consumer needs of the database. Each method is one transaction, or none; all reject with the database's
 * own error, which `failures.ts` tells apart.
 */
export interface ConsumerStore {
  /**
   * Writes rows, dead letters and offsets of a batch, all or nothing. Writing it again, after a COMMIT of which no
   * answer came, adds nothing.
   *
   * @throws OffsetsMovedError
   * @throws SecondUnderIdError
   */
  write(batch: Batch): Promise<Written>
  /** Lets `search` try rows of the batch in a transaction that is taken back at the end. */
  probe<Result>(
    batch: Batch,
    search: (rowsOf: (table: RowTable) => TryRows) => Promise<Result>,
  ): Promise<Result>
  readOffsets(): Promise<readonly StoredOffset[]>
  readLosses(): Promise<readonly Loss[]>
  /** Decides on what is stored, and writes what is to be written, one consumer at a time. */
  establish(decide: (stored: readonly StoredOffset[]) => StartPositions): Promise<StartPositions>
  /** Takes a stored offset back, unless it is lower than that. */
  takeBack(offset: StoredOffset): Promise<void>
}
