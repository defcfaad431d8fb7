import type { StoredOffset } from '../foundation/store/consumer-offsets.ts'
import type { Loss } from '../foundation/store/losses.ts'
import { keyOf } from './partition.ts'

/** A topic as the broker has it. */
export interface TopicState {
  readonly topic: string
  readonly topicId: string
  /** The ledger and the dead letters are always read from their beginning. */
  readonly fromEarliest: boolean
  /** Per partition, by index: the oldest offset and the next one. */
  readonly ranges: ReadonlyArray<{ readonly start: number; readonly end: number }>
}

export interface StartPositions {
  /** Where every partition starts; the first three fields identify it. */
  readonly positions: readonly StoredOffset[]
  /** Those that the database does not have yet. */
  readonly toWrite: readonly StoredOffset[]
  /** Messages that stood unread in a topic that was recreated; and, on the very first start, where events begin. */
  readonly losses: readonly Loss[]
  /** What an operator should know, a sentence each. */
  readonly notices: readonly string[]
}

/**
 * Where each partition is to be read from. A row in the database wins, so that a restored backup catches up by
 * itself and a recreated topic is noticed; `reset` counts only on the very first start, when neither the database
 * nor the group knows anything.
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
  const recreated = new Set(
    topics.filter(({ topic, topicId }) => isRecreated(stored, topic, topicId)).map(({ topic }) => topic),
  )
  const losses: Loss[] = []
  const all = topics.flatMap(({ topic, topicId, fromEarliest, ranges }) =>
    ranges.map(({ start, end }, partition) => {
      const row = byPartition.get(keyOf({ topic, partition }))
      if (row?.topicId === topicId) return { position: row, isNew: false }
      if (row !== undefined) {
        notices.push(
          `Topic ${topic} was recreated since partition ${partition} was last stored: reading it from its beginning`,
        )
      }
      const nextOffset = firstStart && reset === 'latest' && !fromEarliest ? end : start
      // A symbol may be in a partition now that the topic did not have before.
      if (row !== undefined || recreated.has(topic))
        losses.push({ topicId, partition, to: start, cause: 'recreated', seen: [] })
      else if (stored.length === 0 && !fromEarliest)
        losses.push({ topicId, partition, to: nextOffset, cause: 'start', seen: [] })
      return { position: { topic, topicId, partition, nextOffset, leaderEpoch: -1 }, isNew: true }
    }),
  )
  return {
    positions: all.map(({ position }) => position),
    toWrite: all.filter(({ isNew }) => isNew).map(({ position }) => position),
    losses,
    notices,
  }
}

/** Another consumer may have noticed it before: then the database has rows of both. */
function isRecreated(stored: readonly StoredOffset[], topic: string, topicId: string): boolean {
  const rows = stored.filter((row) => row.topic === topic)
  return rows.length > 0 && rows.every((row) => row.topicId !== topicId)
}
