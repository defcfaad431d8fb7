import type { EventType } from '../../foundation/market/event.ts'
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
      SELECT symbol, ${table.type} AS event_type, ${table.epoch} AS epoch, ${table.id} AS id, ${table.detail} AS detail,
        unnest(array_remove(ARRAY[${cases.join(', ')}], NULL)) AS kind
      FROM ${table.name}
      WHERE ($1::text[] IS NULL OR symbol = ANY($1)) AND ${table.time} >= $2::timestamptz AND ${table.time} < $3::timestamptz
        AND (${bounds.map(({ broken }) => `(${broken})`).join(' OR ')})),
    placed AS (
      SELECT *, (count(*) OVER same)::float8 AS total, row_number() OVER (same ORDER BY id) AS place
      FROM odd WINDOW same AS (PARTITION BY symbol, event_type, epoch, kind))
    SELECT * FROM placed WHERE place <= $4 ORDER BY symbol, event_type DESC, epoch, kind, place`
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

interface Row {
  readonly symbol: string
  readonly event_type: EventType
  readonly epoch: number | null
  readonly kind: string
  readonly total: number
  readonly id: string
  readonly detail: string
}

export async function checkTradeBounds(context: CheckContext): Promise<Finding[]> {
  return interpret(await rowsOf(context, TRADES), TRADE_BOUNDS)
}

export async function checkQuoteBounds(context: CheckContext): Promise<Finding[]> {
  return interpret(await rowsOf(context, QUOTES), QUOTE_BOUNDS)
}

async function rowsOf({ connection, scope, limit }: CheckContext, sql: string): Promise<Row[]> {
  return (await connection.query<Row>(sql, [scope.symbols, ...timeBounds(scope), limit])).rows
}

function interpret(rows: readonly Row[], bounds: readonly Bound[]): Finding[] {
  const keyOf = ({ symbol, event_type, epoch, kind }: Row) => [symbol, event_type, epoch, kind].join(' ')
  return [...Map.groupBy(rows, keyOf).values()].flatMap((cases) => {
    const [first] = cases
    const bound = bounds.find(({ kind }) => kind === first?.kind)
    if (first === undefined || bound === undefined) return []
    return [
      {
        check: 'bounds',
        kind: bound.kind,
        severity: bound.severity,
        symbol: first.symbol,
        eventType: first.event_type,
        epoch: first.epoch,
        count: first.total,
        summary: bound.summary,
        examples: cases.map(({ id, detail }) => ({ from: Number(id), to: Number(id), detail })),
      },
    ]
  })
}
