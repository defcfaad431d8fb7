import { EXAMPLE_COLUMNS, type ExampleRow, examplesIn, finding, type Remark } from './findings.ts'
import type { OutagesReport, QuotesReport } from './report-types.ts'
import { type CheckContext, inScope, isoText, scopeValues } from './scope.ts'

/** The stored quotes of a symbol. {@link checkQuoteRepeats} counts `doubled`. */
export type Quotes = Omit<QuotesReport, 'doubled'>

const QUOTES = `SELECT symbol, count(*)::float8 AS rows, ${isoText('min(ingestion_timestamp)')} AS "firstAt",
    ${isoText('max(ingestion_timestamp)')} AS "lastAt"
  FROM book_ticker WHERE ${inScope('ingestion_timestamp')} GROUP BY symbol ORDER BY symbol`

export async function readQuotes({ connection, scope }: CheckContext): Promise<Quotes[]> {
  return (await connection.query<Quotes>(QUOTES, scopeValues(scope))).rows
}

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
    WHERE ${inScope('ingestion_timestamp')} AND ${which}),
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
        SELECT (array_agg(cause ORDER BY from_time))[1] FROM gaps
        WHERE gaps.symbol = repeated.symbol AND event_type = 'bookTicker' AND from_time <= last_at + interval '1 minute'
          AND coalesce(to_time, from_time) >= last_at - interval '1 minute') AS cause
    FROM repeated),
  placed AS (
    SELECT *, (sum(copies - 1) OVER same)::float8 AS doubled,
      (sum(copies - 1) FILTER (WHERE cause IS NOT NULL) OVER same)::float8 AS beside,
      row_number() OVER (same ORDER BY first_at, update_id) AS place
    FROM explained WINDOW same AS (PARTITION BY symbol)),
  first_ones AS (
    SELECT *, update_id AS from_id, update_id AS to_id, concat(copies, ' rows, from ', ${isoText('first_at')}, ' to ',
      ${isoText('last_at')}, ', ', CASE WHEN cause IS NULL THEN 'no outage near' ELSE concat('near an outage (', cause, ')') END) AS detail
    FROM placed WHERE place <= $4)
SELECT symbol, doubled AS count, coalesce(beside, 0) AS beside, ${EXAMPLE_COLUMNS} FROM first_ones ORDER BY symbol, place`

/** For all symbols except those in `$5`. Rows come in index order. */
const WITHOUT_RESETS = repeats('0', 'NOT (symbol = ANY($5::text[]))')
/** For one symbol, whose resets are `$5`. */
const WITH_RESETS = repeats('width_bucket(ingestion_timestamp, $5::timestamptz[])', 'true')

/** The first receipt after each reset. */
const RESETS = `SELECT symbol, array_agg(${isoText('to_time')} ORDER BY to_time) AS times FROM gaps
  WHERE event_type = 'bookTicker' AND cause = 'reset' AND to_time IS NOT NULL AND ${inScope('to_time')} GROUP BY symbol`

/** The planner does not know the number of suspects: a nested loop over them could take hours. */
const NO_LOOPS = 'SET LOCAL enable_nestloop = off'
const LOOPS = 'SET LOCAL enable_nestloop = on'

interface Repeats extends ExampleRow {
  readonly symbol: string
  readonly count: number
  /** Those near an outage. */
  readonly beside: number
}

/**
 * Finds quotes whose update id has more than one receipt. They fail the verdict even near an
 * outage: the ledger shows a possible cause, but the rows are still doubled.
 */
export async function checkQuoteRepeats({ connection, scope, limit }: CheckContext): Promise<Remark[]> {
  const [symbols, ...range] = scopeValues(scope)
  const read = async (sql: string, of: unknown, eras: readonly string[]) =>
    (await connection.query<Repeats>(sql, [of, ...range, limit, eras])).rows
  const resets = await connection.query<{ symbol: string; times: string[] }>(RESETS, [symbols, ...range])
  const restarted = resets.rows.map(({ symbol }) => symbol)
  await connection.query(NO_LOOPS)
  const rows = await read(WITHOUT_RESETS, symbols, restarted)
  for (const { symbol, times } of resets.rows) rows.push(...(await read(WITH_RESETS, [symbol], times)))
  await connection.query(LOOPS)
  return [...Map.groupBy(rows, ({ symbol }) => symbol)].map(([symbol, repeated]) =>
    finding({
      check: 'quote repeats',
      kind: 'doubled',
      severity: 'failure',
      symbol,
      eventType: 'bookTicker',
      count: repeated[0]?.count,
      summary: `doubled: the same update received again, ${repeated[0]?.beside} of them within a minute of an outage in the ledger`,
      examples: examplesIn(repeated),
    }),
  )
}

/** Windows overlap when two connections were down at the same time. Their union is the loss. */
const OUTAGES = `WITH windows AS MATERIALIZED (
    SELECT symbol, cause, greatest(from_time, $2::timestamptz) AS from_time,
      least(coalesce(to_time, from_time), $3::timestamptz) AS to_time
    FROM gaps
    WHERE event_type = 'bookTicker' AND ($1::text[] IS NULL OR symbol = ANY($1))
      AND from_time <= coalesce(to_time, from_time)
      AND from_time < $3::timestamptz AND coalesce(to_time, from_time) >= $2::timestamptz),
  ordered AS (
    SELECT *, row_number() OVER (PARTITION BY symbol ORDER BY to_time - from_time DESC, from_time) AS place,
      max(to_time) OVER (PARTITION BY symbol ORDER BY from_time, to_time ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM windows),
  placed AS (
    SELECT *, count(*) OVER of_symbol AS windows,
      sum(extract(epoch FROM CASE WHEN reached >= to_time THEN interval '0 seconds' WHEN reached > from_time THEN to_time - reached
        ELSE to_time - from_time END)) OVER of_symbol AS covered
    FROM ordered WINDOW of_symbol AS (PARTITION BY symbol))
SELECT symbol, windows::float8 AS windows, covered::float8 AS covered, ${isoText('from_time')} AS "from", ${isoText('to_time')} AS "to",
  extract(epoch FROM to_time - from_time)::float8 AS seconds, cause
FROM placed WHERE place <= $4 ORDER BY symbol, place`

type Outage = OutagesReport['longest'][number] &
  Pick<OutagesReport, 'symbol' | 'windows'> & { readonly covered: number }

/** Reads the windows without quotes from the ledger, by symbol. */
export async function readOutages({ connection, scope, limit }: CheckContext): Promise<OutagesReport[]> {
  const { rows } = await connection.query<Outage>(OUTAGES, [...scopeValues(scope), limit])
  return [...Map.groupBy(rows, ({ symbol }) => symbol)].map(([symbol, outages]) => ({
    symbol,
    windows: outages[0]?.windows ?? 0,
    seconds: outages[0]?.covered ?? 0,
    longest: outages.map(({ from, to, seconds, cause }) => ({ from, to, seconds, cause })),
  }))
}
