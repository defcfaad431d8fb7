import type { Gap } from '../market/gap.ts'
import type { Queryable } from './database.ts'

const time = (column: string) => `timestamptz 'epoch' + ${column} * interval '1 millisecond'`

const UPSERT = `INSERT INTO gaps AS stored (gap_id, revision, symbol, event_type, epoch, from_id, to_id, from_time, to_time, cause,
    status, reason, detected_at, updated_at, closed_at)
  SELECT gap_id, revision, symbol, event_type, epoch, from_id, to_id, ${time('from_time')}, ${time('to_time')}, cause,
    status, reason, ${time('detected_at')}, ${time('updated_at')}, ${time('closed_at')}
  FROM jsonb_to_recordset($1::jsonb) AS row (gap_id text, revision int, symbol text, event_type text, epoch int,
    from_id bigint, to_id bigint, from_time bigint, to_time bigint, cause text, status text, reason text,
    detected_at bigint, updated_at bigint, closed_at bigint)
  ON CONFLICT (gap_id) DO UPDATE SET revision = excluded.revision, from_id = excluded.from_id, to_id = excluded.to_id,
    from_time = excluded.from_time, to_time = excluded.to_time, cause = excluded.cause, status = excluded.status,
    reason = excluded.reason, updated_at = excluded.updated_at, closed_at = excluded.closed_at
  WHERE excluded.revision > stored.revision`

/**
 * Stores ledger rows. Only a higher revision replaces a row, so a redelivered message reverts
 * nothing.
 *
 * @param gaps at most one of each `gap_id`
 * @returns how many rows were new or updated
 */
export async function upsertGaps(connection: Queryable, gaps: readonly Gap[]): Promise<number> {
  if (gaps.length === 0) return 0
  return (await connection.query(UPSERT, [JSON.stringify(gaps)])).rowCount
}
