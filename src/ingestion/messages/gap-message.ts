import { HEADER, schemaHeader } from '../../foundation/kafka/headers.ts'
import { partitionOf } from '../../foundation/kafka/partition-map.ts'
import type { TopicMetadata } from '../../foundation/kafka/topic-metadata.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { OutgoingMessage } from './outgoing-message.ts'

export interface GapMessageOptions {
  readonly topic: string
  readonly topics: ReadonlyMap<string, TopicMetadata>
  /** The process that writes it. */
  readonly instance: string
  /** On the monotonic clock. */
  readonly nowMs: number
}

/** The message of a row of the ledger. */
export function gapMessage(gap: Gap, { topic, topics, instance, nowMs }: GapMessageOptions): OutgoingMessage {
  return {
    topic,
    // By symbol, so that what its checkpoint does not know yet stands in one partition.
    partition: partitionOf(gap.symbol, topics.get(topic)?.partitions ?? 1),
    key: Buffer.from(gap.gap_id),
    value: Buffer.from(JSON.stringify(gap)),
    headers: new Map([
      [Buffer.from(HEADER.schema), Buffer.from(schemaHeader('gap'))],
      [Buffer.from(HEADER.instance), Buffer.from(instance)],
    ]),
    timestampMs: gap.updated_at,
    mark: null,
    gap,
    queuedAtMs: nowMs,
  }
}
