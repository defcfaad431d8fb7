import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { bookAt, type Instant } from '../src/foundation/order-book/book-at.ts'
import type { Anchor, BookDiff } from '../src/foundation/order-book/book-rows.ts'
import { OrderBook } from '../src/foundation/order-book/order-book.ts'
import { StoredBooks } from '../src/foundation/store/stored-books.ts'
import { keyframeOf } from './support/book-rows.ts'
import { bookStore } from './support/book-store.ts'
import { databaseKinds, openTestDatabase } from './support/database.ts'
import { insertDepth } from './support/stored-depth.ts'
import { endsOf, HISTORIES, TrueBook } from './support/true-book.ts'

for (const { name: kind, ...options } of databaseKinds())
  test(`O12–O15 books of the ${kind} database are those of the same rows in memory`, options, async () => {
    await using open = await openTestDatabase('migrated', kind)
    const { database } = open
    await fc.assert(
      fc.asyncProperty(HISTORIES, fc.uniqueArray(fc.nat(40), { maxLength: 3 }), async (one, lost) => {
        const truth = new TrueBook(one.orders)
        const { lastUpdateId } = truth
        const all = [one.cuts, one.otherCuts.slice(0, 4)].flatMap((cuts) =>
          truth.diffs(endsOf(cuts, lastUpdateId)),
        )
        const diffs = [
          ...new Map(
            all
              .filter((_, index) => !lost.includes(index))
              .map((diff) => [`${diff.firstUpdateId} ${diff.lastUpdateId}`, diff]),
          ).values(),
        ]
        const snapshots = [one.anchorAt, one.anchorAt / 3].map((part) =>
          truth.snapshot(Math.max(1, Math.floor(part * lastUpdateId)), one.limit),
        )
        const anchors = [
          ...new Map(snapshots.map((anchor) => [anchor.lastUpdateId, anchor])).values(),
        ].flatMap((anchor) => [anchor, ...keyframesAfter(anchor, diffs)])
        await database.query('TRUNCATE depth_updates, depth_snapshots')
        await insertDepth(database, diffs, anchors)
        const inMemory = bookStore(diffs, anchors)
        for (let i = 1; i <= 8; i++) {
          const updateId = Math.floor((i * lastUpdateId) / 8)
          const instant: Instant =
            i % 3 === 0
              ? { kind: 'update id', epoch: null, updateId }
              : { kind: i % 3 === 1 ? 'event time' : 'receipt', us: updateId * 1000 + 200 }
          assert.deepEqual(
            await bookAt(new StoredBooks(database, 'BTCUSDT'), instant, 5),
            await bookAt(inMemory, instant, 5),
            JSON.stringify(instant),
          )
        }
        const other = new StoredBooks(database, 'ETHUSDT')
        assert.deepEqual(await bookAt(other, { kind: 'event time', us: 9e9 }), {
          kind: 'refused',
          reason: 'nothing recorded',
        })
      }),
      { numRuns: 12, seed: 19 },
    )
  })

/** A keyframe of the book after the first two diffs that it takes. */
function keyframesAfter(anchor: Anchor, diffs: readonly BookDiff[]): Anchor[] {
  const book = new OrderBook()
  book.reset(anchor)
  const applied = diffs
    .toSorted(
      (one, other) => one.lastUpdateId - other.lastUpdateId || one.firstUpdateId - other.firstUpdateId,
    )
    .filter((diff) => book.apply(diff) === 'applied')
    .slice(0, 2)
  const last = applied[1]
  if (last === undefined) return []
  const upTo = new OrderBook()
  upTo.reset(anchor)
  for (const diff of diffs.filter(({ lastUpdateId }) => lastUpdateId <= last.lastUpdateId)) upTo.apply(diff)
  return upTo.updateId === last.lastUpdateId ? [keyframeOf(upTo.state(), anchor, last.receivedUs)] : []
}
