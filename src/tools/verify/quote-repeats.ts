import { atId, finding } from './findings.ts'
import type { Finding } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'

/**
 * Finds repeated quotes. Update ids rise with receipt, in index order. So only an id that is not
 * above all previous ids can be a repeat, and the table is read again only for these few: no sort
 * of all quotes. Where a clock was set back, receipts before and after it interleave, so there are
 * more suspects, but none is missed.
 *
 * An id counts once per `era`: the ledger records when the exchange restarted its update ids from a
 * lower one.
 *
 * An outage in the ledger within a minute suggests that ingestion had just been disconnected or
 * restarted, so that another instance or connection may have received the quote too.
 */
const repeats = (era: string, which: string) => `WITH ordered AS (
    SELECT symbol, ${era} AS era, update_id, max(update_id) OVER (
        PARTITION BY symbol, ${era} ORDER BY ingestion_timestamp, update_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS highest
    FROM book_ticker
    WHERE ($1::text[] IS NULL OR symbol = ANY($1)) AND ingestion_timestamp >= $2::timestamptz
      AND ingestion_timestamp < $3::timestamptz AND ${which}),
  suspects AS MATERIALIZED (SELECT DISTINCT symbol, era, update_id FROM ordered WHERE update_id <= highest),
  repeated AS MATERIALIZED (
    SELECT symbol, era, update_id, count(*) AS copies, min(ingestion_timestamp) AS first_at, max(ingestion_timestamp) AS last_at
    FROM (SELECT *, ${era} AS era FROM book_ticker) AS quotes JOIN suspects USING (symbol, era, update_id)
    WHERE ingestion_timestamp >= $2::timestamptz AND ingestion_timestamp < $3::timestamptz
      -- Without suspects nothing is read.
      AND EXISTS (SELECT 1 FROM suspects)
    GROUP BY symbol, era, update_id HAVING count(*) > 1),
  explained AS MATERIALIZED (
    SELECT repeated.*, (
        SELECT cause FROM gaps
        WHERE gaps.symbol = repeated.symbol AND event_type = 'bookTicker' AND from_time <= last_at + interval '1 minute'
          AND coalesce(to_time, from_time) >= last_at - interval '1 minute'
        ORDER BY from_time LIMIT 1) AS cause
    FROM repeated),
  placed AS (
    SELECT *, (sum(copies - 1) OVER same)::float8 AS doubled,
      (sum(copies - 1) FILTER (WHERE cause IS NOT NULL) OVER same)::float8 AS beside,
      row_number() OVER (same ORDER BY first_at, update_id) AS place
    FROM explained WINDOW same AS (PARTITION BY symbol))
SELECT * FROM placed WHERE place <= $4 ORDER BY symbol, place`

/** For all symbols except those in `$5`. Rows come in index order. */
const WITHOUT_RESETS = repeats('0', 'symbol <> ALL($5::text[])')
/** For one symbol, whose resets are `$5`. */
const WITH_RESETS = repeats('width_bucket(ingestion_timestamp, $5::timestamptz[])', 'true')

/** The first receipt after each reset. */
const RESETS = `SELECT symbol, array_agg(to_time ORDER BY to_time) AS times FROM gaps
  WHERE event_type = 'bookTicker' AND cause = 'reset' AND to_time IS NOT NULL AND ($1::text[] IS NULL OR symbol = ANY($1))
    AND to_time >= $2::timestamptz AND to_time < $3::timestamptz
  GROUP BY symbol`

/** The planner does not know the number of suspects: a nested loop over them could take hours. */
const NO_LOOPS = 'SET LOCAL enable_nestloop = off'
const LOOPS = 'SET LOCAL enable_nestloop = on'

interface Row {
  readonly symbol: string
  readonly doubled: number
  readonly beside: number | null
  readonly update_id: string
  readonly copies: string
  readonly first_at: Date
  readonly last_at: Date
  readonly cause: string | null
}

/**
 * Finds quotes whose update id has more than one receipt. They fail the verdict even near an
 * outage: the ledger shows a possible cause, but the rows are still doubled.
 */
export async function checkQuoteRepeats({ connection, scope, limit }: CheckContext): Promise<Finding[]> {
  const range = timeBounds(scope)
  const resets = await connection.query<{ symbol: string; times: Date[] }>(RESETS, [scope.symbols, ...range])
  await connection.query(NO_LOOPS)
  const symbols = resets.rows.map(({ symbol }) => symbol)
  const { rows } = await connection.query<Row>(WITHOUT_RESETS, [scope.symbols, ...range, limit, symbols])
  for (const { symbol, times } of resets.rows) {
    const starts = times.map((time) => time.toISOString())
    rows.push(...(await connection.query<Row>(WITH_RESETS, [[symbol], ...range, limit, starts])).rows)
  }
  await connection.query(LOOPS)
  return [...Map.groupBy(rows, ({ symbol }) => symbol)].map(([symbol, cases]) => {
    const { doubled = 0, beside } = cases[0] ?? {}
    return finding({
      check: 'quote repeats',
      kind: 'doubled',
      severity: 'failure',
      symbol,
      eventType: 'bookTicker',
      count: doubled,
      summary: `doubled: the same update received again, ${beside ?? 0} of them within a minute of an outage in the ledger`,
      examples: cases.map(({ update_id, copies, first_at, last_at, cause }) => {
        const near = cause === null ? 'no outage near' : `near an outage (${cause})`
        const times = `from ${first_at.toISOString()} to ${last_at.toISOString()}`
        return atId(update_id, `${copies} rows, ${times}, ${near}`)
      }),
    })
  })
}
