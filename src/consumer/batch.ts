import type { DeadLetterRow } from '../foundation/dead-letters/dead-letter.ts'
import type { FetchedMessage } from '../foundation/kafka/codec/record-batch.ts'
import type { Decoder, TopicKind } from '../foundation/kafka/message-decoder.ts'
import { keyOf, type PartitionOrigin } from '../foundation/kafka/partition.ts'
import { byEventType, exchangeTimeMs, isStreamType } from '../foundation/market/event.ts'
import { ABSENT, type EventFields, type KnownSymbol } from '../foundation/market/event-fields.ts'
import type { Gap } from '../foundation/market/gap.ts'
import type { Recording } from '../foundation/market/recording.ts'
import type { OffsetStep } from '../foundation/store/consumer-offsets.ts'
import { DEPTH_SNAPSHOTS, DEPTH_UPDATES, TABLE_OF } from '../foundation/store/depth-tables.ts'
import { type Loss, lossKey } from '../foundation/store/losses.ts'
import { BOOK_TICKER, MarketRows, TRADES } from '../foundation/store/market-rows.ts'
import type { FirstAfterLoss } from './retention-gaps.ts'

/** How far a partition was read. */
export interface ReadUpTo {
  /** The offset of the next message. */
  readonly next: number
  /** The leader epoch of the message before it; −1 if unknown. */
  readonly leaderEpoch: number
  /** When ingestion received the last event, in microseconds since the Unix epoch; null if none. */
  readonly receivedUs: number | null
}

/** The messages of one partition in a batch. */
export type BatchStep = OffsetStep & Pick<ReadUpTo, 'receivedUs'>

/** Tables whose rows come from messages, one message per row. */
export const ROW_TABLES = ['trades', 'book_ticker', 'depth_updates', 'depth_snapshots', 'gaps'] as const

export type RowTable = (typeof ROW_TABLES)[number]

/** By the index of a row of a table: its message, for a dead letter, and its times, for latency metrics. */
class Origins {
  readonly partitions: PartitionOrigin[] = []
  readonly messages: FetchedMessage[] = []
  /**
   * Milliseconds since the Unix epoch; NaN for a row without event time and for one that did not
   * come from the stream, which is always late.
   */
  readonly eventMs: number[] = []
  /** Microseconds since the Unix epoch; NaN for a row that did not come from the stream. */
  readonly receivedUs: number[] = []

  add(partition: PartitionOrigin, message: FetchedMessage, eventMs: number, receivedUs: number): void {
    this.partitions.push(partition)
    this.messages.push(message)
    this.eventMs.push(eventMs)
    this.receivedUs.push(receivedUs)
  }

  remove(index: number) {
    const [partition] = this.partitions.splice(index, 1)
    const [message] = this.messages.splice(index, 1)
    if (partition === undefined || message === undefined) throw new RangeError(`There is no row ${index}`)
    this.eventMs.splice(index, 1)
    this.receivedUs.splice(index, 1)
    return { partition, message }
  }
}

/** The content of one transaction: rows, and the new offset of each partition. */
export class Batch {
  /** Every gap revision, in the order of arrival. */
  readonly gaps: Gap[] = []
  /** Recordings that ingestion announced. */
  readonly recordings: Recording[] = []
  readonly found: DeadLetterRow[] = []
  /** Frames that ingestion rejected, read from the dead-letter topic. */
  readonly mirrored: DeadLetterRow[] = []
  /** Dead letters of consumers, read from the dead-letter topic. A restored database may lack them. */
  readonly copies: DeadLetterRow[] = []
  /** The first event of each symbol and type after messages expired unread. */
  readonly firstsAfterLoss: FirstAfterLoss[] = []
  /** State of the losses once this batch is stored, by `lossKey`. */
  readonly losses = new Map<string, Loss>()
  /** By `keyOf`. */
  readonly steps = new Map<string, BatchStep>()
  readonly rows = {
    trades: new MarketRows(TRADES),
    book_ticker: new MarketRows(BOOK_TICKER),
    depth_updates: new MarketRows(DEPTH_UPDATES),
    depth_snapshots: new MarketRows(DEPTH_SNAPSHOTS),
  }
  readonly origins: Readonly<Record<RowTable, Origins>> = {
    trades: new Origins(),
    book_ticker: new Origins(),
    depth_updates: new Origins(),
    depth_snapshots: new Origins(),
    gaps: new Origins(),
  }
  /** Messages taken in, including those that gave no row. */
  messages = 0
  /** Bytes that they take in memory. */
  bytes = 0
  /** On the monotonic clock. */
  readonly openedAtMs: number

