import type { BookStore, Instant } from '../../src/foundation/order-book/book-at.ts'
import type { Anchor, BookDiff, DiffKey } from '../../src/foundation/order-book/book-rows.ts'

const BATCH = 3

/** Stored rows in memory: what {@link BookStore} promises, in the simplest form. */
export function bookStore(diffs: readonly BookDiff[], anchors: readonly Anchor[]): BookStore {
  const inOrder = diffs.toSorted(
    (one, other) =>
      one.epoch - other.epoch ||
      one.lastUpdateId - other.lastUpdateId ||
      one.firstUpdateId - other.firstUpdateId,
  )
  const newest = inOrder.at(-1)?.epoch ?? 0
  return {
    async diffsAround(instant) {
      const index = inOrder.findLastIndex((diff) => isUpTo(diff, instant, newest))
      return { last: keyOf(inOrder[index]), next: keyOf(inOrder[index + 1]) }
    },
    async anchorBefore(epoch, updateId, except) {
      const before = anchors
        .filter((anchor) => anchor.epoch === epoch && anchor.lastUpdateId <= updateId)
        .filter((anchor) => !except.includes((anchor.derivedFrom ?? anchor).lastUpdateId))
      const [newest] = before.toSorted(
        (one, other) =>
          other.lastUpdateId - one.lastUpdateId ||
          Number(one.derivedFrom !== null) - Number(other.derivedFrom !== null) ||
          other.bids.count + other.asks.count - one.bids.count - one.asks.count,
      )
      return newest ?? null
    },
    async snapshotFrom(epoch, updateId) {
      const [first] = anchors
        .filter((anchor) => anchor.derivedFrom === null)
        .filter((anchor) => anchor.epoch === epoch && anchor.lastUpdateId >= updateId)
        .sort((one, other) => one.lastUpdateId - other.lastUpdateId)
      if (first === undefined) return null
      return { epoch: first.epoch, lastUpdateId: first.lastUpdateId, receivedUs: first.receivedUs }
    },
    async *diffsFrom(epoch, updateId) {
      const from = inOrder.filter((diff) => diff.epoch === epoch && diff.lastUpdateId >= updateId)
      for (let i = 0; i < from.length; i += BATCH) yield from.slice(i, i + BATCH)
    },
  }
}

function isUpTo(diff: DiffKey, instant: Instant, newest: number): boolean {
  switch (instant.kind) {
    case 'event time':
      return diff.eventTimeUs <= instant.us
    case 'receipt':
      return diff.receivedUs <= instant.us
    case 'update id': {
      const epoch = instant.epoch ?? newest
      return diff.epoch < epoch || (diff.epoch === epoch && diff.lastUpdateId <= instant.updateId)
    }
  }
}

function keyOf(diff: BookDiff | undefined): DiffKey | null {
  if (diff === undefined) return null
  const { bids: _, asks: __, ...key } = diff
  return key
}
