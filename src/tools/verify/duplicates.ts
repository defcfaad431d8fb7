import { atId, finding } from './findings.ts'
import type { Finding } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'

/**
 * The unique index includes the trade time, as every unique index of a hypertable must, so it
 * allows an id under another time. The query groups all rows, so it runs only if continuity has
 * counted more rows than ids.
 */
const DUPLICATES = `WITH doubled AS (
    SELECT trade_id, count(*) AS copies, min(trade_time) AS first_time, max(trade_time) AS last_time
    FROM trades
    WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $4::timestamptz AND trade_time < $5::timestamptz
    GROUP BY trade_id HAVING count(*) > 1)
SELECT trade_id AS id, format('%s rows, from %s to %s', copies, first_time, last_time) AS detail,
  (count(*) OVER ())::float8 AS total
FROM doubled ORDER BY trade_id LIMIT $6`

/** Finds ids that are stored more than once; null when there are none. */
export async function checkDuplicates(
  { connection, scope, limit }: CheckContext,
  { symbol, eventType, epoch }: Sequence,
): Promise<Finding | null> {
  const { rows } = await connection.query<{ id: string; detail: string; total: number }>(DUPLICATES, [
    symbol,
    eventType,
    epoch,
    ...timeBounds(scope),
    limit,
  ])
  const count = rows[0]?.total ?? 0
  if (count === 0) return null
  return finding({
    check: 'duplicates',
    kind: 'doubled',
    severity: 'failure',
    symbol,
    eventType,
    epoch,
    count,
    summary: 'doubled: stored under more than one trade time',
    examples: rows.map(({ id, detail }) => atId(id, detail)),
  })
}
