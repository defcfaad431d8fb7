import { realBrokers } from './broker-requests.ts'
import type { KafkaConnection } from './client.ts'
import { PartitionFetcher } from './partition-fetcher.ts'

/** The end of a partition. */
export interface EndOffset {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  readonly start: number
  readonly end: number
}

/** @throws if no broker answers, a partition has no leader, or a topic was recreated just now */
export async function readEnds(
  connection: KafkaConnection,
  clientId: string,
  topics: readonly string[],
  to = realBrokers(),
): Promise<EndOffset[]> {
  const fetcher = new PartitionFetcher(connection, clientId, topics, to)
  try {
    const metadata = await fetcher.connect()
    const ranges = await fetcher.offsetRanges()
    // Offset requests name the topic, not its id, so the topic may have been recreated since.
    for (const [topic, { id }] of await fetcher.connect())
      if (metadata.get(topic)?.id !== id) throw new Error(`Topic ${topic} was recreated just now`)
    return ranges.map((range) => ({ ...range, topicId: metadata.get(range.topic)?.id ?? '' }))
  } finally {
    await fetcher.close()
  }
}

/** Whether everything below the ends is stored; false if a topic was recreated meanwhile. */
export function isStoredUpTo(
  stored: ReadonlyArray<{
    readonly topic: string
    readonly topicId: string
    readonly partition: number
    readonly nextOffset: number
  }>,
  ends: readonly EndOffset[],
): boolean {
  return ends.every(
    ({ topic, topicId, partition, start, end }) =>
      start === end ||
      stored.some(
        (one) =>
          one.topic === topic &&
          one.topicId === topicId &&
          one.partition === partition &&
          one.nextOffset >= end,
      ),
  )
}
