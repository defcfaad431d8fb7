import { finding, firstCases, type Remark, readCases } from './findings.ts'
import type { Finding } from './report-types.ts'
import { type CheckContext, inScope, scopeValues, TABLES, type Table } from './scope.ts'

/** A rule for rows. `broken` is SQL that is true for a row that violates it. */
type Bound = Pick<Finding, 'kind' | 'severity' | 'summary'> & { readonly broken: string }

const outsideYears = (column: string) => `(${column} < '2017-01-01' OR ${column} >= '2100-01-01')`
/** A decimal has twelve digits before the point. NaN compares as above everything. */
const ABOVE_ALL = 10 ** 12
const notPositive = (column: string) => `NOT (${column} > 0 AND ${column} < ${ABOVE_ALL})`
const negative = (column: string) => `NOT (${column} >= 0 AND ${column} < ${ABOVE_ALL})`

/** Rows that the exchange has invalidated have neither price nor quantity. */
const VALID = `(event_type <> 'aggTrade' OR first_trade_id IS NOT NULL)`

function bound(severity: Finding['severity']) {
  return (kind: string, broken: string, summary: string): Bound => ({ kind, severity, broken, summary })
}
const failure = bound('failure')
const notice = bound('notice')

const EARLY_RECEIPT = notice(
  'receipt',
  `ingestion_timestamp < event_time - interval '5 seconds'`,
  'received over 5 s before it was sent: one of the clocks is wrong',
)

const BOUNDS: Readonly<Record<Table, readonly Bound[]>> = {
  trades: [
    failure(
      'time',
      `${outsideYears('trade_time')} OR ${outsideYears('event_time')} OR ${outsideYears('ingestion_timestamp')}`,
      'with a time outside 2017 to 2100',
    ),
    failure('price', `${notPositive('price')} AND ${VALID}`, 'with a price that is not above 0'),
    failure('quantity', `${notPositive('quantity')} AND ${VALID}`, 'with a quantity that is not above 0'),
    failure(
      'ids',
      `trade_id < 0 OR first_trade_id < 0 OR first_trade_id > last_trade_id OR (first_trade_id IS NULL) <> (last_trade_id IS NULL)
        OR (event_type <> 'aggTrade' AND first_trade_id IS NOT NULL)`,
      'with ids that no event has',
    ),
    notice(
      'event time',
      `event_time < trade_time - interval '1 second' OR event_time > trade_time + interval '1 minute'`,
      'sent over a second before its trade time, or over a minute after',
    ),
    EARLY_RECEIPT,
  ],
  book_ticker: [
    failure('time', outsideYears('ingestion_timestamp'), 'with a time outside 2017 to 2100'),
    failure('price', `${negative('bid_price')} OR ${negative('ask_price')}`, 'with a price below 0'),
    failure(
      'quantity',
      `${negative('bid_quantity')} OR ${negative('ask_quantity')}`,
      'with a quantity below 0',
    ),
    failure('ids', 'update_id < 0', 'with an id that no event has'),
    // An empty side has the price 0.
    notice('crossed', 'ask_price < bid_price AND ask_price > 0', 'with an ask below the bid'),
  ],
  depth_updates: [
    failure(
      'time',
      `${outsideYears('event_time')} OR ${outsideYears('ingestion_timestamp')}`,
      'with a time outside 2017 to 2100',
    ),
    failure('ids', 'first_update_id < 0 OR first_update_id > last_update_id', 'with ids that no event has'),
    EARLY_RECEIPT,
  ],
  depth_snapshots: [
    failure('time', outsideYears('ingestion_timestamp'), 'with a time outside 2017 to 2100'),
    failure('ids', 'last_update_id < 0', 'with an id that no event has'),
  ],
}

const DETAILS: Readonly<Record<Table, string>> = {
  trades: `concat('price ', trim_scale(price), ', quantity ', trim_scale(quantity), ', trade ', trade_time, ', event ',
    coalesce(event_time::text, 'unknown'), ', received ', ingestion_timestamp)`,
  book_ticker: `concat('bid ', trim_scale(bid_price), ' × ', trim_scale(bid_quantity), ', ask ', trim_scale(ask_price), ' × ',
    trim_scale(ask_quantity), ', received ', ingestion_timestamp)`,
  depth_updates:
    "concat('from ', first_update_id, ', event ', event_time, ', received ', ingestion_timestamp)",
  depth_snapshots: "concat('received ', ingestion_timestamp)",
}

/** Reads all rows once. Keeps a case for each rule that a row violates. */
function boundsSql(table: Table, bounds: readonly Bound[]): string {
  const { time, id, type, epoch } = TABLES[table]
  const rules = bounds.map(({ kind, broken }) => `WHEN '${kind}' THEN ${broken}`)
  return `WITH odd AS MATERIALIZED (
      SELECT * FROM ${table} WHERE ${inScope(time)} AND (${bounds.map(({ broken }) => `(${broken})`).join(' OR ')})),
    cases AS (
      SELECT symbol, ${type} AS event_type, ${epoch} AS epoch, ${id} AS from_id, ${id} AS to_id, ${DETAILS[table]} AS detail, rule AS kind
      FROM odd CROSS JOIN (VALUES ${bounds.map(({ kind }) => `('${kind}')`).join(', ')}) AS rules (rule)
      WHERE CASE rule ${rules.join(' ')} END),
    ${firstCases('cases', '$4')}`
}

export async function checkBounds(
  { connection, scope, limit }: CheckContext,
  table: Table,
): Promise<Remark[]> {
  const bounds = BOUNDS[table]
  const values = [...scopeValues(scope), limit]
  return (await readCases(connection, boundsSql(table, bounds), values)).flatMap((cases) =>
    bounds
      .filter(({ kind }) => kind === cases.kind)
      .map(({ severity, summary }) => finding({ check: 'bounds', severity, ...cases, summary })),
  )
}
