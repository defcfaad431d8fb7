import { type CaseRow, findingsOf, firstCases } from './findings.ts'
import type { Finding } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'

/** A rule for rows. `broken` is SQL that is true for a row that violates it. */
interface Bound {
  readonly kind: string
  readonly broken: string
  readonly severity: Finding['severity']
  readonly summary: string
}

const outsideYears = (column: string) => `(${column} < '2017-01-01' OR ${column} >= '2100-01-01')`
/** NaN compares as above everything. */
const notPositive = (column: string) => `NOT (${column} > 0 AND ${column} < 'NaN')`
const negative = (column: string) => `NOT (${column} >= 0 AND ${column} < 'NaN')`

/** Rows that the exchange has invalidated have neither price nor quantity. */
const VALID = `(event_type <> 'aggTrade' OR first_trade_id IS NOT NULL)`

const TRADE_BOUNDS: readonly Bound[] = [
  {
    kind: 'time',
    broken: `${outsideYears('trade_time')} OR ${outsideYears('event_time')} OR ${outsideYears('ingestion_timestamp')}`,
    severity: 'failure',
    summary: 'with a time outside 2017 to 2100',
  },
  {
    kind: 'price',
    broken: `${notPositive('price')} AND ${VALID}`,
    severity: 'failure',
    summary: 'with a price that is not above 0',
  },
  {
    kind: 'quantity',
    broken: `${notPositive('quantity')} AND ${VALID}`,
    severity: 'failure',
    summary: 'with a quantity that is not above 0',
  },
  {
    kind: 'ids',
    broken: `trade_id < 0 OR first_trade_id < 0 OR first_trade_id > last_trade_id OR (first_trade_id IS NULL) <> (last_trade_id IS NULL)
      OR (event_type <> 'aggTrade' AND first_trade_id IS NOT NULL)`,
    severity: 'failure',
    summary: 'with ids that no event has',
  },
  {
    kind: 'event time',
    broken: `event_time < trade_time - interval '1 second' OR event_time > trade_time + interval '1 minute'`,
    severity: 'notice',
    summary: 'sent over a second before its trade time, or over a minute after',
  },
  {
    kind: 'receipt',
    broken: `ingestion_timestamp < event_time - interval '5 seconds'`,
    severity: 'notice',
    summary: 'received over 5 s before it was sent: one of the clocks is wrong',
  },
]

const QUOTE_BOUNDS: readonly Bound[] = [
  {
    kind: 'time',
    broken: outsideYears('ingestion_timestamp'),
    severity: 'failure',
    summary: 'with a time outside 2017 to 2100',
  },
  {
    kind: 'price',
    broken: `${negative('bid_price')} OR ${negative('ask_price')}`,
    severity: 'failure',
    summary: 'with a price below 0',
  },
  {
    kind: 'quantity',
    broken: `${negative('bid_quantity')} OR ${negative('ask_quantity')}`,
    severity: 'failure',
    summary: 'with a quantity below 0',
  },
  { kind: 'ids', broken: 'update_id < 0', severity: 'failure', summary: 'with an id that no event has' },
  {
    kind: 'crossed',
    // An empty side has the price 0.
    broken: 'ask_price < bid_price AND ask_price > 0',
    severity: 'notice',
    summary: 'with an ask below the bid',
  },
]

/** Reads all rows once. Keeps a case for each rule that a row violates. */
function boundsSql(
  table: { name: string; time: string; id: string; type: string; epoch: string; detail: string },
  bounds: readonly Bound[],
): string {
  const cases = bounds.map(({ kind, broken }) => `CASE WHEN ${broken} THEN '${kind}' END`)
  return `WITH odd AS MATERIALIZED (
      SELECT symbol, ${table.type} AS event_type, ${table.epoch} AS epoch, ${table.id} AS from_id, ${table.id} AS to_id, ${table.detail} AS detail,
        unnest(array_remove(ARRAY[${cases.join(', ')}], NULL)) AS kind
      FROM ${table.name}
      WHERE ($1::text[] IS NULL OR symbol = ANY($1)) AND ${table.time} >= $2::timestamptz AND ${table.time} < $3::timestamptz
        AND (${bounds.map(({ broken }) => `(${broken})`).join(' OR ')})),
    ${firstCases('odd', '$4')}`
}

const TRADES = boundsSql(
  {
    name: 'trades',
    time: 'trade_time',
    id: 'trade_id',
    type: 'event_type',
    epoch: 'epoch',
    detail: `format('price %s, quantity %s, trade %s, event %s, received %s', trim_scale(price), trim_scale(quantity), trade_time,
      coalesce(event_time::text, 'unknown'), ingestion_timestamp)`,
  },
  TRADE_BOUNDS,
)

const QUOTES = boundsSql(
  {
    name: 'book_ticker',
    time: 'ingestion_timestamp',
    id: 'update_id',
    type: `'bookTicker'`,
    epoch: 'NULL::integer',
    detail: `format('bid %s × %s, ask %s × %s, received %s', trim_scale(bid_price), trim_scale(bid_quantity), trim_scale(ask_price),
      trim_scale(ask_quantity), ingestion_timestamp)`,
  },
  QUOTE_BOUNDS,
)

export function checkTradeBounds(context: CheckContext): Promise<Finding[]> {
  return checkBounds(context, TRADES, TRADE_BOUNDS)
}

export function checkQuoteBounds(context: CheckContext): Promise<Finding[]> {
  return checkBounds(context, QUOTES, QUOTE_BOUNDS)
}

async function checkBounds(
  { connection, scope, limit }: CheckContext,
  sql: string,
  bounds: readonly Bound[],
): Promise<Finding[]> {
  const { rows } = await connection.query<CaseRow>(sql, [scope.symbols, ...timeBounds(scope), limit])
  return findingsOf(rows, ({ kind }) => {
    const { severity, summary } = bounds.find((bound) => bound.kind === kind) ?? {
      severity: 'failure',
      summary: kind,
    }
    return { check: 'bounds', severity, summary }
  })
}
