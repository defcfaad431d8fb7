import { counted } from '../../foundation/telemetry/plural.ts'
import { atId, finding, unchecked } from './findings.ts'
import type { Example, Finding, NotChecked } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'
import type { TradeEpochs } from './trade-epochs.ts'

/**
 * The trades of an aggTrade have its time. The padding matters only where the range separates them.
 */
const PADDING_MS = 60_000

/**
 * Checks aggTrades against their trades. An aggTrade covers the trades `f`..`l` of one order at one
 * price: their quantities add up to its quantity, and price and side are equal. All figures are
 * numeric, so the comparison is exact.
 *
 * The query needs one sort and one pass, whatever the sizes. It orders by trade id: the trades, and
 * two marks per aggTrade, one before its first trade and one after its last, with running sums. The
 * sums at the second mark minus those at the first are the aggTrade's. All n prices equal P if Σ(p
 * − P)² = Σp² − 2PΣp + nP² = 0. Only unequal rows are kept.
 */
const QUANTITIES = `WITH marked AS (
    SELECT CASE kind WHEN 0 THEN first_trade_id ELSE last_trade_id END AS id, kind, trade_id AS aggregate_id, first_trade_id,
      last_trade_id, price, quantity, is_buyer_maker
    FROM trades CROSS JOIN (VALUES (0), (2)) AS marks (kind)
    WHERE symbol = $1 AND event_type = 'aggTrade' AND epoch = $2 AND first_trade_id <= last_trade_id
      AND trade_time >= $3::timestamptz AND trade_time < $4::timestamptz
      AND trade_time >= $8::timestamptz AND trade_time < $9::timestamptz
    UNION ALL
    SELECT trade_id, 1, NULL, NULL, NULL, price, quantity, is_buyer_maker
    FROM trades
    WHERE symbol = $1 AND event_type = 'trade' AND epoch = $2 AND trade_time >= $5::timestamptz AND trade_time < $6::timestamptz),
  running AS (
    SELECT *, count(*) FILTER (WHERE kind = 1) OVER so_far AS trades,
      sum(quantity) FILTER (WHERE kind = 1) OVER so_far AS quantities,
      sum(price) FILTER (WHERE kind = 1) OVER so_far AS prices,
      sum(price * price) FILTER (WHERE kind = 1) OVER so_far AS squares,
      count(*) FILTER (WHERE kind = 1 AND is_buyer_maker) OVER so_far AS makers
    FROM marked WINDOW so_far AS (ORDER BY id, kind, aggregate_id ROWS UNBOUNDED PRECEDING)),
  spans AS (
    SELECT kind, aggregate_id, first_trade_id, last_trade_id, price, quantity, is_buyer_maker,
      lag(kind) OVER marks = 0 AND lag(aggregate_id) OVER marks = aggregate_id AS is_whole,
      trades - lag(trades) OVER marks AS trades,
      quantities - coalesce(lag(quantities) OVER marks, 0) AS quantities,
      prices - coalesce(lag(prices) OVER marks, 0) AS prices,
      squares - coalesce(lag(squares) OVER marks, 0) AS squares,
      makers - lag(makers) OVER marks AS makers
    FROM running WHERE kind <> 1 WINDOW marks AS (ORDER BY id, kind, aggregate_id)),
  judged AS MATERIALIZED (
    SELECT aggregate_id, first_trade_id, last_trade_id, CASE
        WHEN is_whole IS NOT TRUE THEN 'overlapping'
        WHEN trades > last_trade_id - first_trade_id + 1 THEN 'doubled'
        WHEN trades < last_trade_id - first_trade_id + 1 THEN CASE
          WHEN $10::bigint IS NULL OR last_trade_id < $10 OR first_trade_id > $11::bigint THEN 'outside'
          WHEN first_trade_id < $10 OR last_trade_id > $11 THEN 'edge'
          ELSE 'incomplete' END
        WHEN quantities <> quantity THEN 'quantity'
        WHEN squares - 2 * price * prices + trades * price * price <> 0 THEN 'price'
        ELSE 'side' END AS verdict,
      trades, trim_scale(quantity) AS quantity, trim_scale(quantities) AS quantities, trim_scale(price) AS price,
      trim_scale(prices) AS prices
    FROM spans
    WHERE kind = 2 AND (is_whole IS NOT TRUE OR trades <> last_trade_id - first_trade_id + 1 OR quantities <> quantity
      OR squares - 2 * price * prices + trades * price * price <> 0
      OR makers <> CASE WHEN is_buyer_maker THEN trades ELSE 0 END)),
  placed AS (
    SELECT *, (count(*) OVER same)::float8 AS total, row_number() OVER (same ORDER BY aggregate_id) AS place
    FROM judged WINDOW same AS (PARTITION BY verdict))
SELECT * FROM placed WHERE place <= $7 ORDER BY verdict, place`

/** Rows that the exchange has invalidated: `f` and `l` were −1, and are NULL here. */
const INVALIDATED = `SELECT count(*)::float8 AS total FROM trades
  WHERE symbol = $1 AND event_type = 'aggTrade' AND epoch = $2 AND first_trade_id IS NULL
    AND trade_time >= $3::timestamptz AND trade_time < $4::timestamptz`

