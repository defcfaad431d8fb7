import type { EventType } from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { ByteSlice } from '../../foundation/runtime/byte-slice.ts'

/** Which event a message is, for what is known once Kafka has acknowledged it. */
export interface EventMark {
  readonly symbol: string
  readonly type: EventType
  readonly epoch: number
  /** Trade id, aggregate trade id or update id. */
  readonly id: number
  /** Trade time, or receipt for bookTicker; milliseconds since the Unix epoch. */
  readonly timeMs: number
  /**
   * Of a quote: by how many milliseconds the clock that stamped it was ahead of the exchange's; null where it is known
   * that this is unknown, absent where it is as for the quote before.
   */
  readonly clockAheadMs?: number | null | undefined
}

/** A message on its way to Kafka. */
export interface OutgoingMessage {
  readonly topic: string
  readonly partition: number
  readonly key: Buffer | null
  readonly value: Buffer
  /** Where the value stands, where it has no buffer of its own. */
  readonly slice?: ByteSlice
  readonly headers: Map<Buffer, Buffer>
  /** Milliseconds since the Unix epoch: the time of ingestion, always. */
  readonly timestampMs: number
  /** Null for rejected frames, gaps and checkpoints, which are counted apart from events. */
  readonly mark: EventMark | null
  /** Only quotes have it. Lets the message carry the row of the ledger for an outage before it. A start enters it where the ledger's topic lacks it. */
  endOutage?(outage: Gap): void
  /** Of a message that is a row of the ledger. */
  readonly gap?: Gap
  /** On the monotonic clock. */
  readonly queuedAtMs: number
}
