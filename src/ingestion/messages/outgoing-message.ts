import type { EventType } from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { ByteSlice } from '../../foundation/runtime/byte-slice.ts'

/** Identifies the event of a message, for use after its acknowledgement. */
export interface EventMark {
  readonly symbol: string
  readonly type: EventType
  readonly epoch: number
  /** Trade id, aggregate trade id or update id. */
  readonly id: number
  /** Trade time, or receipt for bookTicker; milliseconds since the Unix epoch. */
  readonly timeMs: number
  /**
   * For quotes: how far the stamping clock was ahead of the exchange's, in milliseconds. Null if
   * unknown; absent if unchanged since the previous quote.
   */
  readonly clockAheadMs?: number | null | undefined
}

/** A message on its way to Kafka. */
export interface OutgoingMessage {
  readonly topic: string
  readonly partition: number
  readonly key: Buffer | null
  readonly value: Buffer
  /** The slice with the value, if it has no separate buffer. */
  readonly slice?: ByteSlice
  readonly headers: Map<Buffer, Buffer>
  /** Milliseconds since the Unix epoch; always the time of ingestion. */
  readonly timestampMs: number
  /** Null for rejected frames, gaps and checkpoints, which are counted separately. */
  readonly mark: EventMark | null
  /**
   * Quotes only. Attaches the ledger row of the outage before the quote. A later start enters the
   * row if the ledger's topic lacks it.
   */
  endOutage?(outage: Gap): void
  /** The row, if the message is a ledger row. */
  readonly gap?: Gap
  /** On the monotonic clock. */
  readonly queuedAtMs: number
}
