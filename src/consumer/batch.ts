import type { FetchedMessage } from '../foundation/kafka/codec/fetched-message.ts'
import { Decoder, type TopicKind } from '../foundation/kafka/message-decoder.ts'
import { ABSENT, type EventFields } from '../foundation/market/event-fields.ts'
import type { Gap } from '../foundation/market/gap.ts'
import type { Recording } from '../foundation/market/recording.ts'
import {
  addBookTicker,
  type BookTickerColumns,
  BookTickerRows,
  emptyBookTickerColumns,
} from '../foundation/store/book-ticker.ts'
import type { OffsetStep } from '../foundation/store/consumer-offsets.ts'
import type { DeadLetterRow } from '../foundation/store/dead-letters.ts'
import type { Loss } from '../foundation/store/losses.ts'
import { addTrade, emptyTradeColumns, type TradeColumns, TradeRows } from '../foundation/store/trades.ts'
import { keyOf, type PartitionOrigin } from './partition.ts'
import type { FirstAfterLoss } from './retention-gaps.ts'

/** A dead letter that the consumer itself found: to be produced to its topic before its row is written. */
export interface FoundDeadLetter {
  readonly row: DeadLetterRow
  readonly headers: ReadonlyArray<readonly [string, string]>
}

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

  get messages(): readonly FetchedMessage[] {
    return this.#messages
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
  /** Every revision that came, in the order in which they came. */
  readonly gapRows: Gap[] = []
  /** What ingestion announced that it records. */
  readonly recordings: Recording[] = []
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
  /** When ingestion received the last event of each partition, in microseconds, by `keyOf`. */
  readonly lastReceivedUs = new Map<string, number>()
  readonly #origins: Readonly<Record<RowTable, Origins>> = {
    trades: new Origins(),
    book_ticker: new Origins(),
    gaps: new Origins(),
  }
  /** For latencies. */
  readonly times: Readonly<Record<'trades' | 'book_ticker', RowLatency>> = {
    trades: new RowLatency(),
    book_ticker: new RowLatency(),
  }
  #tradeRows: TradeRows | null = null
  #bookTickerRows: BookTickerRows | null = null
  #trades: TradeColumns | null = null
  #bookTicker: BookTickerColumns | null = null
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

  /** Records that a partition has got from `from` to `offset` in this batch. */
  advance(
    { topic, topicId, partition }: PartitionOrigin,
    from: number,
    { offset, leaderEpoch }: { readonly offset: number; readonly leaderEpoch: number },
  ): void {
    const key = keyOf({ topic, partition })
    const firstOffset = this.steps.get(key)?.firstOffset ?? from
    this.steps.set(key, { topic, topicId, partition, firstOffset, nextOffset: offset, leaderEpoch })
  }

  /** Adds what the decoder has read of a message. */
  add(
    kind: Exclude<TopicKind, 'deadLetters'>,
    { event, gap, recording }: Pick<Decoder, 'event' | 'gap' | 'recording'>,
    partition: PartitionOrigin,
    message: FetchedMessage,
  ): void {
    switch (kind) {
      case 'trades':
        this.tradeRows.add(event)
        this.#trades = null
        this.#origins.trades.add(partition, message)
        this.times.trades.add(event)
        break
      case 'bookTicker':
        this.bookTickerRows.add(event)
        this.#bookTicker = null
        this.#origins.book_ticker.add(partition, message)
        this.times.book_ticker.add(event)
        break
      case 'gaps':
        if (recording !== null) this.recordings.push(recording)
        if (gap === null) return
        this.gapRows.push(gap)
        this.#origins.gaps.add(partition, message)
    }
  }

  rowCount(table: RowTable): number {
    return this.#origins[table].length
  }

  /** Takes a row out, since it cannot be stored. @returns the message it came from */
  removeRow(table: RowTable, index: number): RowOrigin {
    const origin = this.#origins[table].remove(index)
    if (table === 'gaps') this.gapRows.splice(index, 1)
    else this.times[table].remove(index)
    this.#forget(table)
    return origin
  }

  /** The rows of `trades` for COPY. */
  get tradeRows(): TradeRows {
    this.#tradeRows ??= this.#decodeAgain('trades', new TradeRows(), (rows, event) => rows.add(event))
    return this.#tradeRows
  }

  /** The rows of `book_ticker` for COPY. */
  get bookTickerRows(): BookTickerRows {
    this.#bookTickerRows ??= this.#decodeAgain('book_ticker', new BookTickerRows(), (rows, event) =>
      rows.add(event),
    )
    return this.#bookTickerRows
  }

  /** The same rows for INSERT. Each message is decoded once more for them, since they are hardly ever needed. */
  tradeColumns(): TradeColumns {
    this.#trades ??= this.#decodeAgain('trades', emptyTradeColumns(), addTrade)
    return this.#trades
  }

  /** Likewise. */
  bookTickerColumns(): BookTickerColumns {
    this.#bookTicker ??= this.#decodeAgain('book_ticker', emptyBookTickerColumns(), addBookTicker)
    return this.#bookTicker
  }

  #decodeAgain<Rows>(
    table: 'trades' | 'book_ticker',
    rows: Rows,
    add: (rows: Rows, event: EventFields) => void,
  ): Rows {
    const decoder = new Decoder()
    for (const message of this.#origins[table].messages) {
      const reason = decoder.decode(table === 'trades' ? 'trades' : 'bookTicker', message)
      if (reason !== null) throw new Error(`A message that was read before is read no more: ${reason}`)
      add(rows, decoder.event)
    }
    return rows
  }

  #forget(table: RowTable): void {
    if (table === 'trades') this.#tradeRows = this.#trades = null
    if (table === 'book_ticker') this.#bookTickerRows = this.#bookTicker = null
  }
}

export function highestRevisions(gaps: readonly Gap[]): Map<string, Gap> {
  const highest = new Map<string, Gap>()
  for (const gap of gaps) {
    if ((highest.get(gap.gap_id)?.revision ?? 0) < gap.revision) highest.set(gap.gap_id, gap)
  }
  return highest
}

/** When the rows of a table happened and were received, by the index of the row. */
class RowLatency {
  /** Milliseconds since the Unix epoch; not a number for a row that has no event time, or is late by its nature: backfilled. */
  readonly eventMs: number[] = []
  /** Microseconds since the Unix epoch; not a number for a backfilled row. */
  readonly receivedUs: number[] = []

  add({ type, eventTimeMs, receivedUs, isBackfill }: EventFields): void {
    const hasEventTime = type !== 'bookTicker' && eventTimeMs !== ABSENT && !isBackfill
    this.eventMs.push(hasEventTime ? eventTimeMs : Number.NaN)
    this.receivedUs.push(isBackfill ? Number.NaN : receivedUs)
  }

  remove(index: number): void {
    this.eventMs.splice(index, 1)
    this.receivedUs.splice(index, 1)
  }
}
