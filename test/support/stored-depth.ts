import { isoOfUs } from '../../src/foundation/market/time-unit.ts'
import type { Anchor, BookDiff } from '../../src/foundation/order-book/book-rows.ts'
import { packColumns } from '../../src/foundation/order-book/level-columns.ts'
import type { Queryable } from '../../src/foundation/store/database.ts'

/** Inserts rows of an order book as the consumer stores them. */
export async function insertDepth(
  database: Queryable,
  diffs: readonly BookDiff[],
  anchors: readonly Anchor[],
  symbol = 'BTCUSDT',
): Promise<void> {
  for (const { epoch, firstUpdateId, lastUpdateId, eventTimeUs, receivedUs, bids, asks } of diffs)
    await database.query(
      `INSERT INTO depth_updates (symbol, epoch, first_update_id, last_update_id, event_time, ingestion_timestamp, bids, asks)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
      [
        ...[symbol, epoch, firstUpdateId, lastUpdateId, isoOfUs(eventTimeUs), isoOfUs(receivedUs)],
        ...[packColumns(bids), packColumns(asks)],
      ],
    )
  for (const { epoch, lastUpdateId, receivedUs, bids, asks, bidHorizon, askHorizon, derivedFrom } of anchors)
    await database.query(
      `INSERT INTO depth_snapshots (symbol, epoch, last_update_id, ingestion_timestamp, bids, asks, bid_horizon, ask_horizon, kind,
         level_limit, event_time, anchor_update_id, anchor_timestamp)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
      [
        ...[symbol, epoch, lastUpdateId, isoOfUs(receivedUs), packColumns(bids), packColumns(asks)],
        ...[bidHorizon, askHorizon],
        ...(derivedFrom === null
          ? ['rest', Math.max(1, bids.count, asks.count), null, null, null]
          : [
              ...['derived', null, isoOfUs(receivedUs)],
              ...[derivedFrom.lastUpdateId, isoOfUs(derivedFrom.receivedUs)],
            ]),
      ],
    )
}
