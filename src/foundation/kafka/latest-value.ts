import { withinLimit } from '../runtime/limit.ts'
import type { KafkaConnection } from './connection.ts'
import type { RecordFetcher } from './kafka-port.ts'
import { PartitionFetcher } from './partition-fetcher.ts'
import { partitionOf } from './partition-map.ts'
import { readRange } from './read-range.ts'

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
