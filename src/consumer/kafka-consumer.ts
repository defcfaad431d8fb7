import { PartitionReader, type ReaderPorts, topicKinds } from '../foundation/consumption/partition-reader.ts'
import type { ConsumerConfig } from './config.ts'

/** Some hundred messages. A broker that has fewer waits for `fetchMaxWaitMs`. */
const MIN_BYTES = 32 << 10

/**
 * Limit of an answer, compressed: some 4,000 messages. Storing them takes several times as long as
 * the next fetch, so more would only take memory.
 */
const MAX_BYTES = 256 << 10
const PARTITION_MAX_BYTES = 64 << 10

/**
 * Reads into a buffer, which keeps the positions. It pauses while batches wait.
 * @param lacking topics that do not exist yet
 */
export function kafkaConsumer(
  config: Pick<ConsumerConfig, 'topics' | 'fetchMaxWaitMs' | 'backoff' | 'sessionTimeoutMs'>,
  ports: ReaderPorts,
  lacking: Set<string>,
): PartitionReader {
  const { topics, fetchMaxWaitMs, backoff, sessionTimeoutMs } = config
  const limits = {
    maxWaitMs: fetchMaxWaitMs,
    minBytes: MIN_BYTES,
    maxBytes: MAX_BYTES,
    partitionMaxBytes: PARTITION_MAX_BYTES,
  }
  return new PartitionReader(
    { topics: [...topicKinds(topics).keys()], lacking, limits, backoff, sessionTimeoutMs },
    ports,
  )
}
