import type { Levels } from './level-columns.ts'
import { decimalText } from './scaled-units.ts'

/*
 * The stored rows from which a book is rebuilt, as both stores return them. Ids are update ids of the
 * exchange; `epoch` counts how often they began again. Times are microseconds since the Unix epoch.
 */

/** Which diff: it covers the update ids from the first to the last. */
export interface DiffKey {
  readonly epoch: number
  readonly firstUpdateId: number
  readonly lastUpdateId: number
  readonly eventTimeUs: number
  readonly receivedUs: number
}

/** A diff: absolute quantities of the levels that changed. */
export interface BookDiff extends DiffKey {
  readonly bids: Levels
  readonly asks: Levels
}

export interface AnchorKey {
  readonly epoch: number
  readonly lastUpdateId: number
  /** Receipt of the answer; of the last diff in a derived anchor. */
  readonly receivedUs: number
}

/** Everything from which the same book is made again. */
export interface BookState {
  readonly epoch: number
  readonly lastUpdateId: number
  /** With the levels known outside the horizon; quantity 0 if they are known to be empty. */
  readonly bids: Levels
  readonly asks: Levels
  /** The price up to which a side is exact, as a decimal; null if the side is complete. */
  readonly bidHorizon: string | null
  readonly askHorizon: string | null
}

/** A book to start from: a snapshot of the exchange, or a keyframe that was derived from one. */
export interface Anchor extends AnchorKey, BookState {
  /** The snapshot that a keyframe was derived from; null for a snapshot. */
  readonly derivedFrom: AnchorKey | null
}

/** Returns the horizon of a side of a snapshot: its last level; null if it has fewer levels than the limit. */
export function snapshotHorizon(levels: Levels, limit: number): string | null {
  const last = levels.count < limit ? undefined : levels.prices[levels.count - 1]
  return last === undefined ? null : decimalText(last, levels.priceScale)
}

export type Applied =
  /** The book is now that after the diff. */
  | 'applied'
  /** The book already contains the diff. */
  | 'old'
  /** Ids between the book and the diff are missing. The book is unchanged. */
  | 'hole'
  /** There was no anchor yet. */
  | 'no anchor'

/** Whether a book that contains everything up to `updateId` can take a diff. */
export function continuity(epoch: number, updateId: number, diff: DiffKey): Exclude<Applied, 'no anchor'> {
  if (diff.epoch !== epoch) return diff.epoch < epoch ? 'old' : 'hole'
  if (diff.lastUpdateId <= updateId) return 'old'
  return diff.firstUpdateId <= updateId + 1 ? 'applied' : 'hole'
}
