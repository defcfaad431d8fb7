import type { RecordFetcher } from '../../foundation/kafka/kafka-port.ts'
import type { OffsetRange, Position, TopicPartition } from '../../foundation/kafka/partition.ts'

const LIMITS = { maxWaitMs: 0, minBytes: 1, maxBytes: 1 << 16 }

/** A partition that no longer has everything that a checkpoint covers. */
export interface Truncation extends TopicPartition {
  readonly claimed: number
  /** Up to where the log is the one that the checkpoint covers. */
  readonly offset: number
}

/**
 * Finds positions of checkpoints that the topics no longer have: beyond the end, or written by a
 * leader whose messages were replaced. Messages removed by retention are not lost, since they were
 * there.
 */
export async function findTruncations(
  fetcher: RecordFetcher,
  ranges: readonly OffsetRange[],
  claims: readonly Position[],
): Promise<Truncation[]> {
  const found: Truncation[] = []
  for (const claim of claims) {
    const { topic, partition, offset: claimed } = claim
    const range = ranges.find((one) => one.topic === topic && one.partition === partition)
    if (range === undefined || claimed <= range.start) continue
    const offset = await commonUpTo(fetcher, range, claim)
    if (offset < claimed) found.push({ topic, partition, claimed, offset })
  }
  return found
}

async function commonUpTo(
  fetcher: RecordFetcher,
  { start, end }: OffsetRange,
  claim: Position,
): Promise<number> {
  const { offset, leaderEpoch = -1 } = claim
  // Without an epoch, nothing tells whose messages are below the end.
  if (leaderEpoch < 0) return offset > end ? start : offset
  const { error, diverging } = await fetcher.read(claim, LIMITS)
  if (error !== null) return start
  return diverging === null ? offset : Math.min(offset, diverging.offset)
}
