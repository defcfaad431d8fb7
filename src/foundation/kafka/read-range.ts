import { withinLimit } from '../runtime/backoff.ts'
import { realBrokers } from './broker-connections.ts'
import type { FetchedMessage } from './codec/record-batch.ts'
import type { KafkaConnection } from './config.ts'
import type { RecordFetcher } from './kafka-port.ts'
import { type OffsetRange, type PartitionOrigin, partitionOf } from './partition.ts'
import { PartitionFetcher } from './partition-fetcher.ts'

/** The oldest and the next offset of a partition. */
export type EndOffset = OffsetRange & PartitionOrigin

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

/** Counts the messages below the ends that are not stored. Positions in a deleted topic do not count. */
export function countUnstored(
  stored: ReadonlyArray<PartitionOrigin & { readonly nextOffset: number }>,
  ends: readonly EndOffset[],
): number {
  return ends.reduce((sum, { topic, topicId, partition, start, end }) => {
    const of = stored.filter(
      (one) => one.topic === topic && one.topicId === topicId && one.partition === partition,
    )
    const reached = of.reduce((most, { nextOffset }) => Math.max(most, nextOffset), start)
    return sum + Math.max(0, end - reached)
  }, 0)
}

/** Whether everything below the ends is stored; false if a topic was recreated meanwhile. */
export function isStoredUpTo(...args: Parameters<typeof countUnstored>): boolean {
  return countUnstored(...args) === 0
}

const LIMIT_MS = 30_000
const LIMITS = { maxWaitMs: 200, minBytes: 1, maxBytes: 8 << 20 }

/** Reads a range of a partition. @throws if retention or a truncation removes messages of it meanwhile */
export async function readRange(
  fetcher: RecordFetcher,
  { topic, partition, start, end }: OffsetRange,
  onMessage: (message: FetchedMessage) => void,
): Promise<void> {
  let leaderEpoch = -1
  for (let offset = start; offset < end; ) {
    const fetched = await fetcher.read({ topic, partition, offset, leaderEpoch }, LIMITS)
    const { error, diverging, nextOffset, endOffset } = fetched
    if (error !== null || diverging !== null || (nextOffset === null && endOffset < end)) {
      throw new Error(
        `Partition ${partition} of ${topic} lost messages while it was read, at offset ${offset}`,
      )
    }
    for (const message of fetched.messages)
      if (message.offset >= offset && message.offset < end) onMessage(message)
    if (nextOffset === null) continue
    offset = nextOffset
    leaderEpoch = fetched.nextLeaderEpoch
  }
}

/**
 * Returns the newest value of a key in a compacted topic with few messages; null without one.
 * @param fetcher of that topic; it is closed at the end
 * @throws after `limitMs`, or the error of a request
 */
export async function latestValue(
  fetcher: RecordFetcher,
  topic: string,
  key: string,
  limitMs = LIMIT_MS,
): Promise<string | null> {
  const read = async (): Promise<string | null> => {
    const partition = partitionOf(key, (await fetcher.connect()).get(topic)?.partitions ?? 1)
    const range = (await fetcher.offsetRanges()).find((one) => one.partition === partition)
    let value: string | null = null
    if (range === undefined) return null
    await readRange(fetcher, range, (message) => {
      if (message.key?.toString() === key) value = message.value?.toString() ?? null
    })
    return value
  }
  try {
    return await withinLimit(read(), limitMs, `${topic} could not be read`)
  } finally {
    await fetcher.close()
  }
}
