import type { FetchedMessage } from '../foundation/kafka/codec/fetched-message.ts'
import { Decoder, type TopicKind } from '../foundation/kafka/message-decoder.ts'
import { isTradeType } from '../foundation/market/event.ts'
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

/**
 * A dead letter that the consumer found. It must be sent to its topic before its row is written.
 */
export interface FoundDeadLetter {
  readonly row: DeadLetterRow
  readonly headers: ReadonlyArray<readonly [string, string]>
}

/** The message of a row, needed if the database refuses the row. */
export interface RowOrigin {
  /** Shared by all messages of the partition. */
  readonly partition: PartitionOrigin
  readonly message: FetchedMessage
}

/** Tables whose rows come from messages, one message per row. */
export const ROW_TABLES = ['trades', 'book_ticker', 'gaps'] as const

export type RowTable = (typeof ROW_TABLES)[number]

/** The messages of the rows of a table, by the index of the row. */
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

/** The content of one transaction: rows as columns, and the new offset of each partition. */
export class Batch {
  /** Every gap revision, in the order of arrival. */
  readonly gapRows: Gap[] = []
  /** Recordings that ingestion announced. */
  readonly recordings: Recording[] = []
  readonly found: FoundDeadLetter[] = []
  /** Frames that ingestion rejected, read from the dead-letter topic. */
  readonly mirrored: DeadLetterRow[] = []
  /**
   * Dead letters of consumers, read from the dead-letter topic. A restored database may lack them.
   */
  readonly copies: DeadLetterRow[] = []
  /** The first event of each symbol and type after messages expired unread. */
  readonly firstsAfterLoss: FirstAfterLoss[] = []
  /** State of the losses once this batch is stored, by `lossKey`. */
  readonly losses = new Map<string, Loss>()
  readonly steps = new Map<string, OffsetStep>()
  /** When ingestion received the last event of each partition, in microseconds, by `keyOf`. */
  readonly lastReceivedUs = new Map<string, number>()
  readonly #origins: Readonly<Record<RowTable, Origins>> = {
    trades: new Origins(),
    book_ticker: new Origins(),
    gaps: new Origins(),
  }
  /** For latency metrics. */
  readonly times: Readonly<Record<'trades' | 'book_ticker', RowLatency>> = {
    trades: new RowLatency(),
    book_ticker: new RowLatency(),
  }
  #tradeRows: TradeRows | null = null
  #bookTickerRows: BookTickerRows | null = null
  #trades: TradeColumns | null = null
  #bookTicker: BookTickerColumns | null = null
  /** Messages taken in, including those that gave no row. */
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

  /** Whether the partition's next message may be added. A batch has no holes within a partition. */
  continuesAt(partition: PartitionOrigin, offset: number): boolean {
    const step = this.steps.get(keyOf(partition))
    return step === undefined || (step.nextOffset === offset && step.topicId === partition.topicId)
  }

  /** Records that this batch advances a partition from `from` to `offset`. */
  advance(
    { topic, topicId, partition }: PartitionOrigin,
    from: number,
    { offset, leaderEpoch }: { readonly offset: number; readonly leaderEpoch: number },
  ): void {
    const key = keyOf({ topic, partition })
    const firstOffset = this.steps.get(key)?.firstOffset ?? from
    this.steps.set(key, { topic, topicId, partition, firstOffset, nextOffset: offset, leaderEpoch })
  }

  /** Adds the event, gap or recording that the decoder has read from a message. */
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

  /** Removes a row that cannot be stored. @returns the message it came from */
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

  /** The rows of `trades` for INSERT. Decodes each message again, since INSERT is rarely needed. */
  tradeColumns(): TradeColumns {
    this.#trades ??= this.#decodeAgain('trades', emptyTradeColumns(), addTrade)
    return this.#trades
  }

  /** The rows of `book_ticker` for INSERT. */
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
      if (reason !== null)
        throw new Error(`A message was decoded before but cannot be decoded now: ${reason}`)
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

/** Event and receipt times of the rows of a table, by the index of the row. */
class RowLatency {
  /**
   * Milliseconds since the Unix epoch; NaN for a row without event time and for a backfilled row,
   * which is always late.
   */
  readonly eventMs: number[] = []
  /** Microseconds since the Unix epoch; NaN for a backfilled row. */
  readonly receivedUs: number[] = []

  add({ type, eventTimeMs, receivedUs, isBackfill }: EventFields): void {
    const hasEventTime = isTradeType(type) && eventTimeMs !== ABSENT && !isBackfill
    this.eventMs.push(hasEventTime ? eventTimeMs : Number.NaN)
    this.receivedUs.push(isBackfill ? Number.NaN : receivedUs)
  }

  remove(index: number): void {
    this.eventMs.splice(index, 1)
    this.receivedUs.splice(index, 1)
  }
}
