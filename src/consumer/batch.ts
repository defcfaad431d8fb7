import type { FetchedPartition } from '../kafka/partition-fetcher.ts'
import type { Gap } from '../market/gap.ts'
import { type BookTickerColumns, emptyBookTickerColumns } from '../store/book-ticker.ts'
import type { OffsetStep } from '../store/consumer-offsets.ts'
import type { DeadLetterRow } from '../store/dead-letters.ts'
import type { Loss } from '../store/losses.ts'
import { emptyTradeColumns, type TradeColumns } from '../store/trades.ts'
import { keyOf, type PartitionOrigin } from './partition.ts'
import type { FirstAfterLoss } from './retention-gaps.ts'

/** A dead letter that the consumer itself found: to be produced to its topic before its row is written. */
export interface FoundDeadLetter {
  readonly row: DeadLetterRow
  readonly headers: ReadonlyArray<readonly [string, string]>
}

/** A message as a fetch brought it. */
export type FetchedMessage = FetchedPartition['records'][number]

/** Where a row came from, should the database refuse it. */
export interface RowOrigin {
  /** Shared by all messages of the partition. */
  readonly partition: PartitionOrigin
  readonly message: FetchedMessage
}

/** Tables that take rows of messages; each row has its message. */
export const ROW_TABLES = ['trades', 'book_ticker', 'gaps'] as const

export type RowTable = (typeof ROW_TABLES)[number]

/** The messages behind the rows of a table, by the index of the row. */
class Origins {
  readonly #partitions: PartitionOrigin[] = []
  readonly #messages: FetchedMessage[] = []

  get length(): number {
    return this.#messages.length
  }

  add(partition: PartitionOrigin, message: FetchedMessage): void {
    this.#partitions.push(partition)
    this.#messages.push(message)
  }

  remove(index: number): RowOrigin {
    const [partition] = this.#partitions.splice(index, 1)
    const [message] = this.#messages.splice(index, 1)
    if (partition === undefined || message === undefined) throw new RangeError(`There is no row ${index}`)
    return { partition, message }
  }
}

/** What is written in one transaction: rows as columns, and how far each partition thereby gets. */
export class Batch {
  readonly trades: TradeColumns = emptyTradeColumns()
  readonly bookTicker: BookTickerColumns = emptyBookTickerColumns()
  /** Every revision that came, in the order in which they came. */
  readonly gapRows: Gap[] = []
  readonly found: FoundDeadLetter[] = []
  /** Frames that ingestion rejected, read from the dead-letter topic. */
  readonly mirrored: DeadLetterRow[] = []
  /** What consumers set aside before, read from the dead-letter topic: the database may be older than that. */
  readonly copies: DeadLetterRow[] = []
  /** Where messages had left their topic before: the first event of each symbol and type since. */
  readonly firstsAfterLoss: FirstAfterLoss[] = []
  /** What is known of losses when this batch is stored, by `lossKey`. */
  readonly losses = new Map<string, Loss>()
  readonly steps = new Map<string, OffsetStep>()
  readonly #origins: Readonly<Record<RowTable, Origins>> = {
    trades: new Origins(),
    book_ticker: new Origins(),
    gaps: new Origins(),
  }
  /** Messages taken in, whatever became of them. */
  messages = 0
  /** Bytes of their keys and values. */
  bytes = 0
  /** On the monotonic clock. */
  readonly openedAtMs: number

  constructor(openedAtMs: number) {
    this.openedAtMs = openedAtMs
  }

  /** The highest revision of each gap. */
  get gaps(): ReadonlyMap<string, Gap> {
    return highestRevisions(this.gapRows)
  }

  /** Whether the partition's next message may be added: what is in one batch of a partition has no holes. */
  continuesAt(partition: PartitionOrigin, offset: number): boolean {
    const step = this.steps.get(keyOf(partition))
    return step === undefined || (step.nextOffset === offset && step.topicId === partition.topicId)
  }

  /** Records that a partition has got from `from` to `to` in this batch. */
  advance({ topic, topicId, partition }: PartitionOrigin, from: number, to: number): void {
    const key = keyOf({ topic, partition })
    const firstOffset = this.steps.get(key)?.firstOffset ?? from
    this.steps.set(key, { topic, topicId, partition, firstOffset, nextOffset: to })
  }

  /** Remembers the message of the row that was added last to a table. */
  addOrigin(table: RowTable, partition: PartitionOrigin, message: FetchedMessage): void {
    this.#origins[table].add(partition, message)
  }

  rowCount(table: RowTable): number {
    return this.#origins[table].length
  }

  /** Takes a row out, since it cannot be stored. @returns the message it came from */
  removeRow(table: RowTable, index: number): RowOrigin {
    const origin = this.#origins[table].remove(index)
    for (const column of this.#columnsOf(table)) column.splice(index, 1)
    return origin
  }

  /** The row that was added last, by the kind of its topic. */
  lastRow(kind: 'trades' | 'bookTicker'): Omit<FirstAfterLoss, 'cause'> {
    const { trades, bookTicker } = this
    const i = (kind === 'trades' ? trades.tradeId : bookTicker.updateId).length - 1
    return {
      symbol: (kind === 'trades' ? trades.symbol[i] : bookTicker.symbol[i]) ?? '',
      eventType: kind === 'trades' ? (trades.eventType[i] ?? 'trade') : 'bookTicker',
      epoch: kind === 'trades' ? (trades.epoch[i] ?? 0) : 0,
      id: (kind === 'trades' ? trades.tradeId[i] : bookTicker.updateId[i]) ?? 0,
      timeMs:
        kind === 'trades'
          ? (trades.tradeTimeMs[i] ?? 0)
          : Math.floor((bookTicker.ingestionUs[i] ?? 0) / 1000),
    }
  }

  #columnsOf(table: RowTable): unknown[][] {
    switch (table) {
      case 'trades':
        return Object.values(this.trades)
      case 'book_ticker':
        return Object.values(this.bookTicker)
      case 'gaps':
        return [this.gapRows]
    }
  }
}

export function highestRevisions(gaps: readonly Gap[]): Map<string, Gap> {
  const highest = new Map<string, Gap>()
  for (const gap of gaps) {
    if ((highest.get(gap.gap_id)?.revision ?? 0) < gap.revision) highest.set(gap.gap_id, gap)
  }
  return highest
}
