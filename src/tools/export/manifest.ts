import type { EventType } from '../../foundation/market/event.ts'
import type { TextReader } from '../../foundation/store/text-reader.ts'
import type { Report } from '../verify/report-types.ts'

/** One file of an export. */
export interface ExportedFile {
  readonly type: EventType
  readonly name: string
  readonly rows: number
  readonly bytes: number
  readonly sha256: string
  /** Null where there is no row. Times are ISO 8601 in UTC. */
  readonly first: { readonly id: number; readonly time: string } | null
  readonly last: { readonly id: number; readonly time: string } | null
}

/** A row of the ledger that touches the day. */
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

/** What an export says of itself, beside its files. Fields are added and never change their meaning. */
export interface Manifest {
  readonly format: 1
  readonly symbol: string
  readonly day: string
  /** False while the day is not over, UTC. */
  readonly dayIsOver: boolean
  /** Whose data it is: `binance`, `simulated…`, `replay:…`; null where the database does not say. */
  readonly source: string | null
  readonly takenAt: string
  readonly program: string
  readonly files: readonly ExportedFile[]
  readonly gaps: readonly ManifestGap[]
  /** What `verify` says of this symbol and day; null when it was not asked. */
  readonly verify: Pick<Report, 'verdict' | 'takenAt' | 'watermark' | 'sequences' | 'findings'> | null
}

const GAPS = `SELECT gap_id, event_type, from_id, to_id, to_char(from_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    to_char(to_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), cause, status, reason
  FROM gaps WHERE symbol = $1 AND coalesce(from_time, detected_at) < $3::timestamptz AND coalesce(to_time, detected_at) >= $2::timestamptz
  ORDER BY coalesce(from_time, detected_at), gap_id`

export async function readGaps(
  reader: TextReader,
  symbol: string,
  from: string,
  to: string,
): Promise<ManifestGap[]> {
  const { rows } = await reader.query(GAPS, [symbol, from, to])
  return rows.map(([gap_id, event_type, from_id, to_id, from_time, to_time, cause, status, reason]) => ({
    gap_id: gap_id ?? '',
    event_type: event_type ?? '',
    from_id: numberOrNull(from_id),
    to_id: numberOrNull(to_id),
    from_time: from_time ?? null,
    to_time: to_time ?? null,
    cause: cause ?? '',
    status: status ?? '',
    reason: reason ?? null,
  }))
}

/** The exchange that the database's rows came from. */
export async function readExchangeIdentity(reader: TextReader): Promise<string | null> {
  const { rows } = await reader.query("SELECT value FROM meta WHERE key = 'source'")
  return rows[0]?.[0] ?? null
}

/** Ids are safe integers: nothing else is stored. */
function numberOrNull(text: string | null | undefined): number | null {
  return text == null ? null : Number(text)
}
