import type { EventType } from '../../foundation/market/event.ts'
import type { Queryable } from '../../foundation/store/database.ts'
import type { Report } from '../verify/report-types.ts'
import { isoText } from '../verify/scope.ts'

export interface ExportedFile {
  readonly type: EventType
  readonly name: string
  readonly rows: number
  readonly bytes: number
  readonly sha256: string
  /** The first and the last row; null when there is none. */
  readonly first: RowPlace | null
  readonly last: RowPlace | null
}

export interface RowPlace {
  readonly id: number
  /** ISO 8601 in UTC. */
  readonly time: string
}

/** A ledger row that touches the day. */
export interface ManifestGap {
  readonly gap_id: string
  readonly event_type: string
  readonly from_id: number | null
  readonly to_id: number | null
  readonly from_time: string | null
  readonly to_time: string | null
  readonly cause: string
  readonly status: string
  readonly reason: string | null
}

/** Describes an export, next to its files. Fields may be added and never change their meaning. */
export interface Manifest {
  readonly format: 1
  readonly symbol: string
  readonly day: string
  /** False while the UTC day is not over, or while the archive has not published its rows. */
  readonly dayIsOver: boolean
  /** The exchange of the data: `binance`, `simulated…`, `replay:…`; null when the database names none. */
  readonly source: string | null
  /** Unit of the exchange's times; null when the database does not name it. */
  readonly timeUnit: string | null
  /** The moment whose rows, ledger and audit were exported. */
  readonly takenAt: string
  readonly program: string
  readonly files: readonly ExportedFile[]
  readonly gaps: readonly ManifestGap[]
  /** Result of `verify` for this symbol and day at that moment; null when it was not requested. */
  readonly verify: Pick<Report, 'verdict' | 'takenAt' | 'watermark' | 'sequences' | 'findings'> | null
}

/**
 * Selects the ledger rows that touch the day. A row with times is compared by these. A row with
 * only ids is compared by them: the ids of the day lie between the last trade stored before the day
 * and the first one after it. A row with neither counts on the day of its detection.
 */
const GAPS = `WITH asked AS MATERIALIZED (
    SELECT DISTINCT event_type FROM gaps
    WHERE symbol = $1 AND from_time IS NULL AND to_time IS NULL AND from_id IS NOT NULL),
  around AS MATERIALIZED (
    SELECT event_type, before.epoch AS epoch_before, before.trade_id AS id_before, after.epoch AS epoch_after, after.trade_id AS id_after
    FROM asked
    LEFT JOIN LATERAL (
      SELECT epoch, trade_id FROM trades
      WHERE symbol = $1 AND trades.event_type = asked.event_type AND trade_time < $2::timestamptz
      ORDER BY trade_time DESC, trade_id DESC LIMIT 1) AS before ON true
    LEFT JOIN LATERAL (
      SELECT epoch, trade_id FROM trades
      WHERE symbol = $1 AND trades.event_type = asked.event_type AND trade_time >= $3::timestamptz
      ORDER BY trade_time, trade_id LIMIT 1) AS after ON true)
  SELECT gap_id, event_type, from_id::float8 AS from_id, to_id::float8 AS to_id,
    ${isoText('from_time')} AS from_time, ${isoText('to_time')} AS to_time, cause, status, reason
  FROM gaps
  WHERE symbol = $1 AND CASE
    WHEN from_time IS NOT NULL OR to_time IS NOT NULL THEN
      coalesce(from_time, to_time) < $3::timestamptz AND coalesce(to_time, from_time) >= $2::timestamptz
    WHEN from_id IS NULL THEN detected_at >= $2::timestamptz AND detected_at < $3::timestamptz
    ELSE EXISTS (SELECT 1 FROM around
      WHERE around.event_type = gaps.event_type
        AND (id_before IS NULL OR (gaps.epoch, to_id) > (epoch_before, id_before))
        AND (id_after IS NULL OR (gaps.epoch, from_id) < (epoch_after, id_after))) END
  ORDER BY coalesce(gaps.from_time, gaps.to_time, detected_at), gap_id`

/** @param bounds start of the day and of the next day */
export async function readGaps(
  connection: Queryable,
  symbol: string,
  bounds: readonly [from: string, to: string],
): Promise<ManifestGap[]> {
  return (await connection.query<ManifestGap>(GAPS, [symbol, ...bounds])).rows
}
