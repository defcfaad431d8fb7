import type { EndOffset } from '../../foundation/kafka/read-range.ts'
import { EVENT_SOURCES, type EventSource } from '../../foundation/market/event-fields.ts'
import type { IdRow } from '../../foundation/market/gap-requests.ts'
import type { IdRange } from '../../foundation/market/id-ranges.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import type { LedgerFilter, TimedRange } from '../../foundation/store/ledger-rows.ts'
import type { DailyFile, DailyType } from './daily-file.ts'

/** A trade of a file or a store, with the digits that a table has. */
export interface HistoryRow {
  readonly id: number
  /** Eight decimals. */
  readonly price: string
  readonly quantity: string
  /** Microseconds; a time in milliseconds ends in 000. */
  readonly timeUs: number
  readonly isBuyerMaker: boolean
  /** aggTrades only; null in one that the exchange has invalidated. */
  readonly firstTradeId: number | null
  readonly lastTradeId: number | null
}

export interface StoredRow extends HistoryRow {
  readonly source: EventSource
}

export type TradeStream = Required<LedgerFilter>

/** The stored trades at one moment: of the database, or of the archive. */
export interface HistoryStore {
  /** Name of the exchange and the unit of the times; null if the store has no data yet. */
  identity(): Promise<{ readonly source: string; readonly timeUnit: TimeUnit } | null>
  /** Counts the messages below these ends that are not stored. */
  unstored(ends: readonly EndOffset[]): Promise<number>
  /** Yields the rows of a file's day, ids ascending. */
  rowsOf(file: DailyFile): AsyncIterable<readonly StoredRow[]>
  /**
   * Yields which ids of a range are stored, ascending, with a time of the file's day or a day from it.
   * An id of another epoch is another trade.
   */
  idsOf(file: DailyFile, range: IdRange, epoch: number): AsyncIterable<readonly IdRange[]>
  /** The epoch of a trade at this time: that of the last one before it, or a later one of the ledger. */
  epochAt(symbol: string, type: DailyType, timeUs: number): Promise<number>
  /** The ledger's rows with ids. */
  gapsOf(stream: TradeStream): Promise<IdRow[]>
  /** Which ids of each range are not stored. */
  missingOf(stream: TradeStream, ranges: readonly TimedRange[]): Promise<IdRange[][]>
}

/**
 * Reads a row of texts as PostgreSQL prints them: id, price, quantity, time in microseconds, side, first
 * and last trade id, source.
 */
export function storedRow(row: readonly (string | null)[]): StoredRow {
  const [id, price, quantity, timeUs, isBuyerMaker, first, last, source] = row
  return {
    id: Number(id),
    price: price ?? '',
    quantity: quantity ?? '',
    timeUs: Number(timeUs),
    isBuyerMaker: isBuyerMaker === 't',
    firstTradeId: idOrNull(first),
    lastTradeId: idOrNull(last),
    source: EVENT_SOURCES.find((one) => one === source) ?? 'stream',
  }
}

function idOrNull(text: string | null | undefined): number | null {
  return text === null || text === undefined ? null : Number(text)
}
