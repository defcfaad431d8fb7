import type { Gap } from '../market/gap.ts'
import type { IdRange } from '../market/id-ranges.ts'
import type { Queryable } from './database.ts'

/** A row of the ledger that names ids. */
export type StoredIdGap = Gap & {
  readonly event_type: 'trade' | 'aggTrade'
  readonly from_id: number
  readonly to_id: number
}

export interface LedgerFilter {
  readonly symbol?: string
  readonly eventType?: 'trade' | 'aggTrade'
  readonly epoch?: number
}

const ms = (column: string) => `(extract(epoch FROM ${column}) * 1000)::float8 AS ${column}`

const ROWS = `SELECT gap_id, revision, symbol, event_type, epoch, from_id::float8, to_id::float8, ${ms('from_time')}, ${ms('to_time')},
    cause, status, reason, ${ms('detected_at')}, ${ms('updated_at')}, ${ms('closed_at')}
  FROM gaps WHERE from_id IS NOT NULL AND event_type <> 'bookTicker' AND ($1::text IS NULL OR symbol = $1)
    AND ($2::text IS NULL OR event_type = $2) AND ($3::int IS NULL OR epoch = $3)
  ORDER BY symbol, event_type DESC, epoch, from_id, gap_id`

/** The rows of the ledger that name ids, in the order of these. */
export async function readIdGaps(connection: Queryable, filter: LedgerFilter): Promise<StoredIdGap[]> {
  const { symbol = null, eventType = null, epoch = null } = filter
  const { rows } = await connection.query<StoredIdGap>(ROWS, [symbol, eventType, epoch])
  return rows.map((row) => ({
    ...row,
    from_time: rounded(row.from_time),
    to_time: rounded(row.to_time),
    detected_at: Math.round(row.detected_at),
    updated_at: Math.round(row.updated_at),
    closed_at: rounded(row.closed_at),
  }))
}

const rounded = (value: number | null) => (value === null ? null : Math.round(value))

/** By index: the ids of each range that are not stored. A range that is stored whole is only counted. */
const MISSING = `WITH asked AS (
    SELECT * FROM jsonb_to_recordset($4::jsonb) AS row (n int, from_id bigint, to_id bigint)),
  lacking AS (
    SELECT * FROM asked WHERE to_id - from_id + 1 > (
      SELECT count(DISTINCT trade_id) FROM trades
      WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_id BETWEEN from_id AND to_id))
  SELECT n, lower(range)::float8 AS from_id, (upper(range) - 1)::float8 AS to_id FROM lacking
  CROSS JOIN LATERAL unnest(int8multirange(int8range(from_id, to_id, '[]')) - coalesce((
    SELECT range_agg(int8range(trade_id, trade_id, '[]')) FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_id BETWEEN from_id AND to_id), '{}')) AS range
  ORDER BY n, from_id`

/** @returns for each of the ranges, the ids of it that the table does not have */
export async function missingIds(
  connection: Queryable,
  { symbol, eventType, epoch }: Required<LedgerFilter>,
  ranges: readonly IdRange[],
): Promise<IdRange[][]> {
  const missing: IdRange[][] = ranges.map(() => [])
  if (ranges.length === 0) return missing
  const asked = JSON.stringify(ranges.map(({ from, to }, n) => ({ n, from_id: from, to_id: to })))
  const { rows } = await connection.query<{ n: number; from_id: number; to_id: number }>(MISSING, [
    symbol,
    eventType,
    epoch,
    asked,
  ])
  for (const { n, from_id, to_id } of rows) missing[n]?.push({ from: from_id, to: to_id })
  return missing
}

/** The lowest id of the stream that is stored: retention may have dropped the ones below. Null when there is none. */
export async function firstStoredId(
  connection: Queryable,
  { symbol, eventType, epoch }: Required<LedgerFilter>,
): Promise<number | null> {
  const { rows } = await connection.query<{ id: number | null }>(
    `SELECT min(trade_id)::float8 AS id FROM trades WHERE symbol = $1 AND event_type = $2 AND epoch = $3`,
    [symbol, eventType, epoch],
  )
  return rows[0]?.id ?? null
}
