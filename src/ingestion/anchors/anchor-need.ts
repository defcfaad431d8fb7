import type { RestBook } from '../../foundation/binance/depth-rest.ts'
import type { BestPrices } from './price-sample.ts'

/** A side of a snapshot. The edge is its last level; null if the side has fewer levels than were requested. */
interface Side {
  readonly best: number
  readonly edge: number | null
}

/** A snapshot that was sent to Kafka, from which the book of a symbol can be built. */
export interface Anchor {
  readonly lastUpdateId: number
  readonly epoch: number
  /** Levels per side that were requested. */
  readonly limit: number
  /** On the monotonic clock. */
  readonly atMs: number
  /** The last update id forwarded when it was taken; null before the first. */
  readonly lastId: number | null
  readonly bids: Side
  readonly asks: Side
}

/** The forwarded updates of a symbol. */
export interface Chain {
  readonly epoch: number
  /** The first id since which none is missing; null before the first update of this process. */
  readonly joinedFrom: number | null
  readonly lastId: number | null
}

/**
 * Why a symbol needs a snapshot, the most urgent first:
 *
 * - `missing`: it has none, or not since the last hole
 * - `outside`: a best price is beyond the edge of its snapshot
 * - `edge`: a best price is within a quarter of the snapshot's width of the edge
 * - `shallow`: its snapshot has fewer levels than it may have
 * - `age`: its snapshot is old
 */
export const NEEDS = ['missing', 'outside', 'edge', 'shallow', 'age'] as const
export type Need = (typeof NEEDS)[number]

/** The share of the width between best price and edge at which a new snapshot is requested. */
const NEAR = 1 / 4

/** After so long an update that contains the snapshot's id must have come, if any has. */
const COVERED_WITHIN_MS = 60_000

export function anchorOf(
  { lastUpdateId, bids, asks }: RestBook,
  limit: number,
  { epoch, lastId }: Chain,
  atMs: number,
): Anchor {
  const side = (levels: RestBook['bids']): Side => ({
    best: Number(levels[0]?.[0] ?? 0),
    edge: levels.length < limit ? null : Number(levels.at(-1)?.[0]),
  })
  return { lastUpdateId, epoch, limit, atMs, lastId, bids: side(bids), asks: side(asks) }
}

/** Whether a book with this id joins the forwarded updates, or the next one. */
export function joins(lastUpdateId: number, { joinedFrom }: Chain): boolean {
  return joinedFrom === null || lastUpdateId + 1 >= joinedFrom
}

/** @param prices after the snapshot; null if unknown @param levels that a snapshot may have */
export function needOf(
  anchor: Anchor | null,
  chain: Chain,
  prices: BestPrices | null,
  { levels, maxAgeMs, nowMs }: { readonly levels: number; readonly maxAgeMs: number; readonly nowMs: number },
): Need | null {
  if (anchor === null || anchor.epoch !== chain.epoch || !joins(anchor.lastUpdateId, chain)) return 'missing'
  const ageMs = nowMs - anchor.atMs
  // REST may have returned a book of ids that have restarted since.
  const isAhead =
    chain.lastId !== null && chain.lastId < anchor.lastUpdateId && chain.lastId !== anchor.lastId
  if (isAhead && ageMs >= COVERED_WITHIN_MS) return 'missing'
  const left =
    prices === null ? 1 : Math.min(roomLeft(anchor.bids, prices.bid), roomLeft(anchor.asks, prices.ask))
  if (left < 0) return 'outside'
  if (left < NEAR) return 'edge'
  const isComplete = anchor.bids.edge === null && anchor.asks.edge === null
  if (anchor.limit < levels && !isComplete) return 'shallow'
  return ageMs >= maxAgeMs ? 'age' : null
}

/** Returns how far a price is from the edge, as a share of the side's width; negative beyond it. */
function roomLeft({ best, edge }: Side, price: number): number {
  return edge === null || edge === best ? 1 : (price - edge) / (best - edge)
}
