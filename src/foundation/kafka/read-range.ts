import { withinLimit } from '../runtime/backoff.ts'
import type { KafkaConnection } from './client.ts'
import type { FetchedMessage } from './codec/record-batch.ts'
import type { RecordFetcher } from './kafka-port.ts'
import { partitionOf, type TopicPartition } from './partition.ts'
import { type FetchLimits, PartitionFetcher } from './partition-fetcher.ts'

/** A range of a partition, up to before `end`. */
export interface Range extends TopicPartition {
  readonly start: number
  readonly end: number
}

/**
 * Reads a range of a partition from its leader.
 *
 * @throws if retention or a truncation removes messages of it meanwhile
 */
export async function readRange(
  fetcher: RecordFetcher,
  { topic, partition, start, end }: Range,
  limits: FetchLimits,
  onMessage: (message: FetchedMessage) => void,
): Promise<void> {
  let leaderEpoch = -1
  for (let offset = start; offset < end; ) {
    const fetched = await fetcher.read({ topic, partition, offset, leaderEpoch }, limits)
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

const LIMIT_MS = 30_000

const LIMITS = { maxWaitMs: 200, minBytes: 1, maxBytes: 8 << 20 }

/**
 * Returns the newest value of a key in a compacted topic; null without one. Reads the key's
 * partition from the start to its end at the time of the call; meant for topics with one message
 * per symbol.
 *
 * @throws after `limitMs`, or the error of a request
 */
export function latestValue(
  connection: KafkaConnection,
  topic: string,
  key: string,
  limitMs = LIMIT_MS,
): Promise<string | null> {
  const fetcher = new PartitionFetcher(connection, 'tapeline-latest-value', [topic])
  return latestValueBy(fetcher, topic, key, limitMs)
}

/** Like {@link latestValue}, with a fetcher of that topic, which is closed at the end. */
export async function latestValueBy(
  fetcher: RecordFetcher,
  topic: string,
  key: string,
  limitMs = LIMIT_MS,
): Promise<string | null> {
  try {
    return await withinLimit(read(fetcher, topic, key), limitMs, `${topic} could not be read`)
  } finally {
    await fetcher.close()
  }
}

async function read(fetcher: RecordFetcher, topic: string, key: string): Promise<string | null> {
  const partition = partitionOf(key, (await fetcher.connect()).get(topic)?.partitions ?? 1)
  const range = (await fetcher.offsetRanges()).find((one) => one.partition === partition)
  let value: string | null = null
  if (range === undefined) return null
  await readRange(fetcher, range, LIMITS, (message) => {
    if (message.key?.toString() === key) value = message.value?.toString() ?? null
  })
  return value
}
