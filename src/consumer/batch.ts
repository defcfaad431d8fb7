import type { Gap } from '../market/gap.ts'
import { type BookTickerColumns, emptyBookTickerColumns } from '../store/book-ticker.ts'
import type { OffsetStep } from '../store/consumer-offsets.ts'
import type { DeadLetterRow } from '../store/dead-letters.ts'
import { emptyTradeColumns, type TradeColumns } from '../store/trades.ts'

/** A dead letter that the consumer itself found: to be produced to its topic before its row is written. */
export interface FoundDeadLetter {
  readonly row: DeadLetterRow
  readonly headers: ReadonlyArray<readonly [string, string]>
}

/** What is written in one transaction: rows as columns, and how far each partition thereby gets. */
export class Batch {
  readonly trades: TradeColumns = emptyTradeColumns()
  readonly bookTicker: BookTickerColumns = emptyBookTickerColumns()
  /** The highest revision of each gap in this batch. */
  readonly gaps = new Map<string, Gap>()
  readonly found: FoundDeadLetter[] = []
  /** Frames that ingestion rejected, read from the dead-letter topic. */
  readonly mirrored: DeadLetterRow[] = []
  readonly steps = new Map<string, OffsetStep>()
  /** Messages taken in, whatever became of them. */
  messages = 0
  /** On the monotonic clock. */
  readonly openedAtMs: number

  constructor(openedAtMs: number) {
    this.openedAtMs = openedAtMs
  }

  /** Records that a partition has got from `from` to `to` in this batch. */
  advance(partition: Omit<OffsetStep, 'firstOffset' | 'nextOffset'>, from: number, to: number): void {
    const key = `${partition.topic}:${partition.partition}`
    const firstOffset = this.steps.get(key)?.firstOffset ?? from
    this.steps.set(key, {
      topic: partition.topic,
      topicId: partition.topicId,
      partition: partition.partition,
      firstOffset,
      nextOffset: to,
    })
  }
}
