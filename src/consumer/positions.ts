import type { TopicMetadata } from '../kafka/topic-metadata.ts'
import { lockOffsets, readOffsets, type StoredOffset, writeStartOffsets } from '../store/consumer-offsets.ts'
import type { Database } from '../store/database.ts'
import type { Logger } from '../telemetry/log.ts'
import type { ConsumerConfig } from './config.ts'
import type { GroupMembership } from './group-membership.ts'
import type { KafkaConsumer } from './kafka-consumer.ts'
import { startPositions, type TopicState } from './start-positions.ts'

export interface PositionSources {
  readonly config: ConsumerConfig
  readonly database: Database
  readonly membership: Pick<GroupMembership, 'hasCommits' | 'commitStart'>
  readonly kafka: Pick<KafkaConsumer, 'offsetRanges'>
  readonly log: Logger
}

/** Positions of all partitions of all topics; those that the database lacks are written to it first. */
export async function readPositions(
  sources: PositionSources,
  topics: ReadonlyMap<string, TopicMetadata>,
): Promise<readonly StoredOffset[]> {
  const stored = await readOffsets(sources.database)
  const known = new Map(stored.map((row) => [keyOf(row), row]))
  const complete = [...topics].every(([topic, { id, partitions }]) =>
    Array.from({ length: partitions }).every(
      (_, partition) => known.get(keyOf({ topic, partition }))?.topicId === id,
    ),
  )
  return complete ? stored : establishPositions(sources, topics)
}

async function establishPositions(
  { config, database, membership, kafka, log }: PositionSources,
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
  const start = await database.transaction(async (connection) => {
    await lockOffsets(connection)
    const stored = await readOffsets(connection)
    const result = startPositions(states, stored, groupHasCommits, config.autoOffsetReset)
    await writeStartOffsets(connection, result.toWrite)
    return result
  })
  for (const notice of start.notices) log.warn(notice)
  if (!groupHasCommits) await membership.commitStart(start.positions)
  return start.positions
}

/**
 * Takes a stored offset back, where the partition ends before it: its log has lost its tail. What is read again is
 * there already; what has taken the lost offsets since is not.
 */
export async function takeBack(database: Database, offset: StoredOffset): Promise<void> {
  await database.transaction(async (connection) => {
    await lockOffsets(connection)
    await writeStartOffsets(connection, [offset])
  })
}

export function keyOf(partition: { readonly topic: string; readonly partition: number }): string {
  return `${partition.topic}:${partition.partition}`
}
