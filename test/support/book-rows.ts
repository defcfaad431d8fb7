import type { Quote } from '../../src/foundation/order-book/book-check.ts'
import type { Anchor, BookDiff, BookState } from '../../src/foundation/order-book/book-rows.ts'
import { snapshotHorizon } from '../../src/foundation/order-book/book-rows.ts'
import { LevelColumns, type Levels } from '../../src/foundation/order-book/level-columns.ts'
import { scaledOf } from '../../src/foundation/order-book/scaled-units.ts'

/** Price and quantity, as the exchange writes them. */
export type Pair = readonly [price: string, quantity: string]

/** Levels with the smallest scales that hold them, as stored rows have. */
export function levelsOf(pairs: readonly Pair[]): Levels {
  const scaled = pairs.map((pair) => pair.map((text) => scaledOf(text) ?? { units: Number.NaN, scale: 0 }))
  const scaleOf = (column: number) => Math.max(0, ...scaled.map((pair) => pair[column]?.scale ?? 0))
  const columns = new LevelColumns()
  columns.begin(scaleOf(0), scaleOf(1))
  for (const [price, quantity] of scaled) {
    columns.add(
      (price?.units ?? 0) * 10 ** (columns.priceScale - (price?.scale ?? 0)),
      (quantity?.units ?? 0) * 10 ** (columns.quantityScale - (quantity?.scale ?? 0)),
    )
  }
  return columns
}

/** A diff; its event time follows from its last id unless it is given. */
export function diffOf(
  firstUpdateId: number,
  lastUpdateId: number,
  bids: readonly Pair[],
  asks: readonly Pair[],
  { epoch = 0, eventTimeUs = lastUpdateId * 1000 } = {},
): BookDiff {
  const key = { epoch, firstUpdateId, lastUpdateId, eventTimeUs, receivedUs: eventTimeUs + 500 }
  return { ...key, bids: levelsOf(bids), asks: levelsOf(asks) }
}

/** A snapshot as the exchange answers a limit. */
export function snapshotOf(
  lastUpdateId: number,
  bids: readonly Pair[],
  asks: readonly Pair[],
  { limit = 1000, epoch = 0, receivedUs = lastUpdateId * 1000 + 700 } = {},
): Anchor {
  const columns = { bids: levelsOf(bids.slice(0, limit)), asks: levelsOf(asks.slice(0, limit)) }
  return {
    epoch,
    lastUpdateId,
    receivedUs,
    ...columns,
    bidHorizon: snapshotHorizon(columns.bids, limit),
    askHorizon: snapshotHorizon(columns.asks, limit),
    derivedFrom: null,
  }
}

/** The anchor that a book's state is stored as. */
export function keyframeOf(state: BookState, derivedFrom: Anchor, receivedUs: number): Anchor {
  const { epoch, lastUpdateId, receivedUs: from } = derivedFrom
  return { ...state, receivedUs, derivedFrom: { epoch, lastUpdateId, receivedUs: from } }
}

export function quoteOf(updateId: number, [bid, bids]: Pair, [ask, asks]: Pair): Quote {
  return { updateId, bidPrice: bid, bidQuantity: bids, askPrice: ask, askQuantity: asks }
}
