import { counted } from '../../foundation/telemetry/plural.ts'
import { atId, unchecked } from './findings.ts'
import type { NotChecked } from './report-types.ts'
import { type CheckContext, type Scope, timeBounds } from './scope.ts'

/**
 * Time before which retention has dropped rows, in milliseconds since the Unix epoch; null if it
 * has dropped none.
 */
export interface Floors {
  readonly trades: number | null
  readonly book_ticker: number | null
}

/**
 * Retention drops whole chunks and records how far in `meta`, as `retention:TABLE` (migration 3).
 * Older rows are gone, not missing. Rows of such a day may come back from a backfill or a dead
 * letter. They are isolated, and do not count as first rows.
 */
export async function readFloors({ connection }: CheckContext): Promise<Floors> {
  const { rows } = await connection.query<{ trades: Date | null; book_ticker: Date | null }>(
    `SELECT max(value::timestamptz) FILTER (WHERE key = 'retention:trades') AS trades,
       max(value::timestamptz) FILTER (WHERE key = 'retention:book_ticker') AS book_ticker
     FROM meta WHERE key IN ('retention:trades', 'retention:book_ticker')`,
  )
  return {
    trades: rows[0]?.trades?.getTime() ?? null,
    book_ticker: rows[0]?.book_ticker?.getTime() ?? null,
  }
}

/** The same context without the rows before the floor. */
export function above(context: CheckContext, floorMs: number | null): CheckContext {
  const { fromMs } = context.scope
  if (floorMs === null || (fromMs !== null && fromMs >= floorMs)) return context
  return { ...context, scope: { ...context.scope, fromMs: floorMs } }
}

const BELOW: Readonly<Record<keyof Floors, string>> = {
  trades: `SELECT symbol, event_type, epoch, (count(*) OVER same)::float8 AS total, trade_id AS id, trade_time AS time,
      row_number() OVER (same ORDER BY epoch, trade_id) AS place
    FROM trades
    WHERE ($1::text[] IS NULL OR symbol = ANY($1)) AND trade_time >= $2::timestamptz AND trade_time < $3::timestamptz
    WINDOW same AS (PARTITION BY symbol, event_type)`,
  book_ticker: `SELECT symbol, 'bookTicker' AS event_type, 0 AS epoch, (count(*) OVER same)::float8 AS total, update_id AS id,
      ingestion_timestamp AS time, row_number() OVER (same ORDER BY ingestion_timestamp, update_id) AS place
    FROM book_ticker
    WHERE ($1::text[] IS NULL OR symbol = ANY($1)) AND ingestion_timestamp >= $2::timestamptz
      AND ingestion_timestamp < $3::timestamptz
    WINDOW same AS (PARTITION BY symbol)`,
}

/** Reports how far retention has gone, and the rows that exist below. */
export async function readBelow(context: CheckContext, floors: Floors): Promise<NotChecked[]> {
  const found: NotChecked[] = []
  for (const table of ['trades', 'book_ticker'] as const) {
    const floorMs = floors[table]
    if (floorMs === null || (context.scope.fromMs !== null && context.scope.fromMs >= floorMs)) continue
    const before = new Date(floorMs).toISOString()
    found.push(unchecked(`rows of ${table} before ${before}: retention has dropped them`))
    found.push(...(await rowsBelow(context, table, floorMs)))
  }
  return found
}

async function rowsBelow(
  { connection, scope, limit }: CheckContext,
  table: keyof Floors,
  floorMs: number,
): Promise<NotChecked[]> {
  const below: Scope = { ...scope, toMs: Math.min(floorMs, scope.toMs ?? floorMs) }
  const { rows } = await connection.query<{
    symbol: string
    event_type: string
    epoch: number
    total: number
    id: string
    time: Date
  }>(`SELECT * FROM (${BELOW[table]}) AS placed WHERE place <= $4 ORDER BY symbol, event_type DESC, place`, [
    scope.symbols,
    ...timeBounds(below),
    limit,
  ])
  const kinds = Map.groupBy(rows, ({ symbol, event_type }) => `${symbol} ${event_type}`)
  return [...kinds.values()].flatMap((cases) => {
    const [first] = cases
    if (first === undefined) return []
    const { symbol, event_type, total: count } = first
    const examples = cases.map(({ id, epoch, time }) =>
      atId(id, `at ${time.toISOString()}${epoch === 0 ? '' : `, epoch ${epoch}`}`),
    )
    const what = `${counted(count, `${event_type} row`)} below retention: stored after the day was dropped`
    return [unchecked(what, { symbol, count, examples })]
  })
}
