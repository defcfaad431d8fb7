import { FetchLoop, type FetchLoopPorts } from '../foundation/consumption/fetch-loop.ts'
import type { TopicNames } from '../foundation/kafka/config.ts'
import type { TopicKind } from '../foundation/kafka/message-decoder.ts'
import type { BatchBuilder } from './batch-builder.ts'
import type { ConsumerConfig } from './config.ts'

/** Some hundred messages. A broker that has fewer waits for `fetchMaxWaitMs`. */
const MIN_BYTES = 32 << 10

/**
 * Limit of an answer, compressed: some 4,000 messages. Storing them takes several times as long as
 * the next fetch, so more would only take memory.
 */
const MAX_BYTES = 256 << 10
const PARTITION_MAX_BYTES = 64 << 10

/** The topics that the consumer reads, with what is in them. Only ingestion reads the checkpoints. */
export function topicKinds({ trades, bookTicker, gaps, deadLetters }: TopicNames): Map<string, TopicKind> {
  return new Map([
    [trades, 'trades'],
    [bookTicker, 'bookTicker'],
    [gaps, 'gaps'],
    [deadLetters, 'deadLetters'],
  ])
}

/** Fetches into the batch builder, which keeps the positions. It pauses while batches wait. */
export function kafkaConsumer(
  { fetchMaxWaitMs, backoff }: Pick<ConsumerConfig, 'fetchMaxWaitMs' | 'backoff'>,
  batchBuilder: BatchBuilder,
  ports: Omit<FetchLoopPorts, 'buffer'>,
): FetchLoop {
  const limits = {
    maxWaitMs: fetchMaxWaitMs,
    minBytes: MIN_BYTES,
    maxBytes: MAX_BYTES,
    partitionMaxBytes: PARTITION_MAX_BYTES,
  }
  return new FetchLoop({ limits, backoff }, { ...ports, buffer: batchBuilder })
}
