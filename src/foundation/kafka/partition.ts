import { murmur2, protocolErrorsCodesById } from '@platformatic/kafka'
import type { FetchAnswer } from './codec/fetch-api.ts'
import type { FetchedMessage } from './codec/fetched-message.ts'
import { messagesOf } from './codec/record-batch.ts'

export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

/** A partition of one incarnation of its topic. */
export interface PartitionOrigin extends TopicPartition {
  readonly topicId: string
}

/** A position in a partition; `offset` is the next message to read. */
export interface Position extends TopicPartition {
  readonly offset: number
  /** The leader epoch of the message before it; −1 or absent if unknown. */
  readonly leaderEpoch?: number
}

/** For maps and sets. */
export function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}:${partition}`
}

/** Deletes the entries of a topic, by {@link keyOf}. */
export function deleteTopic(byPartition: Map<string, unknown>, topic: string): void {
  for (const key of byPartition.keys()) if (key.startsWith(`${topic}:`)) byPartition.delete(key)
}

/**
 * Returns the partition that Java's default partitioner gives a key: `toPositive(murmur2(key)) %
 * partitions`. Set explicitly on every message, since the defaults of other clients differ.
 */
export function partitionOf(key: string, partitions: number): number {
  return (murmur2(Buffer.from(key, 'utf8')) & 0x7fffffff) % partitions
}

/** The result of one fetch for one partition. */
export interface FetchedPartition extends TopicPartition {
  /** Kafka's error name, like `OFFSET_OUT_OF_RANGE`; null without an error. */
  readonly error: string | null
  /** The offset after the last message that all in-sync replicas have. */
  readonly endOffset: number
  /** The oldest offset that retention has kept. */
  readonly startOffset: number
  /** The position after the last batch, even if compaction has emptied it; null without a batch. */
  readonly nextOffset: number | null
  /** The leader epoch of the last batch; −1 without one. */
  readonly nextLeaderEpoch: number
  /**
   * Set if the log has lost messages before the requested position and may have others in their
   * place: what was read is still there up to `offset`. Null if not, or if the position has no
   * leader epoch.
   */
  readonly diverging: { readonly offset: number; readonly leaderEpoch: number } | null
  /** In ascending order of offset; may begin before the requested position. */
  readonly messages: readonly FetchedMessage[]
}

type PartitionAnswer = FetchAnswer['responses'][number]['partitions'][number]

/** Returns what a broker answered for a partition. */
export function fetchedPartition(topic: string, answer: PartitionAnswer): FetchedPartition {
  const {
    partitionIndex: partition,
    errorCode,
    highWatermark,
    logStartOffset,
    divergingEpoch,
    records,
  } = answer
  const last = records?.at(-1)
  const names: Readonly<Record<string, string>> = protocolErrorsCodesById
  return {
    topic,
    partition,
    error: errorCode === 0 ? null : (names[errorCode] ?? `error ${errorCode}`),
    endOffset: Number(highWatermark),
    startOffset: Number(logStartOffset),
    nextOffset: last === undefined ? null : Number(last.firstOffset) + last.lastOffsetDelta + 1,
    nextLeaderEpoch: last?.partitionLeaderEpoch ?? -1,
    diverging:
      divergingEpoch === undefined || divergingEpoch.epoch < 0
        ? null
        : { offset: Number(divergingEpoch.endOffset), leaderEpoch: divergingEpoch.epoch },
    messages: (records ?? []).flatMap(messagesOf),
  }
}