/** Rows whose trades are of another epoch, see `TradeEpochs`. Invalidated rows have no trades. */
const OTHER_EPOCH = `SELECT trade_id AS id, (count(*) OVER ())::float8 AS total,
    format('at %s, of trades %s..%s', trade_time, first_trade_id, last_trade_id) AS detail
  FROM trades
  WHERE symbol = $1 AND event_type = 'aggTrade' AND epoch = $2 AND first_trade_id IS NOT NULL
    AND trade_time >= $3::timestamptz AND trade_time < $4::timestamptz
    AND NOT (trade_time >= $5::timestamptz AND trade_time < $6::timestamptz)
  ORDER BY trade_id LIMIT $7`

interface Row {
  readonly verdict: string
  readonly total: number
  readonly aggregate_id: string
  readonly first_trade_id: string
  readonly last_trade_id: string
  readonly trades: string
  readonly quantity: string
  readonly quantities: string
  readonly price: string
  readonly prices: string
}

const FAILURES: Readonly<Record<string, string>> = {
  quantity: 'with a quantity that differs from the sum of its trades',
  price: 'with a price that differs from that of its trades',
  side: 'with a side that differs from that of its trades',
}

const REASONS: Readonly<Record<string, string>> = {
  incomplete: 'with trades that are not stored (see what is missing)',
  outside: 'before the first or after the last stored trade',
  edge: 'extending past the first or the last stored trade: the recording began or ended there, or rows were removed at that end',
  doubled: 'with a doubled trade',
  overlapping: 'overlapping with another, or doubled',
  epoch: 'with trades of another epoch: the exchange did not restart the ids of both at the same moment',
  invalidated: 'invalidated by the exchange',
}

export async function checkQuantities(
  { connection, scope, limit }: CheckContext,
  { symbol, epoch }: Sequence,
  sequences: readonly Sequence[],
  { from, until }: TradeEpochs,
): Promise<{ findings: Finding[]; notChecked: NotChecked[] }> {
  const values = [symbol, epoch, ...timeBounds(scope)]
  const trades = sequences.find(
    (one) => one.symbol === symbol && one.eventType === 'trade' && one.epoch === epoch,
  )
  const { rows } = await connection.query<Row>(QUANTITIES, [
    ...values,
    ...timeBounds(scope, PADDING_MS),
    limit,
    from,
    until,
    trades?.firstId ?? null,
    trades?.lastId ?? null,
  ])
  const invalidated = (await connection.query<{ total: number }>(INVALIDATED, values)).rows[0]?.total ?? 0
  const findings: Finding[] = []
  const notChecked: NotChecked[] = []
  for (const [verdict, cases] of Map.groupBy(rows, (row) => row.verdict)) {
    const about = { symbol, count: cases[0]?.total ?? 0, examples: cases.map(exampleOf) }
    const summary = FAILURES[verdict]
    if (summary === undefined) notChecked.push(uncheckedFor(verdict, about))
    else {
      const kind = { check: 'aggregate quantities', kind: verdict, severity: 'failure' } as const
      findings.push(finding({ ...kind, ...about, eventType: 'aggTrade', epoch, summary }))
    }
  }
  const other = await otherEpoch({ connection, scope, limit }, symbol, epoch, { from, until })
  if (other !== null) notChecked.push(other)
  if (invalidated > 0)
    notChecked.push(uncheckedFor('invalidated', { symbol, count: invalidated, examples: [] }))
  return { findings, notChecked }
}

async function otherEpoch(
  { connection, scope, limit }: CheckContext,
  symbol: string,
  epoch: number,
  { from, until }: Pick<TradeEpochs, 'from' | 'until'>,
): Promise<NotChecked | null> {
  if (from === '-infinity' && until === 'infinity') return null
  const { rows } = await connection.query<{ id: string; total: number; detail: string }>(OTHER_EPOCH, [
    symbol,
    epoch,
    ...timeBounds(scope),
    from,
    until,
    limit,
  ])
  if (rows[0] === undefined) return null
  const examples = rows.map(({ id, detail }) => atId(id, detail))
  return uncheckedFor('epoch', { symbol, count: rows[0].total, examples })
}

function uncheckedFor(
  reason: string,
  about: { symbol: string; count: number; examples: Example[] },
): NotChecked {
  return unchecked(`${counted(about.count, 'aggTrade')} ${REASONS[reason] ?? reason}`, about)
}

function exampleOf(row: Row): Example {
  const { first_trade_id: first, last_trade_id: last } = row
  const covers = first === last ? `trade ${first}` : `trades ${first}..${last}`
  const details: Readonly<Record<string, string>> = {
    quantity: `${row.quantity}, of ${covers}: ${row.quantities}`,
    price: `${row.price}, of ${covers} with prices that add up to ${row.prices}`,
    side: covers,
  }
  const detail =
    details[row.verdict] ??
    `${covers}; ${row.trades} of them ${counted(Number(row.trades), 'is', 'are')} stored`
  return atId(row.aggregate_id, detail)
}
