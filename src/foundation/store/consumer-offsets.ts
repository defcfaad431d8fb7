import type { Queryable } from './database.ts'

/** The offset at which to resume a partition; `topicId` tells recreated topics apart. */
export interface StoredOffset {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  readonly nextOffset: number
  /** The leader epoch of the message before it; −1 if unknown. */
  readonly leaderEpoch: number
}

/** A step of a partition: this transaction contains the messages of `[firstOffset, nextOffset)`. */
export interface OffsetStep extends StoredOffset {
  readonly firstOffset: number
}

const ADVANCE = `UPDATE consumer_offsets AS stored
  SET next_offset = greatest(stored.next_offset, step.next_offset),
    leader_epoch = CASE WHEN step.next_offset >= stored.next_offset THEN step.leader_epoch ELSE stored.leader_epoch END,
    updated_at = now()
  FROM unnest($1::text[], $2::uuid[], $3::int[], $4::bigint[], $5::bigint[], $6::int[])
    AS step (topic, topic_id, partition, first_offset, next_offset, leader_epoch)
  WHERE stored.topic = step.topic AND stored.partition = step.partition AND stored.topic_id = step.topic_id
    AND stored.next_offset >= step.first_offset`

export async function readOffsets(connection: Queryable): Promise<StoredOffset[]> {
  const { rows } = await connection.query<StoredOffset>(
    `SELECT topic, topic_id AS "topicId", partition, next_offset::float8 AS "nextOffset", leader_epoch AS "leaderEpoch"
     FROM consumer_offsets`,
  )
  return rows
}

/** Serialises consumers that write start positions at the same time, until the transaction ends. */
export async function lockOffsets(connection: Queryable): Promise<void> {
  await connection.query('SELECT pg_advisory_xact_lock(7453911)')
}

/** Writes start positions, and replaces those of an earlier topic with the same name. */
export async function writeStartOffsets(
  connection: Queryable,
  offsets: readonly StoredOffset[],
): Promise<void> {
  for (const { topic, topicId, partition, nextOffset, leaderEpoch } of offsets) {
    await connection.query(
      `INSERT INTO consumer_offsets (topic, topic_id, partition, next_offset, leader_epoch) VALUES ($1, $2, $3, $4, $5)
       ON CONFLICT (topic, partition) DO UPDATE
       SET topic_id = excluded.topic_id, next_offset = excluded.next_offset, leader_epoch = excluded.leader_epoch,
         updated_at = now()`,
      [topic, topicId, partition, nextOffset, leaderEpoch],
    )
  }
}

/** Moves a partition back to where its log still has what was read. A lower offset stays. */
export async function takeBackOffset(
  connection: Queryable,
  { topic, topicId, partition, nextOffset, leaderEpoch }: StoredOffset,
): Promise<void> {
  await connection.query(
    `UPDATE consumer_offsets SET next_offset = $4, leader_epoch = $5, updated_at = now()
     WHERE topic = $1 AND topic_id = $2 AND partition = $3 AND next_offset >= $4`,
    [topic, topicId, partition, nextOffset, leaderEpoch],
  )
}

/**
 * Moves partitions forward whose stored offset has reached the first one of the step: then everything below
 * `nextOffset` is stored, by any consumer.
 * @returns `moved` if the table went back (a restored backup): roll back, and read the positions again.
 *   `recreated` if all that did not move belong to a deleted topic: the rows are valid
 */
export async function advanceOffsets(
  connection: Queryable,
  steps: readonly OffsetStep[],
): Promise<'advanced' | 'moved' | 'recreated'> {
  const { rowCount } = await connection.query(ADVANCE, [
    steps.map((step) => step.topic),
    steps.map((step) => step.topicId),
    steps.map((step) => step.partition),
    steps.map((step) => step.firstOffset),
    steps.map((step) => step.nextOffset),
    steps.map((step) => step.leaderEpoch),
  ])
  if (rowCount === steps.length) return 'advanced'
  const stored = await readOffsets(connection)
  const others = steps.filter((step) =>
    stored.some(
      ({ topic, topicId, partition }) =>
        topic === step.topic && partition === step.partition && topicId !== step.topicId,
    ),
  )
  return rowCount + others.length === steps.length ? 'recreated' : 'moved'
}
