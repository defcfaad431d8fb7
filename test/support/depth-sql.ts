import { isoOfUs } from '../../src/foundation/market/time-unit.ts'
import type { Quote } from '../../src/foundation/order-book/book-check.ts'
import type { Anchor, BookDiff } from '../../src/foundation/order-book/book-rows.ts'
import { type Levels, packColumns } from '../../src/foundation/order-book/level-columns.ts'

/*
 * SQL that inserts rows of order books as the consumer does.
 */

const packed = (levels: Levels) => `'\\x${Buffer.from(packColumns(levels)).toString('hex')}'`
const text = (value: string | null) => (value === null ? 'NULL' : `'${value}'`)
const time = (us: number) => `'${isoOfUs(us)}'`

export function diffSql(diff: BookDiff, symbol?: string): string {
  return diffsSql([diff], symbol)
}

export function diffsSql(diffs: readonly BookDiff[], symbol = 'BTCUSDT'): string {
  const rows = diffs.map(
    ({ epoch, firstUpdateId, lastUpdateId, eventTimeUs, receivedUs, bids, asks }) =>
      `(${time(eventTimeUs)}, '${symbol}', ${epoch}, ${firstUpdateId}, ${lastUpdateId}, ${packed(bids)}, ${packed(asks)}, ${time(receivedUs)})`,
  )
  return `INSERT INTO depth_updates (event_time, symbol, epoch, first_update_id, last_update_id, bids, asks, ingestion_timestamp)
    VALUES ${rows.join()}`
}

export function anchorSql(anchor: Anchor): string {
  const { epoch, lastUpdateId, receivedUs, bids, asks, bidHorizon, askHorizon } = anchor
  const limit = Math.max(bids.count, asks.count) + (bidHorizon === null && askHorizon === null ? 1 : 0)
  return `INSERT INTO depth_snapshots (ingestion_timestamp, symbol, epoch, last_update_id, kind, level_limit, bids, asks, bid_horizon, ask_horizon)
    VALUES (${time(receivedUs)}, 'BTCUSDT', ${epoch}, ${lastUpdateId}, 'rest', ${limit}, ${packed(bids)}, ${packed(asks)},
      ${text(bidHorizon)}, ${text(askHorizon)})`
}

export function keyframeSql(keyframe: Anchor, eventTimeUs: number): string {
  const { epoch, lastUpdateId, receivedUs, bids, asks, bidHorizon, askHorizon, derivedFrom } = keyframe
  return `INSERT INTO depth_snapshots (ingestion_timestamp, symbol, epoch, last_update_id, kind, bids, asks, bid_horizon, ask_horizon,
      event_time, anchor_update_id, anchor_timestamp)
    VALUES (${time(receivedUs)}, 'BTCUSDT', ${epoch}, ${lastUpdateId}, 'derived', ${packed(bids)}, ${packed(asks)}, ${text(bidHorizon)},
      ${text(askHorizon)}, ${time(eventTimeUs)}, ${derivedFrom?.lastUpdateId ?? 0}, ${time(derivedFrom?.receivedUs ?? 0)})`
}

export function quoteSql(quote: Quote, receivedUs: number): string {
  return quotesSql([[quote, receivedUs]])
}

/** @param quotes each with its receipt */
export function quotesSql(quotes: ReadonlyArray<readonly [Quote, number]>): string {
  const rows = quotes.map(
    ([{ updateId, bidPrice, bidQuantity, askPrice, askQuantity }, receivedUs]) =>
      `(${time(receivedUs)}, 'BTCUSDT', ${updateId}, ${bidPrice}, ${bidQuantity}, ${askPrice}, ${askQuantity})`,
  )
  return `INSERT INTO book_ticker VALUES ${rows.join()}`
}
