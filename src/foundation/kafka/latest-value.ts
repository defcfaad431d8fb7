import { withinLimit } from '../runtime/limit.ts'
import type { KafkaConnection } from './connection.ts'
import type { RecordFetcher } from './kafka-port.ts'
import { PartitionFetcher } from './partition-fetcher.ts'
import { partitionOf } from './partition-map.ts'

const LIMIT_MS = 30_000

const LIMITS = { maxWaitMs: 200, minBytes: 1, maxBytes: 8 << 20 }

/**
 * The newest value under a key of a compacted topic, or null when there is none. Reads the key's partition from
 * its start to the end it had at the call; made for topics that hold one message a symbol.
 *
 * @throws after `limitMs`, or what a request rejected with
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

/** As {@link latestValue}, by a fetcher of that topic, which is closed at the end. */
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
  let offset = range?.start ?? 0
  let value: string | null = null
  while (offset < (range?.end ?? 0)) {
    const node = fetcher.leaderOf(topic, partition)
    if (node === null) throw new Error(`Partition ${partition} of ${topic} has no leader`)
    const [fetched] = await fetcher.fetch(node, [{ topic, partition, offset }], LIMITS)
    if (fetched?.error) throw new Error(`${topic}: ${fetched.error}`)
    if (fetched?.nextOffset == null) continue
    for (const message of fetched.messages) {
      if (message.key?.toString() === key) value = message.value?.toString() ?? null
    }
    offset = fetched.nextOffset
  }
  return value
}
