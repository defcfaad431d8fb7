import type { Queryable } from './database.ts'

/** Where a partition is to be read on from; `topicId` tells one incarnation of a topic from the next. */
export interface StoredOffset {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  readonly nextOffset: number
}

/** A step of a partition: what stood in `[firstOffset, nextOffset)` is in this transaction. */
export interface OffsetStep extends StoredOffset {
  readonly firstOffset: number
}

const ADVANCE = `UPDATE consumer_offsets AS stored
  SET next_offset = greatest(stored.next_offset, step.next_offset), updated_at = now()
  FROM unnest($1::text[], $2::uuid[], $3::int[], $4::bigint[], $5::bigint[])
    AS step (topic, topic_id, partition, first_offset, next_offset)
  WHERE stored.topic = step.topic AND stored.partition = step.partition AND stored.topic_id = step.topic_id
    AND stored.next_offset >= step.first_offset`

/** Serialises the consumers that establish start positions at the same time. */
const LOCK = 'SELECT pg_advisory_xact_lock(7453911)'

export async function readOffsets(connection: Queryable): Promise<StoredOffset[]> {
  const { rows } = await connection.query<{
    topic: string
    topic_id: string
    partition: number
    next_offset: string
  }>('SELECT topic, topic_id, partition, next_offset FROM consumer_offsets')
  return rows.map((row) => ({
    topic: row.topic,
    topicId: row.topic_id,
    partition: row.partition,
    nextOffset: Number(row.next_offset),
  }))
}

/** Held until the transaction ends. */
export async function lockOffsets(connection: Queryable): Promise<void> {
  await connection.query(LOCK)
}

/** Writes start positions, replacing those of an earlier incarnation of the topic. */
export async function writeStartOffsets(
  connection: Queryable,
  offsets: readonly StoredOffset[],
): Promise<void> {
  for (const { topic, topicId, partition, nextOffset } of offsets) {
    await connection.query(
      `INSERT INTO consumer_offsets (topic, topic_id, partition, next_offset) VALUES ($1, $2, $3, $4)
       ON CONFLICT (topic, partition) DO UPDATE
       SET topic_id = excluded.topic_id, next_offset = excluded.next_offset, updated_at = now()`,
      [topic, topicId, partition, nextOffset],
    )
  }
}

/**
 * Moves partitions forward. A partition moves only when the stored offset has reached the step's first: then
 * everything below `nextOffset` is stored, whoever stored it.
 *
 * @returns `moved` when a partition could not move because the table went back (a restored backup): the transaction
 *   must be rolled back and positions read again. `recreated` when the only ones that did not move are of a topic that was
 *   deleted and made again: the table has the offset of its successor, and the rows are as good as any
 */
export async function advanceOffsets(
  connection: Queryable,
  steps: readonly OffsetStep[],
): Promise<'advanced' | 'moved' | 'recreated'> {
  const { rowCount } = await connection.query(
    ADVANCE,
    [
      steps.map((step) => step.topic),
      steps.map((step) => step.topicId),
      steps.map((step) => step.partition),
      steps.map((step) => step.firstOffset),
      steps.map((step) => step.nextOffset),
    ],
    'advance_offsets',
  )
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
