import type { KafkaConnection } from '../../foundation/kafka/connection.ts'
import type { TopicPartition } from '../../foundation/kafka/partition.ts'
import { PartitionFetcher } from '../../foundation/kafka/partition-fetcher.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { StoredOffset } from '../../foundation/store/consumer-offsets.ts'
import { finding } from './findings.ts'
import type { Finding, Watermark } from './report-types.ts'

/** The offsets of a partition in Kafka. */
export interface PartitionEnd {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  readonly start: number
  readonly end: number
}

/** Reads the end offsets of Kafka, or returns why that failed. */
export interface EndOffsets {
  read(): Promise<readonly PartitionEnd[] | { readonly notReached: string }>
  close(): Promise<void>
}

/** Connects at once, so that no transaction waits for an unavailable broker. Never rejects. */
export async function openEndOffsets(
  connection: KafkaConnection,
  topics: readonly string[],
): Promise<EndOffsets> {
  const fetcher = new PartitionFetcher(connection, 'tapeline-verify', topics)
  const notReached = (error: unknown) => ({
    notReached: `${connection.brokers.join()}: ${describeError(error)}`,
  })
  try {
    const metadata = await fetcher.connect()
    return {
      read: async () => {
        try {
          const ranges = await fetcher.offsetRanges()
          return ranges.map((range) => ({ ...range, topicId: metadata.get(range.topic)?.id ?? '' }))
        } catch (error) {
          return notReached(error)
        }
      },
      close: () => fetcher.close(),
    }
  } catch (error) {
    const answer = notReached(error)
    await fetcher.close()
    return { read: async () => answer, close: async () => {} }
  }
}

/**
 * Computes which messages are in Kafka but not in the snapshot. Offsets are stored in the
 * transactions of their rows, so the offsets of the snapshot are exact. `ends` must be read after
 * the snapshot was taken; otherwise messages in between would be missed.
 */
export function watermarkOf(
  stored: readonly StoredOffset[],
  ends: readonly PartitionEnd[] | { readonly notReached: string },
): Watermark {
  if ('notReached' in ends) {
    return {
      notReached: ends.notReached,
      partitions: stored
        .map(({ topic, partition, nextOffset }) => ({
          topic,
          partition,
          stored: nextOffset,
          end: null,
          pending: null,
        }))
        .sort(byPlace),
      pending: null,
    }
  }
  const partitions = ends
    .map(({ topic, topicId, partition, start, end }) => {
      // Offsets of a recreated topic are not comparable.
      const row = stored.find(
        (one) => one.topic === topic && one.partition === partition && one.topicId === topicId,
      )
      const from = Math.max(row?.nextOffset ?? start, start)
      return { topic, partition, stored: row?.nextOffset ?? null, end, pending: Math.max(0, end - from) }
    })
    .sort(byPlace)
  return {
    notReached: null,
    partitions,
    pending: partitions.reduce((sum, { pending }) => sum + pending, 0),
  }
}

/**
 * Finds partitions whose stored offset is past the end: Kafka lost their tail, and the consumer has
 * not noticed yet.
 */
export function lostTails({ partitions }: Watermark): Finding[] {
  const lost = partitions.filter(({ stored, end }) => stored !== null && end !== null && stored > end)
  if (lost.length === 0) return []
  return [
    finding({
      check: 'watermark',
      kind: 'lost tail',
      severity: 'failure',
      count: lost.length,
      summary: 'partitions end before their stored offset: Kafka lost their tail',
      examples: lost.map(({ topic, partition, stored, end }) => ({
        from: null,
        to: null,
        detail: `${topic}/${partition} was stored up to ${stored} and ends at ${end}`,
      })),
    }),
  ]
}

function byPlace(left: TopicPartition, right: TopicPartition): number {
  return left.topic < right.topic ? -1 : left.topic > right.topic ? 1 : left.partition - right.partition
}
