import type { OutagesReport } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'

/** Windows overlap when two connections were down at the same time. Their union is the loss. */
const OUTAGES = `WITH windows AS MATERIALIZED (
    SELECT symbol, cause, greatest(from_time, $2::timestamptz) AS from_time,
      least(coalesce(to_time, from_time), $3::timestamptz) AS to_time
    FROM gaps
    WHERE event_type = 'bookTicker' AND ($1::text[] IS NULL OR symbol = ANY($1))
      AND from_time <= coalesce(to_time, from_time)
      AND from_time < $3::timestamptz AND coalesce(to_time, from_time) >= $2::timestamptz),
  summed AS (
    SELECT symbol, count(*)::float8 AS windows, range_agg(tstzrange(from_time, to_time)) AS covered FROM windows GROUP BY symbol),
  placed AS (
    SELECT *, row_number() OVER (PARTITION BY symbol ORDER BY to_time - from_time DESC, from_time) AS place FROM windows)
SELECT symbol, windows, from_time, to_time, cause,
  (SELECT coalesce(sum(extract(epoch FROM upper(r) - lower(r))), 0)::float8 FROM unnest(covered) AS r) AS seconds
FROM summed JOIN placed USING (symbol) WHERE place <= $4 ORDER BY symbol, place`

/** Reads the windows without quotes from the ledger, by symbol. */
export async function readOutages({ connection, scope, limit }: CheckContext): Promise<OutagesReport[]> {
  const { rows } = await connection.query<{
    symbol: string
    windows: number
    seconds: number
    from_time: Date
    to_time: Date
    cause: string
  }>(OUTAGES, [scope.symbols, ...timeBounds(scope), limit])
  return [...Map.groupBy(rows, ({ symbol }) => symbol)].map(([symbol, cases]) => ({
    symbol,
    windows: cases[0]?.windows ?? 0,
    seconds: cases[0]?.seconds ?? 0,
    longest: cases.map(({ from_time, to_time, cause }) => ({
      from: from_time.toISOString(),
      to: to_time.toISOString(),
      seconds: (to_time.getTime() - from_time.getTime()) / 1000,
      cause,
    })),
  }))
}
