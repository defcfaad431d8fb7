import { counted } from '../../foundation/telemetry/plural.ts'
import { finding, firstCases, type Remark, readCases, unchecked } from './findings.ts'
import { type CheckContext, IN_SEQUENCE, sequenceValues, timeBounds } from './scope.ts'
import type { Sequence, TradeEpochs } from './sequences.ts'

/** The trades of an aggTrade have its time; the padding matters where the range separates them. */
const PADDING_MS = 60_000

/**
 * Checks aggTrades against their trades. An aggTrade covers the trades `f`..`l` of one order at one
 * price: their quantities add up to its quantity, and price and side are equal. All figures are
 * numeric, so the comparison is exact.
 *
 * The query needs one sort and one pass, whatever the sizes. It orders by trade id: the trades, and
 * two marks per aggTrade, one before its first trade and one after its last, with running sums. The
 * sums at the second mark minus those at the first are the aggTrade's. Both marks have its price, so
 * all prices are equal if no row from the one to the other differs in it from the row before. Only
 * unequal rows are kept. The counts are sums, since DuckDB needs quadratic time for a running count with a filter.
 */
const QUANTITIES = `WITH marked AS (
    SELECT CASE kind WHEN 0 THEN first_trade_id ELSE last_trade_id END AS id, kind, trade_id AS aggregate_id, first_trade_id,
      last_trade_id, price, quantity, is_buyer_maker
    FROM trades CROSS JOIN (VALUES (0), (2)) AS marks (kind)
    WHERE ${IN_SEQUENCE} AND first_trade_id <= last_trade_id
      AND trade_time >= $7::timestamptz AND trade_time < $8::timestamptz
    UNION ALL
    SELECT trade_id, 1, NULL, NULL, NULL, price, quantity, is_buyer_maker
    FROM trades
    WHERE symbol = $1 AND event_type = 'trade' AND epoch = $3 AND trade_time >= $9::timestamptz AND trade_time < $10::timestamptz),
  steps AS (
    SELECT *, price IS DISTINCT FROM lag(price) OVER (ORDER BY id, kind, aggregate_id) AS is_change FROM marked),
  running AS (
    SELECT *, sum(CASE WHEN kind = 1 THEN 1 ELSE 0 END) OVER so_far AS trades,
      sum(quantity) FILTER (WHERE kind = 1) OVER so_far AS quantities,
      sum(price) FILTER (WHERE kind = 1) OVER so_far AS prices,
      sum(CASE WHEN is_change THEN 1 ELSE 0 END) OVER so_far AS changes,
      sum(CASE WHEN kind = 1 AND is_buyer_maker THEN 1 ELSE 0 END) OVER so_far AS makers
    FROM steps WINDOW so_far AS (ORDER BY id, kind, aggregate_id ROWS UNBOUNDED PRECEDING)),
  spans AS (
    SELECT kind, aggregate_id, first_trade_id, last_trade_id, price, quantity, is_buyer_maker,
      lag(kind) OVER marks = 0 AND lag(aggregate_id) OVER marks = aggregate_id AS is_whole,
      trades - lag(trades) OVER marks AS trades,
      quantities - coalesce(lag(quantities) OVER marks, 0) AS quantities,
      prices - coalesce(lag(prices) OVER marks, 0) AS prices,
      changes - lag(changes) OVER marks AS changes,
      makers - lag(makers) OVER marks AS makers
    FROM running WHERE kind <> 1 WINDOW marks AS (ORDER BY id, kind, aggregate_id)),
  judged AS MATERIALIZED (
    SELECT aggregate_id, first_trade_id, last_trade_id, CASE
        WHEN is_whole IS NOT TRUE THEN 'overlapping'
        WHEN trades > last_trade_id - first_trade_id + 1 THEN 'doubled'
        WHEN trades < last_trade_id - first_trade_id + 1 THEN CASE
          WHEN $11::bigint IS NULL OR last_trade_id < $11 OR first_trade_id > $12::bigint THEN 'outside'
          WHEN first_trade_id < $11 OR last_trade_id > $12 THEN 'edge'
          ELSE 'incomplete' END
        WHEN quantities <> quantity THEN 'quantity'
        WHEN changes > 0 THEN 'price'
        ELSE 'side' END AS kind,
      trades, trim_scale(quantity) AS quantity, trim_scale(quantities) AS quantities, trim_scale(price) AS price,
      trim_scale(prices) AS prices, CASE first_trade_id WHEN last_trade_id THEN concat('trade ', first_trade_id)
        ELSE concat('trades ', first_trade_id, '..', last_trade_id) END AS covers
    FROM spans
    WHERE kind = 2 AND (is_whole IS NOT TRUE OR trades <> last_trade_id - first_trade_id + 1 OR quantities <> quantity
      OR changes > 0 OR makers <> CASE WHEN is_buyer_maker THEN trades ELSE 0 END)),
  cases AS (
    SELECT $1 AS symbol, $2 AS event_type, $3 AS epoch, kind, aggregate_id AS from_id, aggregate_id AS to_id, CASE kind
        WHEN 'quantity' THEN concat(quantity, ', of ', covers, ': ', quantities)
        WHEN 'price' THEN concat(price, ', of ', covers, ' with prices that add up to ', prices)
        WHEN 'side' THEN covers
        ELSE concat(covers, '; ', trades, ' of them ', CASE trades WHEN 1 THEN 'is' ELSE 'are' END, ' stored') END AS detail
    FROM judged),
  ${firstCases('cases', '$6')}`

/**
 * Rows that have no trades: the exchange has invalidated them (`f` and `l` were −1, and are NULL
 * here), or their trades are of another epoch, see {@link TradeEpochs}.
 */
const EXCLUDED = `WITH excluded AS (
    SELECT symbol, event_type, epoch, trade_id AS from_id, trade_id AS to_id,
      CASE WHEN first_trade_id IS NULL THEN 'invalidated' ELSE 'epoch' END AS kind,
      CASE WHEN first_trade_id IS NOT NULL
        THEN concat('at ', trade_time, ', of trades ', first_trade_id, '..', last_trade_id) END AS detail
    FROM trades
    WHERE ${IN_SEQUENCE} AND (first_trade_id IS NULL OR NOT (trade_time >= $7::timestamptz AND trade_time < $8::timestamptz))),
  ${firstCases('excluded', '$6')}`

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
  sequence: Sequence,
  { from, until, trades }: TradeEpochs,
): Promise<Remark[]> {
  const values = [...sequenceValues(scope, sequence), limit, from, until]
  const [firstId, lastId] = [trades?.firstId ?? null, trades?.lastId ?? null]
  const compared = [...values, ...timeBounds(scope, PADDING_MS), firstId, lastId]
  const cases = [
    ...(await readCases(connection, QUANTITIES, compared)),
    ...(await readCases(connection, EXCLUDED, values)),
  ]
  return cases.map((found) => {
    const { kind, count } = found
    const summary = FAILURES[kind]
    return summary === undefined
      ? unchecked(`${counted(count, 'aggTrade')} ${REASONS[kind] ?? kind}`, found)
      : finding({ check: 'aggregate quantities', severity: 'failure', ...found, summary })
  })
}
