import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkBooks } from '../chaos/books.ts'
import { horizonFigures } from '../chaos/horizons.ts'
import { reasonsOf, type Snapshot } from '../chaos/snapshot-reasons.ts'
import type { IdRange } from '../src/foundation/market/id-ranges.ts'
import type { BookDiff } from '../src/foundation/order-book/book-rows.ts'
import { diffOf } from './support/book-rows.ts'
import { bookStore } from './support/book-store.ts'
import { type Order, TrueBook } from './support/true-book.ts'

/** Levels of each side. */
const DEPTH = 120
const BUILT = 2 * DEPTH
const LAST = BUILT + 100
const SYMBOL = 'BTCUSDT'

function trueBook(): TrueBook {
  const resting = Array.from(
    { length: BUILT },
    (_, i): Order => ({ side: i < DEPTH ? 'bids' : 'asks', price: 1000 + i, quantity: 1 }),
  )
  const changes = Array.from(
    { length: LAST - BUILT },
    (_, i): Order => ({
      side: i % 2 === 0 ? 'bids' : 'asks',
      price: 1000 + DEPTH + (i % 2 === 0 ? -1 - (i % 40) : i % 40),
      quantity: (i * 7) % 5,
    }),
  )
  return new TrueBook([...resting, ...changes])
}

/** Checks books of diffs, each of ten updates with an event time of the last id in milliseconds. */
function check(change: (diffs: BookDiff[]) => void, lost: readonly IdRange[] = []) {
  const book = trueBook()
  const ends = Array.from({ length: 10 }, (_, i) => BUILT + 10 * (i + 1))
  const diffs = ends.map((end) => book.diff(end - 9, end))
  change(diffs)
  const snapshots = [book.snapshot(BUILT, 500), book.snapshot(BUILT + 80, 500)]
  const instants = ends.map((timeMs) => ({ symbol: SYMBOL, timeMs }))
  return checkBooks(instants, {
    name: 'tables',
    storeOf: () => bookStore(diffs, snapshots),
    lostOf: () => lost,
    truth: {
      book(_, moment, levels) {
        // By then the change before an instant was due.
        const updateId = 'updateId' in moment ? moment.updateId : moment.timeMs + 102
        const of = (side: 'bids' | 'asks') =>
          [...book.levels(side, updateId)]
            .slice(0, levels)
            .map(([price, quantity]): [string, string] => [`${price}.00`, `${quantity}.0`])
        return { lastUpdateId: updateId, bids: of('bids'), asks: of('asks') }
      },
    },
  })
}

test('recorded books that equal the exchange have no wrong level', async () => {
  const { books, wrongLevels, levels, horizons, violations } = await check(() => {})
  assert.deepEqual([violations, books, wrongLevels, horizons.deepShare], [[], 10, 0, 1])
  assert(levels > 10 * 2 * 100)
})

test('an altered, a missing and an invented level are wrong until a snapshot corrects them', async () => {
  for (const bids of [[['1119', '77']], [['1119', '0']], [['1119.5', '1']]] as const) {
    const found = await check((diffs) => {
      diffs[1] = diffOf(BUILT + 11, BUILT + 20, bids, [])
    })
    assert.ok(found.wrongLevels > 0, String(bids))
    assert.match(found.violations.join(), /wrong levels, (bids|asks) \d/)
    assert.ok(!found.violations.join().includes(new Date(BUILT + 90).toISOString()))
  }
})

test('a book without the newest change is old', async () => {
  const { violations } = await check((diffs) => void diffs.pop())
  assert.match(violations.join(), /ends with update 330, although 340 was due/)
})

test('a refused instant needs the missing updates in the ledger', async () => {
  const lose = (diffs: BookDiff[]) => void diffs.splice(3, 1)
  const { refused, violations } = await check(lose, [{ from: BUILT + 31, to: BUILT + 40 }])
  assert.deepEqual([violations, refused], [[], { hole: 4 }])
  const part = await check(lose, [{ from: BUILT + 31, to: BUILT + 39 }])
  assert.equal(part.violations.length, 4)
  assert.match(part.violations.join(), /which is not in the ledger/)
})

test('books with fewer than 100 levels are counted, and the narrower side decides', () => {
  const width = { ageMs: 10, basisPoints: 5 }
  const widths = [
    { ...width, timeMs: 0, levels: 100 },
    { ...width, timeMs: 1000, levels: 99 },
  ]
  const { deepShare, slices } = horizonFigures(widths)
  assert.equal(deepShare, 0.5)
  assert.deepEqual(
    slices.map(({ books }) => books),
    [1, 0, 0, 0, 1],
  )
})

test('a snapshot is explained by a start, lost updates, a new process, more levels, a near edge, or its age', () => {
  const snapshot = (id: number, limit: number, more: Partial<Snapshot> = {}): Snapshot => ({
    ...{ id, limit, process: id < 40 ? 1 : 2, takenMs: id },
    ...{ bestBid: 100, bestAsk: 101, bidEdge: 50, askEdge: 151, ...more },
  })
  const reasons = (snapshots: Snapshot[]) =>
    Object.fromEntries(reasonsOf(snapshots, [{ from: 11, to: 20 }], 9))
  assert.deepEqual(reasons([snapshot(5, 500), snapshot(6, 5000), snapshot(20, 500)]), {
    ...{ start: 1, deeper: 1, hole: 1 },
  })
  assert.deepEqual(reasons([snapshot(21, 500), snapshot(41, 500)]), { hole: 1, restart: 1 })
  assert.deepEqual(reasons([snapshot(5, 500), snapshot(6, 500, { bestBid: 60 })]), { start: 1, edge: 1 })
  assert.deepEqual(reasons([snapshot(21, 500), snapshot(30, 500)]), { hole: 1, age: 1 })
  // A new process begins with fewer levels, too.
  const restarted = [snapshot(21, 500), snapshot(22, 5000), snapshot(41, 500), snapshot(42, 5000)]
  assert.deepEqual(reasons(restarted), { hole: 1, deeper: 2, restart: 1 })
  // As a rollover must not cause.
  assert.deepEqual(reasons([snapshot(5, 500), snapshot(6, 500)]), { start: 1, none: 1 })
})
