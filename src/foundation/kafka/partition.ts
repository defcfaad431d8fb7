import { murmur2 } from '@platformatic/kafka'

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

/** Offsets of a partition, from `start` to before `end`. */
export interface OffsetRange extends TopicPartition {
  readonly start: number
  readonly end: number
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
