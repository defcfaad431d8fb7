import type { KafkaConnection } from '../../foundation/kafka/config.ts'
import type { TopicPartition } from '../../foundation/kafka/partition.ts'
import { PartitionFetcher } from '../../foundation/kafka/partition-fetcher.ts'
import type { EndOffset } from '../../foundation/kafka/read-range.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { StoredOffset } from '../../foundation/store/consumer-offsets.ts'
import { finding, type Remark } from './findings.ts'
import type { Report, Watermark } from './report-types.ts'

/** The end offsets of Kafka, or why they could not be read. */
type Ends = readonly EndOffset[] | { readonly notReached: string }

/** With more pending messages of a partition, another partition may be stored further. */
const PENDING_MAX = 1000

/**
 * Up to when the rows of a partition are stored although messages of it are pending, by the times of the
 * rows, in milliseconds since the Unix epoch; 0 if that is unknown.
 */
export type StoredUntil = (place: TopicPartition) => number

/** Reads the end offsets of Kafka. */
export interface EndOffsets {
  /** @param stored where the audited rows end, by partition */
  read(stored: readonly StoredOffset[]): Promise<Ends>
  close(): Promise<void>
}

/**
 * Connects at once, so that no transaction waits for an unavailable broker. Never rejects.
 * @param mayLack those of the topics that need not exist
 */
export async function openEndOffsets(
  connection: KafkaConnection,
  topics: readonly string[],
  mayLack: ReadonlySet<string>,
): Promise<EndOffsets> {
  const fetcher = new PartitionFetcher(connection, 'tapeline-verify', topics, undefined, mayLack)
  const notReached = (error: unknown) => ({
    notReached: `${connection.brokers.join()}: ${describeError(error)}`,
  })
  try {
    const metadata = await fetcher.connect()
    const read = async () =>
      (await fetcher.offsetRanges()).map((range) => ({
        ...range,
        topicId: metadata.get(range.topic)?.id ?? '',
      }))
    return { read: () => read().catch(notReached), close: () => fetcher.close() }
  } catch (error) {
    await fetcher.close()
    return { read: async () => notReached(error), close: async () => {} }
  }
}

/**
 * Accepts a Kafka that no setting names only if the rows come from its topics: the one at the default
 * address may be another system's.
 *
 * @param brokers its address
 */
export function onlyOfRows(ends: EndOffsets, brokers: string): EndOffsets {
  return {
    async read(stored) {
      const found = await ends.read(stored)
      if ('notReached' in found) return found
      const isTheirs = stored.some(({ topic, topicId }) =>
        found.some((end) => end.topic === topic && end.topicId === topicId),
      )
      if (isTheirs) return found
      return { notReached: `${brokers} has other topics than those of the rows; set KAFKA_BROKERS` }
    },
    close: () => ends.close(),
  }
}

/**
 * Computes which messages are in Kafka but not in the snapshot. Offsets are stored in the
 * transactions of their rows, so the offsets of the snapshot are exact. `ends` must be read after
 * the snapshot was taken; otherwise messages in between would be missed.
 */
export function watermarkOf(stored: readonly StoredOffset[], ends: Ends): Watermark {
  if ('notReached' in ends) {
    const partitions = stored.map(({ topic, partition, nextOffset }) => ({
      ...{ topic, partition, stored: nextOffset, end: null, pending: null },
    }))
    return { notReached: ends.notReached, partitions: partitions.sort(byPlace), pending: null }
  }
  const partitions = ends.map(({ topic, topicId, partition, start, end }) => {
    // Offsets of a recreated topic are not comparable.
    const row = stored.find(
      (one) => one.topic === topic && one.partition === partition && one.topicId === topicId,
    )
    const from = Math.max(row?.nextOffset ?? start, start)
    return { topic, partition, stored: row?.nextOffset ?? null, end, pending: Math.max(0, end - from) }
  })
  const pending = partitions.reduce((sum, { pending }) => sum + pending, 0)
  return { notReached: null, partitions: partitions.sort(byPlace), pending }
}

/** Finds partitions stored past the end: Kafka lost their tail unnoticed by the consumer. */
export function lostTails({ partitions }: Watermark): Remark[] {
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

/**
 * Returns up to when all rows are stored, by the times of the rows: a stream that ends before that has
 * ended.
 */
export function storedUntilMs({ partitions }: Watermark, storedUntil: StoredUntil): number {
  const waiting = partitions.filter(({ pending }) => (pending ?? 0) > PENDING_MAX)
  return Math.min(Number.POSITIVE_INFINITY, ...waiting.map(storedUntil))
}

function byPlace(left: TopicPartition, right: TopicPartition): number {
  return left.topic < right.topic ? -1 : left.topic > right.topic ? 1 : left.partition - right.partition
}

/**
 * Whether all failures of a report may disappear soon. That applies to ids that are missing while
 * messages wait in Kafka, and to ids that the ledger calls filled: ledger rows may overtake trades,
 * which come through another partition. Duplicates and differences are permanent.
 * @param first the watermark of the first report; null for the first report
 */
export function mayStillArrive({ findings, sequences, watermark }: Report, first: Watermark | null): boolean {
  const failures = findings.filter(({ severity }) => severity === 'failure')
  const passing = failures.every(
    ({ check, kind }) =>
      (check === 'continuity' && kind === 'missing') || (check === 'ledger' && kind === 'filled'),
  )
  if (failures.length === 0 || !passing) return false
  if (watermark.pending === null) {
    return sequences.every(({ unexplained, saidFilled }) => unexplained === saidFilled)
  }
  // Check once more, for messages that were on their way to Kafka, such as the ledger row of a new
  // gap. Then wait until everything that Kafka had at the first report is stored. Newer messages
  // are always pending while the services run.
  return first === null || !hasReached(watermark, first)
}

/** Whether the later watermark has everything that Kafka had at the first one. */
export function hasReached(later: Watermark, first: Watermark): boolean {
  return first.partitions.every(({ topic, partition, end, pending }) => {
    if (end === null || pending === 0) return true
    const stored = later.partitions.find((one) => one.topic === topic && one.partition === partition)?.stored
    return stored !== undefined && stored !== null && stored >= end
  })
}
