import { realBrokers } from './client-requests.ts'
import type { KafkaConnection } from './connection.ts'
import { PartitionFetcher } from './partition-fetcher.ts'

/** How far a partition reaches. */
export interface EndOffset {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  readonly start: number
  readonly end: number
}

/** @throws while no broker answers, a partition has no leader, or a topic was made again just now */
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
    // Requests for offsets name the topic, not its id: they may be of one that was made since.
    for (const [topic, { id }] of await fetcher.connect())
      if (metadata.get(topic)?.id !== id) throw new Error(`Topic ${topic} was recreated just now`)
    return ranges.map((range) => ({ ...range, topicId: metadata.get(range.topic)?.id ?? '' }))
  } finally {
    await fetcher.close()
  }
}

/** Whether everything below the ends is stored. A topic that was made again meanwhile is not. */
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
