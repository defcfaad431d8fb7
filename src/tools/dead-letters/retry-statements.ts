import type { Queryable } from '../../foundation/store/database.ts'
import type { DeadLetterKey } from './stored-dead-letters.ts'

/** What a retry reads of a dead letter. */
export interface LockedDeadLetter {
  readonly origin: 'ingestion' | 'consumer'
  readonly payload: Buffer | null
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
  readonly firstFailedAtMs: number
}

const IS_KEY =
  "topic = $1 AND topic_id = $2 AND partition = $3 AND kafka_offset = $4 AND digest = decode($5, 'hex')"

function valuesOf({ topic, topicId, partition, offset, digest }: DeadLetterKey): unknown[] {
  return [topic, topicId, partition, offset, digest]
}

/**
 * Locks an unresolved dead letter until the transaction ends.
 *
 * @returns null when another transaction has locked it, or it is resolved or gone
 */
export async function lockUnresolved(
  connection: Queryable,
  key: DeadLetterKey,
): Promise<LockedDeadLetter | null> {
  const { rows } = await connection.query<{
    origin: 'ingestion' | 'consumer'
    payload: Buffer | null
    headers: Array<[string, string]> | null
    first_failed_at: Date
  }>(
    `SELECT origin, payload, headers, coalesce(first_failed_at, failed_at) AS first_failed_at
     FROM dead_letters WHERE ${IS_KEY} AND resolved_at IS NULL FOR UPDATE SKIP LOCKED`,
    valuesOf(key),
  )
  const [row] = rows
  if (row === undefined) return null
  return {
    origin: row.origin,
    payload: row.payload,
    headers: row.headers ?? [],
    firstFailedAtMs: row.first_failed_at.getTime(),
  }
}

export async function markResolved(connection: Queryable, key: DeadLetterKey): Promise<void> {
  await connection.query(`UPDATE dead_letters SET resolved_at = now() WHERE ${IS_KEY}`, valuesOf(key))
}

/** Records one more failure, in the row that is there. */
export async function markFailedAgain(
  connection: Queryable,
  key: DeadLetterKey,
  reason: string,
): Promise<void> {
  await connection.query(
    `UPDATE dead_letters SET attempts = attempts + 1, reason = $6,
       first_failed_at = coalesce(first_failed_at, failed_at), failed_at = now()
     WHERE ${IS_KEY}`,
    [...valuesOf(key), reason],
  )
}

/**
 * The epoch that a trade of this time belongs to: the last that had begun by then, as far back as anything is stored (there is
 * an index of the epochs after 0) or the ledger tells of ids that were begun anew, which it does when retention has dropped them.
 */
export async function epochAt(
  connection: Queryable,
  symbol: string,
  eventType: 'trade' | 'aggTrade',
  tradeTimeMs: number,
): Promise<number> {
  const { rows } = await connection.query<{ epoch: number }>(
    `SELECT greatest(0,
       (SELECT epoch FROM trades
        WHERE symbol = $1 AND event_type = $2 AND epoch > 0 AND trade_time <= $3::timestamptz
        ORDER BY epoch DESC LIMIT 1),
       (SELECT max(epoch) FROM gaps
        WHERE symbol = $1 AND event_type = $2 AND cause = 'reset' AND to_time <= $3::timestamptz)) AS epoch`,
    [symbol, eventType, new Date(tradeTimeMs).toISOString()],
  )
  return rows[0]?.epoch ?? 0
}
