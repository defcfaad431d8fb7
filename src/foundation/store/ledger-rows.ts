import type { SequencedType, TradeType } from '../market/event.ts'
import type { Gap } from '../market/gap.ts'
import type { IdRow } from '../market/gap-requests.ts'
import type { IdRange } from '../market/id-ranges.ts'
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

/** Stores the highest revision of each gap: redelivery reverts nothing. @returns how many changed */
export async function upsertGaps(connection: Queryable, gaps: readonly Gap[]): Promise<number> {
  if (gaps.length === 0) return 0
  const highest = new Map<string, Gap>()
  for (const gap of gaps)
    if ((highest.get(gap.gap_id)?.revision ?? 0) < gap.revision) highest.set(gap.gap_id, gap)
  return (await connection.query(UPSERT, [JSON.stringify([...highest.values()])])).rowCount
}

export type StoredIdGap = IdRow & { readonly event_type: SequencedType }

export interface LedgerFilter {
  readonly symbol?: string
  readonly eventType?: TradeType
  readonly epoch?: number
}

const ms = (column: string) => `round(extract(epoch FROM ${column}) * 1000)::float8 AS ${column}`

const ROWS = `SELECT gap_id, revision, symbol, event_type, epoch, from_id::float8, to_id::float8, ${ms('from_time')}, ${ms('to_time')},
    cause, status, reason, ${ms('detected_at')}, ${ms('updated_at')}, ${ms('closed_at')}
  FROM gaps WHERE from_id IS NOT NULL AND event_type <> 'bookTicker' AND ($1::text IS NULL OR symbol = $1)
    AND ($2::text IS NULL OR event_type = $2) AND ($3::int IS NULL OR epoch = $3)
  ORDER BY symbol, event_type DESC, epoch, from_id, gap_id`

/** Returns the ledger rows with ids, in ascending order of ids. */
export async function readIdGaps(connection: Queryable, filter: LedgerFilter): Promise<StoredIdGap[]> {
  const { symbol = null, eventType = null, epoch = null } = filter
  return (await connection.query<StoredIdGap>(ROWS, [symbol, eventType, epoch])).rows
}

/** Ids with the times of their trades, if known; milliseconds since the Unix epoch. */
export interface TimedRange extends IdRange {
  readonly fromMs: number | null
  readonly toMs: number | null
}

/** Times are those of neighbouring trades, and ids do not increase strictly with time. */
const PADDING_MS = 60 * 60_000

/** The missing ids of each range, by symbol and time. A completely stored range is only counted. */
const MISSING = `WITH asked AS (
    SELECT * FROM jsonb_to_recordset($4::jsonb) AS row (n int, from_id bigint, to_id bigint, from_time timestamptz, to_time timestamptz)),
  lacking AS (
    SELECT * FROM asked WHERE to_id - from_id + 1 > (
      SELECT count(DISTINCT trade_id) FROM trades
      WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_id BETWEEN from_id AND to_id
        AND trade_time BETWEEN from_time AND to_time AND trade_time BETWEEN $5::timestamptz AND $6::timestamptz))
  SELECT n, lower(range)::float8 AS from_id, (upper(range) - 1)::float8 AS to_id FROM lacking
  CROSS JOIN LATERAL unnest(int8multirange(int8range(from_id, to_id, '[]')) - coalesce((
    SELECT range_agg(int8range(trade_id, trade_id, '[]')) FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_id BETWEEN from_id AND to_id
      AND trade_time BETWEEN from_time AND to_time AND trade_time BETWEEN $5::timestamptz AND $6::timestamptz), '{}')) AS range
  ORDER BY n, from_id`

/** @returns the missing ids of each range */
export async function missingIds(
  connection: Queryable,
  { symbol, eventType, epoch }: Required<LedgerFilter>,
  ranges: readonly TimedRange[],
): Promise<IdRange[][]> {
  const missing: IdRange[][] = ranges.map(() => [])
  if (ranges.length === 0) return missing
  const fromMs = ranges.map((range) => (range.fromMs ?? Number.NEGATIVE_INFINITY) - PADDING_MS)
  const toMs = ranges.map((range) => (range.toMs ?? Number.POSITIVE_INFINITY) + PADDING_MS)
  const asked = ranges.map(({ from, to }, n) => ({
    n,
    from_id: from,
    to_id: to,
    from_time: timestamp(fromMs[n]),
    to_time: timestamp(toMs[n]),
  }))
  const { rows } = await connection.query<{ n: number; from_id: number; to_id: number }>(MISSING, [
    symbol,
    eventType,
    epoch,
    JSON.stringify(asked),
    // Common bounds of all ranges, because only a constant keeps other chunks out of the plan.
    timestamp(fromMs.reduce((least, one) => Math.min(least, one))),
    timestamp(toMs.reduce((most, one) => Math.max(most, one))),
  ])
  for (const { n, from_id, to_id } of rows) missing[n]?.push({ from: from_id, to: to_id })
  return missing
}

function timestamp(ms = 0): string {
  if (Number.isFinite(ms)) return new Date(ms).toISOString()
  return ms < 0 ? '-infinity' : 'infinity'
}

/**
 * Returns the lowest id of the stream that retention may have left; null if none. The oldest trade decides:
 * it covers all later ids of its epoch and no earlier epoch.
 */
export async function firstStoredId(
  connection: Queryable,
  { symbol, eventType, epoch }: Required<LedgerFilter>,
): Promise<number | null> {
  const { rows } = await connection.query<{ epoch: number; id: number }>(
    `SELECT epoch, trade_id::float8 AS id FROM trades WHERE symbol = $1 AND event_type = $2 ORDER BY trade_time, trade_id LIMIT 1`,
    [symbol, eventType],
  )
  const [oldest] = rows
  if (oldest === undefined || oldest.epoch > epoch) return null
  return oldest.epoch === epoch ? oldest.id : 0
}
