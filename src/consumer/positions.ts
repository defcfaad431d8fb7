import type { FetchLoop } from '../foundation/consumption/fetch-loop.ts'
import type { GroupMembership } from '../foundation/consumption/group-membership.ts'
import { keyOf } from '../foundation/kafka/partition.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import type { StoredOffset } from '../foundation/store/consumer-offsets.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ConsumerConfig } from './config.ts'
import type { ConsumerStore } from './consumer-store.ts'
import { startPositions, type TopicState } from './start-positions.ts'

export interface PositionInputs {
  readonly config: Pick<ConsumerConfig, 'topics' | 'autoOffsetReset'>
  readonly store: Pick<ConsumerStore, 'readOffsets' | 'establish'>
  readonly membership: Pick<GroupMembership, 'hasCommits' | 'commitStart'>
  readonly kafka: Pick<FetchLoop, 'offsetRanges'>
  readonly log: Logger
}

/**
 * Reads the positions of all partitions of all topics. First writes those that the database lacks.
 */
export async function readPositions(
  sources: PositionInputs,
  topics: ReadonlyMap<string, TopicMetadata>,
): Promise<readonly StoredOffset[]> {
  const stored = await sources.store.readOffsets()
  const known = new Map(stored.map((row) => [keyOf(row), row]))
  const complete = [...topics].every(([topic, { id, partitions }]) =>
    Array.from({ length: partitions }).every(
      (_, partition) => known.get(keyOf({ topic, partition }))?.topicId === id,
    ),
  )
  return complete ? stored : establishPositions(sources, topics)
}

async function establishPositions(
  { config, store, membership, kafka, log }: PositionInputs,
  topics: ReadonlyMap<string, TopicMetadata>,
): Promise<readonly StoredOffset[]> {
  const counts = new Map([...topics].map(([topic, { partitions }]) => [topic, partitions]))
  const groupHasCommits = await membership.hasCommits(counts)
  const ranges = Map.groupBy(await kafka.offsetRanges(), ({ topic }) => topic)
  const states: TopicState[] = [...topics].map(([topic, { id, partitions }]) => ({
    topic,
    topicId: id,
    fromEarliest: topic === config.topics.gaps || topic === config.topics.deadLetters,
    ranges: (ranges.get(topic) ?? []).slice(0, partitions),
  }))
  const start = await store.establish((stored) =>
    startPositions(states, stored, groupHasCommits, config.autoOffsetReset),
  )
  for (const notice of start.notices) log.warn(notice)
  if (!groupHasCommits) await membership.commitStart(start.positions)
  return start.positions
}
