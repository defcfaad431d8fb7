import type { PartitionOrigin } from '../kafka/partition.ts'
import type { Queryable } from '../store/database.ts'

/**
 * A message that could not be stored, by its position in Kafka. A message with other bytes at the
 * same position is another row.
 */
export interface DeadLetterRow extends PartitionOrigin {
  readonly offset: number
  readonly origin: 'ingestion' | 'consumer'
  readonly reason: string
  readonly key: Buffer | null
  readonly payload: Buffer | null
  /** The message's original headers, in order; a retry reads schema and epoch from them. */
  readonly headers?: ReadonlyArray<readonly [name: string, value: string]>
  readonly failedAtMs: number
}

const INSERT = `INSERT INTO dead_letters (topic, topic_id, partition, kafka_offset, origin, reason, key, payload, headers, failed_at)
  SELECT * FROM unnest($1::text[], $2::uuid[], $3::int[], $4::bigint[], $5::text[], $6::text[], $7::bytea[], $8::bytea[],
    $9::jsonb[], $10::timestamptz[])
  ON CONFLICT DO NOTHING`

/** @returns how many rows were new; a redelivered message adds none */
export async function insertDeadLetters(
  connection: Queryable,
  rows: readonly DeadLetterRow[],
): Promise<number> {
  if (rows.length === 0) return 0
  const values = [
    rows.map((row) => row.topic),
    rows.map((row) => row.topicId),
    rows.map((row) => row.partition),
    rows.map((row) => row.offset),
    rows.map((row) => row.origin),
    rows.map((row) => row.reason),
    rows.map((row) => row.key),
    rows.map((row) => row.payload),
    rows.map((row) => (row.headers === undefined ? null : JSON.stringify(row.headers))),
    rows.map((row) => new Date(row.failedAtMs).toISOString()),
  ]
  return (await connection.query(INSERT, values)).rowCount
}