  constructor(openedAtMs: number) {
    this.openedAtMs = openedAtMs
  }

  /** Records that this batch advances a partition from `from` to where it was read. */
  advance({ topic, topicId, partition }: PartitionOrigin, from: number, read: ReadUpTo): void {
    const key = keyOf({ topic, partition })
    const { next: nextOffset, leaderEpoch, receivedUs } = read
    const firstOffset = this.steps.get(key)?.firstOffset ?? from
    this.steps.set(key, { topic, topicId, partition, firstOffset, nextOffset, leaderEpoch, receivedUs })
  }

  /**
   * Adds the event, gap or recording that the decoder has read from a message.
   */
  add(
    kind: Exclude<TopicKind, 'deadLetters'>,
    { event, gap, recording }: Pick<Decoder, 'event' | 'gap' | 'recording'>,
    partition: PartitionOrigin,
    message: FetchedMessage,
  ): void {
    if (kind === 'gaps') {
      if (recording !== null) this.recordings.push(recording)
      if (gap === null) return
      this.gaps.push(gap)
      this.origins.gaps.add(partition, message, Number.NaN, Number.NaN)
      return
    }
    const table = TABLE_OF[event.type].name
    this.rows[table].add(event)
    const { source, receivedUs, eventTimeUs } = event
    const isLate = source !== 'stream'
    const eventMs = eventTimeUs === ABSENT || isLate ? Number.NaN : Math.floor(eventTimeUs / 1000)
    this.origins[table].add(partition, message, eventMs, isLate ? Number.NaN : receivedUs)
  }

  rowCount(table: RowTable): number {
    return this.origins[table].messages.length
  }

  /** Removes a row that cannot be stored. @returns the message it came from */
  removeRow(table: RowTable, index: number) {
    const origin = this.origins[table].remove(index)
    if (table === 'gaps') this.gaps.splice(index, 1)
    else this.rows[table].remove(index)
    return origin
  }
}

/**
 * Finds the first event of each symbol and type in a partition, after messages expired unread or
 * since the very first start. Adds each to the batch, with what is known of the loss, so that it is
 * stored with the batch's rows.
 */
export class FirstEvents {
  readonly #loss: Loss
  readonly #seen: Set<string>
  /** Most events share a symbol object, so the check needs no string. */
  readonly #met = byEventType(() => new WeakSet<KnownSymbol>())

  private constructor(loss: Loss) {
    this.#loss = loss
    this.#seen = new Set(loss.seen)
  }

  /** @returns null at the first start for quotes: they have no ids, so no sequence begins */
  static after(loss: Loss, kind: TopicKind): FirstEvents | null {
    return kind === 'bookTicker' && loss.cause === 'start' ? null : new FirstEvents(loss)
  }

  observe(batch: Batch, event: EventFields): void {
    // A backfilled or imported trade is late, so it does not show where the stream resumed.
    if (event.source !== 'stream') return
    const { type: eventType, epoch, id, firstId } = event
    if (!isStreamType(eventType)) return
    const met = this.#met[eventType]
    if (met.has(event.symbol)) return
    met.add(event.symbol)
    const symbol = event.symbol.text
    const key = `${symbol} ${eventType}`
    if (this.#seen.has(key)) return
    this.#seen.add(key)
    const { cause, to } = this.#loss
    const timeMs = exchangeTimeMs(event) ?? Math.floor(event.receivedUs / 1000)
    const loss = `${lossKey(this.#loss)}:${to}`
    batch.firstsAfterLoss.push({ symbol, eventType, epoch, id, firstId, timeMs, cause, loss })
    this.noteIn(batch)
  }

  /** Adds what is known of the loss to a batch, for the next reader of the partition. */
  noteIn(batch: Batch): void {
    batch.losses.set(lossKey(this.#loss), { ...this.#loss, seen: [...this.#seen] })
  }
}
