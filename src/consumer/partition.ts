export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

/** A partition of one incarnation of its topic. */
export interface PartitionOrigin extends TopicPartition {
  readonly topicId: string
}

/** For maps and sets. */
export function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}:${partition}`
}
