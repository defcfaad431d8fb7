import type { Gap } from '../market/gap.ts'
import { type BookTickerColumns, emptyBookTickerColumns } from '../store/book-ticker.ts'
import type { OffsetStep } from '../store/consumer-offsets.ts'
import type { DeadLetterRow } from '../store/dead-letters.ts'
import { emptyTradeColumns, type TradeColumns } from '../store/trades.ts'
import type { FirstAfterLoss } from './retention-gaps.ts'

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
  /** Where messages had left their topic before: the first event of each symbol and type since. */
  readonly firstsAfterLoss: FirstAfterLoss[] = []
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

  /** The row that was added last, by the kind of its topic. */
  lastRow(kind: 'trades' | 'bookTicker'): FirstAfterLoss {
    const { trades, bookTicker } = this
    const i = (kind === 'trades' ? trades.tradeId : bookTicker.updateId).length - 1
    return {
      symbol: (kind === 'trades' ? trades.symbol[i] : bookTicker.symbol[i]) ?? '',
      eventType: kind === 'trades' ? (trades.eventType[i] ?? 'trade') : 'bookTicker',
      id: (kind === 'trades' ? trades.tradeId[i] : bookTicker.updateId[i]) ?? 0,
      timeMs:
        kind === 'trades'
          ? (trades.tradeTimeMs[i] ?? 0)
          : Math.floor((bookTicker.ingestionUs[i] ?? 0) / 1000),
    }
  }
}
