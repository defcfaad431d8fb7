import type { PartitionOrigin, Position } from '../../foundation/kafka/partition.ts'
import type { Queryable } from '../../foundation/store/database.ts'

/** The key of a dead letter's row: its original position in Kafka and the digest of its bytes. */
export interface DeadLetterKey extends PartitionOrigin {
  readonly offset: number
  /** In hex. After a broker lost the end of a partition, other messages have the same offset. */
  readonly digest: string
}

/** Selects dead letters. An absent field does not restrict. */
export interface DeadLetterFilter {
  /** A part of the reason, case-insensitive. */
  readonly reason?: string
  readonly topic?: string
  /** Compared with the message's key, or searched in the payload as `"s":"BTCUSDT"`. */
  readonly symbol?: string
  readonly since?: Date
  readonly keys?: readonly Position[]
  /** Include resolved ones. Default false. */
  readonly withResolved?: boolean
}

export interface ListedDeadLetter extends DeadLetterKey {
  readonly origin: 'ingestion' | 'consumer'
  readonly reason: string
  readonly messageKey: Buffer | null
  readonly firstFailedAt: Date
  readonly failedAt: Date
  readonly attempts: number
  readonly resolvedAt: Date | null
  /** The first bytes of the payload, as many as requested. */
  readonly payload: Buffer | null
  readonly payloadBytes: number
}

/** Contains only literals of this file. Values are parameters. */
const WHERE = `($1::text IS NULL OR position(lower($1) IN lower(reason)) > 0)
  AND ($2::text IS NULL OR topic = $2)
  AND ($3::text IS NULL OR key = convert_to($3, 'UTF8') OR position(convert_to('"s":"' || $3 || '"', 'UTF8') IN payload) > 0)
  AND ($4::timestamptz IS NULL OR coalesce(first_failed_at, failed_at) >= $4)
  AND ($5::boolean OR resolved_at IS NULL)
  AND ($6::text[] IS NULL OR (topic, partition, kafka_offset) IN
    (SELECT * FROM unnest($6::text[], $7::int[], $8::bigint[])))`

function valuesOf(filter: DeadLetterFilter): unknown[] {
  const { keys } = filter
  return [
    filter.reason ?? null,
    filter.topic ?? null,
    filter.symbol ?? null,
    filter.since?.toISOString() ?? null,
    filter.withResolved === true,
    keys?.map(({ topic }) => topic) ?? null,
    keys?.map(({ partition }) => partition) ?? null,
    keys?.map(({ offset }) => offset) ?? null,
  ]
}

/** The columns of a {@link DeadLetterKey}. */
const KEY = `topic, topic_id AS "topicId", partition, kafka_offset::float8 AS "offset", encode(digest, 'hex') AS digest`

/** Lists matching dead letters, newest first. @param payloadBytes how many bytes to return of each */
export async function listDeadLetters(
  connection: Queryable,
  filter: DeadLetterFilter,
  limit: number,
  payloadBytes: number,
): Promise<ListedDeadLetter[]> {
  const { rows } = await connection.query<ListedDeadLetter>(
    `SELECT ${KEY}, origin, reason, substring(key FROM 1 FOR 200) AS "messageKey",
       coalesce(first_failed_at, failed_at) AS "firstFailedAt", failed_at AS "failedAt", attempts, resolved_at AS "resolvedAt",
       substring(payload FROM 1 FOR $9) AS payload, coalesce(length(payload), 0) AS "payloadBytes"
     FROM dead_letters WHERE ${WHERE}
     ORDER BY coalesce(first_failed_at, failed_at) DESC, topic, topic_id, partition, kafka_offset DESC, dead_letters.digest LIMIT $10`,
    [...valuesOf(filter), payloadBytes, limit],
  )
  return rows
}

export const IS_KEY =
  "topic = $1 AND topic_id = $2 AND partition = $3 AND kafka_offset = $4 AND digest = decode($5, 'hex')"

export function keyValues({ topic, topicId, partition, offset, digest }: DeadLetterKey): unknown[] {
  return [topic, topicId, partition, offset, digest]
}

/** The whole payload of a dead letter; also null when its row is gone. */
export async function readPayload(connection: Queryable, key: DeadLetterKey): Promise<Buffer | null> {
  const { rows } = await connection.query<{ payload: Buffer | null }>(
    `SELECT payload FROM dead_letters WHERE ${IS_KEY}`,
    keyValues(key),
  )
  return rows[0]?.payload ?? null
}

export interface ReasonCount {
  readonly reason: string
  readonly unresolved: number
  readonly resolved: number
}

/** Counts by reason. Resolved ones count only if the filter includes them. */
export async function countByReason(connection: Queryable, filter: DeadLetterFilter): Promise<ReasonCount[]> {
  const { rows } = await connection.query<ReasonCount>(
    `SELECT reason, (count(*) FILTER (WHERE resolved_at IS NULL))::float8 AS unresolved, count(resolved_at)::float8 AS resolved
     FROM dead_letters WHERE ${WHERE} GROUP BY reason ORDER BY count(*) DESC, reason`,
    valuesOf(filter),
  )
  return rows
}

/** Returns a page of unresolved keys, in an order that retries keep. @param after null at first */
export async function unresolvedAfter(
  connection: Queryable,
  filter: DeadLetterFilter,
  after: DeadLetterKey | null,
  limit: number,
): Promise<DeadLetterKey[]> {
  const { rows } = await connection.query<DeadLetterKey>(
    `SELECT ${KEY} FROM dead_letters
     WHERE ${WHERE} AND ($9::text IS NULL OR (topic, topic_id, partition, kafka_offset, dead_letters.digest)
       > ($9, $10::uuid, $11::int, $12::bigint, decode($13, 'hex')))
     ORDER BY topic, topic_id, partition, kafka_offset, dead_letters.digest LIMIT $14`,
    [
      ...valuesOf({ ...filter, withResolved: false }),
      ...(after === null ? [null, null, null, null, null] : keyValues(after)),
      limit,
    ],
  )
  return rows
}
