import type { EventFields } from '../../foundation/market/event-fields.ts'
import { isoOfUs } from '../../foundation/market/time-unit.ts'
import type { Queryable } from '../../foundation/store/database.ts'
import { type DeadLetterKey, IS_KEY, keyValues } from './stored-dead-letters.ts'

export interface LockedDeadLetter {
  readonly origin: 'ingestion' | 'consumer'
  readonly reason: string
  readonly payload: Buffer | null
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
  readonly firstFailedAtMs: number
}

const HOUR_US = 3_600_000_000

/** Locks an unresolved dead letter until the transaction ends; null when it is locked, resolved or gone. */
export async function lockUnresolved(
  connection: Queryable,
  key: DeadLetterKey,
): Promise<LockedDeadLetter | null> {
  const { rows } = await connection.query<LockedDeadLetter>(
    `SELECT origin, reason, payload, coalesce(headers, '[]') AS headers,
       (extract(epoch FROM coalesce(first_failed_at, failed_at)) * 1000)::float8 AS "firstFailedAtMs"
     FROM dead_letters WHERE ${IS_KEY} AND resolved_at IS NULL FOR UPDATE SKIP LOCKED`,
    keyValues(key),
  )
  return rows[0] ?? null
}

export async function markResolved(connection: Queryable, key: DeadLetterKey): Promise<void> {
  await connection.query(`UPDATE dead_letters SET resolved_at = now() WHERE ${IS_KEY}`, keyValues(key))
}

/** Records another failure in the existing row. */
export async function markFailedAgain(
  connection: Queryable,
  key: DeadLetterKey,
  reason: string,
): Promise<void> {
  await connection.query(
    `UPDATE dead_letters SET attempts = attempts + 1, reason = $6,
       first_failed_at = coalesce(first_failed_at, failed_at), failed_at = now()
     WHERE ${IS_KEY}`,
    [...keyValues(key), reason],
  )
}

/**
 * Whether the trade's id is stored with another trade time up to an hour away. If so, this is a
 * second event under the id and not a repeat, and storing it would create a duplicate.
 */
export async function isStoredNearby(
  connection: Queryable,
  { symbol, type, epoch, id, tradeTimeUs }: EventFields,
): Promise<boolean> {
  const { rowCount } = await connection.query(
    `SELECT FROM trades
     WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_id = $4
       AND trade_time >= $5::timestamptz AND trade_time <= $6::timestamptz AND trade_time <> $7::timestamptz LIMIT 1`,
    [symbol.text, type, epoch, id, ...[-HOUR_US, HOUR_US, 0].map((us) => isoOfUs(tradeTimeUs + us))],
  )
  return rowCount > 0
}
