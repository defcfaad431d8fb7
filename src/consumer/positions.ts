import type { FetchLoop } from '../foundation/consumption/fetch-loop.ts'
import type { GroupMembership } from '../foundation/consumption/group-membership.ts'
import { keyOf } from '../foundation/kafka/partition.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import type { StoredOffset } from '../foundation/store/consumer-offsets.ts'
import type { Loss } from '../foundation/store/losses.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ConsumerConfig } from './config.ts'
import type { ConsumerStore, StartPositions } from './consumer-store.ts'

export interface PositionInputs {
  readonly config: Pick<ConsumerConfig, 'topics' | 'autoOffsetReset'>
  readonly store: Pick<ConsumerStore, 'readOffsets' | 'establish'>
  readonly membership: Pick<GroupMembership, 'hasCommits' | 'commitStart'>
  readonly kafka: Pick<FetchLoop, 'offsetRanges'>
  readonly log: Logger
}

/** Reads the positions of all partitions of all topics. First writes those that the database lacks. */
export async function readPositions(
  { config, store, membership, kafka, log }: PositionInputs,
  topics: ReadonlyMap<string, TopicMetadata>,
): Promise<readonly StoredOffset[]> {
  const stored = await store.readOffsets()
  const known = new Map(stored.map((row) => [keyOf(row), row.topicId]))
  const isComplete = [...topics].every(([topic, { id, partitions }]) =>
    [...Array(partitions).keys()].every((partition) => known.get(keyOf({ topic, partition })) === id),
  )
  if (isComplete) return stored
  const counts = new Map([...topics].map(([topic, { partitions }]) => [topic, partitions]))
  const groupHasCommits = await membership.hasCommits(counts)
  const ranges = Map.groupBy(await kafka.offsetRanges(), ({ topic }) => topic)
  const states: TopicState[] = [...topics].map(([topic, { id, partitions }]) => ({
    topic,
    topicId: id,
    fromEarliest: topic === config.topics.gaps || topic === config.topics.deadLetters,
    ranges: (ranges.get(topic) ?? []).slice(0, partitions),
  }))
  const start = await store.establish((rows) =>
    startPositions(states, rows, groupHasCommits, config.autoOffsetReset),
  )
  for (const notice of start.notices) log.warn(notice)
  if (!groupHasCommits) await membership.commitStart(start.positions)
  return start.positions
}

/** A topic as reported by the broker. */
export interface TopicState {
  readonly topic: string
  readonly topicId: string
  /** True for the ledger and the dead letters, which are always read from their beginning. */
  readonly fromEarliest: boolean
  /** Per partition, by index: the oldest offset and the next one. */
  readonly ranges: ReadonlyArray<{ readonly start: number; readonly end: number }>
}

/**
 * Decides where to start reading each partition. A row in the database takes precedence, so that a
 * restored backup catches up automatically and a recreated topic is noticed. `reset` applies only
 * to the very first start, when neither the database nor the group has an offset.
 *
 * @param stored the rows of `consumer_offsets`
 * @param groupHasCommits whether the group has committed any offset in these topics
 */
export function startPositions(
  topics: readonly TopicState[],
  stored: readonly StoredOffset[],
  groupHasCommits: boolean,
  reset: 'latest' | 'earliest',
): StartPositions {
  const byPartition = new Map(stored.map((row) => [keyOf(row), row]))
  const notices: string[] = []
  const firstStart = stored.length === 0 && !groupHasCommits
  if (stored.length === 0 && groupHasCommits) {
    notices.push(
      'The database is empty but the group has committed offsets: reading everything that Kafka still has',
    )
  }
  const losses: Loss[] = []
  const all = topics.flatMap(({ topic, topicId, fromEarliest, ranges }) => {
    const isNewTopic = isRecreated(stored, topic, topicId)
    return ranges.map(({ start, end }, partition) => {
      const row = byPartition.get(keyOf({ topic, partition }))
      if (row?.topicId === topicId) return { position: row, isNew: false }
      if (row !== undefined) {
        notices.push(
          `Topic ${topic} was recreated since partition ${partition} was last stored: reading it from its beginning`,
        )
      }
      const nextOffset = firstStart && reset === 'latest' && !fromEarliest ? end : start
      // A symbol may now be in a partition that the topic did not have before.
      if (row !== undefined || isNewTopic)
        losses.push({ topicId, partition, to: start, cause: 'recreated', seen: [] })
      else if (stored.length === 0 && !fromEarliest)
        losses.push({ topicId, partition, to: nextOffset, cause: 'start', seen: [] })
      return { position: { topic, topicId, partition, nextOffset, leaderEpoch: -1 }, isNew: true }
    })
  })
  return {
    positions: all.map(({ position }) => position),
    toWrite: all.filter(({ isNew }) => isNew).map(({ position }) => position),
    losses,
    notices,
  }
}

/** Another consumer may have noticed first: then the database has rows of both topics. */
function isRecreated(stored: readonly StoredOffset[], topic: string, topicId: string): boolean {
  const rows = stored.filter((row) => row.topic === topic)
  return rows.length > 0 && rows.every((row) => row.topicId !== topicId)
}
