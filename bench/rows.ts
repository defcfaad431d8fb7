import type { Pipeline } from './pipeline.ts'
import { withDatabase } from './place.ts'

/** Percentiles and the maximum, in milliseconds. */
export interface Latency {
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly p999: number
  readonly max: number
}

export const PERCENTILES = [0.5, 0.9, 0.99, 0.999, 1]

export function latencyOf(values: readonly number[] | null | undefined): Latency {
  const [p50 = Number.NaN, p90 = Number.NaN, p99 = Number.NaN, p999 = Number.NaN, max = Number.NaN] =
    values ?? []
  return { p50, p90, p99, p999, max }
}

/** Rows committed since a moment, by PostgreSQL's timestamps (`track_commit_timestamp`). */
export interface CommittedRows {
  readonly rows: number
  /** When the shares `from` and `to` of all rows were committed, in seconds since the moment. */
  readonly fromSeconds: number
  readonly toSeconds: number
  /** Only of tables with an event time. */
  readonly eventToRow: Latency
  readonly receiptToRow: Latency
}

/**
 * @param shares of the rows that are measured: they exclude the start, and the last rows, which
 * wait for a flush
 * @param latencyUntilUs excludes rows received later from the latencies: no later rows fill their
 * batch
 */
export async function rowsSince(
  { databaseUrl, tables: { timed, untimed } }: Pick<Pipeline, 'databaseUrl' | 'tables'>,
  sinceUs: number,
  [from, to]: readonly [number, number],
  latencyUntilUs: number = Number.MAX_SAFE_INTEGER,
): Promise<CommittedRows> {
  const all = `WITH written AS MATERIALIZED (
      SELECT event_time, ingestion_timestamp, pg_xact_commit_timestamp(xmin) AS committed_at FROM ${timed}${
        untimed === null
          ? ''
          : `
      UNION ALL
      SELECT NULL, ingestion_timestamp, pg_xact_commit_timestamp(xmin) FROM ${untimed}`
      }),
    counted AS (SELECT * FROM written
      WHERE committed_at > timestamptz 'epoch' + $1::bigint * interval '1 microsecond')`
  const percentile = (of: string, shares: string) =>
    `percentile_disc(${shares}) WITHIN GROUP (ORDER BY (${of})::float8)`
  const early = `FILTER (WHERE ingestion_timestamp < timestamptz 'epoch' + $5::bigint * interval '1 microsecond')`
  const between = (later: string, earlier: string) => `extract(epoch FROM ${later} - ${earlier}) * 1000`
  const sql = `${all} SELECT count(*)::float8 AS rows,
      ${percentile(`extract(epoch FROM committed_at) - $1::bigint / 1e6`, 'ARRAY[$3::float8, $4::float8]')} AS seconds,
      ${percentile(between('committed_at', 'event_time'), '$2::float8[]')} ${early} AS event_to_row,
      ${percentile(between('committed_at', 'ingestion_timestamp'), '$2::float8[]')} ${early} AS receipt_to_row
    FROM counted`
  const { rows } = await withDatabase(databaseUrl, (database) =>
    database.query<{
      rows: number
      seconds: number[] | null
      event_to_row: number[] | null
      receipt_to_row: number[] | null
    }>(sql, [Math.floor(sinceUs), PERCENTILES, from, to, Math.floor(latencyUntilUs)]),
  )
  const [answer] = rows
  const [fromSeconds = Number.NaN, toSeconds = Number.NaN] = answer?.seconds ?? []
  return {
    rows: answer?.rows ?? 0,
    fromSeconds,
    toSeconds,
    eventToRow: latencyOf(answer?.event_to_row),
    receiptToRow: latencyOf(answer?.receipt_to_row),
  }
}
