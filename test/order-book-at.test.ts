import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type BookAt, type BookStore, bookAt, describeRefusal } from '../src/foundation/order-book/book-at.ts'
import type { Anchor, BookDiff } from '../src/foundation/order-book/book-rows.ts'
import { OrderBook, SIDE_NAMES } from '../src/foundation/order-book/order-book.ts'
import { diffOf, keyframeOf, type Pair, snapshotOf } from './support/book-rows.ts'
import { bookStore } from './support/book-store.ts'
import { columns } from './support/columns.ts'
import { NO_RECORDED_DEPTH, recordedDepth } from './support/recorded-depth.ts'
import { endsOf, HISTORIES, TrueBook } from './support/true-book.ts'

const BIDS: Pair[] = [
  ['99', '1'],
  ['98', '2'],
]
const ASKS: Pair[] = [
  ['101', '1'],
  ['102', '2'],
]
const SNAPSHOT = snapshotOf(105, BIDS, ASKS, { limit: 2 })
const DIFFS = [
  diffOf(91, 100, [], []),
  diffOf(101, 110, [['98.5', '3']], []),
  diffOf(111, 120, [['99', '0']], [['104', '7']]),
]
/** After a hole of the ids 121 to 129. */
const LATER = [diffOf(130, 140, [['98.25', '9']], []), diffOf(141, 150, [], [])]
const NEXT_SNAPSHOT = snapshotOf(145, BIDS, ASKS, { limit: 2 })

const keyOf = ({ epoch, lastUpdateId, receivedUs }: Anchor) => ({ epoch, lastUpdateId, receivedUs })

/** Event times are 1,000 µs per update id, receipts 500 µs later. */
const atTime = (us: number) => ({ kind: 'event time', us }) as const
const atId = (updateId: number, epoch: number | null = null) =>
  ({ kind: 'update id', epoch, updateId }) as const

async function bookIn(
  store: BookStore,
  instant: Parameters<typeof bookAt>[1],
  limit?: number,
): Promise<BookAt> {
  const answer = await bookAt(store, instant, limit)
  return answer.kind === 'book' ? answer : assert.fail(describeRefusal(answer))
}

async function refusalIn(
  diffs: readonly BookDiff[],
  anchors: readonly Anchor[],
  instant: Parameters<typeof bookAt>[1],
) {
  const answer = await bookAt(bookStore(diffs, anchors), instant)
  return answer.kind === 'refused' ? answer : assert.fail(`a book at ${answer.at.lastUpdateId}`)
}

test('O12 a book says what an output needs: its last diff, anchor, age, horizon, and exact levels', async () => {
  const book = await bookIn(bookStore(DIFFS, [SNAPSHOT]), atTime(120_000))
  const { bids: _, asks: __, ...last } = DIFFS[2] ?? assert.fail()
  assert.deepEqual(book, {
    kind: 'book',
    at: last,
    isNewest: true,
    isCrossed: false,
    anchor: { epoch: 0, lastUpdateId: 105, receivedUs: 105_700, derivedFrom: null },
    ageUs: 120_500 - 105_700,
    bids: {
      levels: [
        { price: '98.5', quantity: '3' },
        { price: '98', quantity: '2' },
      ],
      // The middle is 99.75.
      horizon: { price: '98', basisPoints: 175.44 },
      outside: [],
    },
    asks: {
      levels: [
        { price: '101', quantity: '1' },
        { price: '102', quantity: '2' },
      ],
      horizon: { price: '102', basisPoints: 225.56 },
      outside: [{ price: '104', quantity: '7' }],
    },
  })
  const short = await bookIn(bookStore(DIFFS, [SNAPSHOT]), atTime(120_000), 1)
  assert.deepEqual(columns(short.bids.levels, 'price'), [['98.5']])
  const complete = await bookIn(bookStore(DIFFS, [snapshotOf(105, BIDS, [])]), atId(110))
  assert.equal(complete.bids.horizon, null)
  assert.deepEqual(complete.asks.levels, [])
})

test('O12 a crossed book says so', async () => {
  const altered = diffOf(121, 130, [], [['98', '1']])
  const book = await bookIn(bookStore([...DIFFS, altered], [SNAPSHOT]), atId(130))
  assert.equal(book.isCrossed, true)
})

test('O12 an instant is an event time, a receipt or an update id: the book contains the diffs up to it', async () => {
  const store = bookStore(DIFFS, [SNAPSHOT])
  const lastAt = async (instant: Parameters<typeof bookAt>[1]) => {
    const { at, isNewest } = await bookIn(store, instant)
    return [at.lastUpdateId, isNewest]
  }
  assert.deepEqual(await lastAt(atTime(119_999)), [110, false])
  assert.deepEqual(await lastAt(atTime(120_000)), [120, true])
  assert.deepEqual(await lastAt(atTime(999_000)), [120, true])
  assert.deepEqual(await lastAt({ kind: 'receipt', us: 120_499 }), [110, false])
  assert.deepEqual(await lastAt({ kind: 'receipt', us: 120_500 }), [120, true])
  assert.deepEqual(await lastAt(atId(119)), [110, false])
  assert.deepEqual(await lastAt(atId(120, 0)), [120, true])
})

test('O13 inside a hole and until the next snapshot a book is refused, with the window', async () => {
  const diffs = [...DIFFS, ...LATER]
  const anchors = [SNAPSHOT, NEXT_SNAPSHOT]
  const hole = {
    kind: 'refused',
    reason: 'hole',
    fromUs: 120_000,
    toUs: 140_000,
    missing: { from: 121, to: 129 },
    next: keyOf(NEXT_SNAPSHOT),
  }
  for (const instant of [
    atTime(120_001),
    atTime(139_999),
    atId(125),
    { kind: 'receipt', us: 130_000 } as const,
  ])
    assert.deepEqual(await refusalIn(diffs, anchors, instant), hole)
  assert.deepEqual(
    await refusalIn(diffs, anchors, atTime(140_000)),
    hole,
    'after the hole, before a snapshot',
  )
  const store = bookStore(diffs, anchors)
  assert.equal((await bookIn(store, atTime(120_000))).at.lastUpdateId, 120, 'before it')
  assert.equal((await bookIn(store, atTime(150_000))).anchor.lastUpdateId, 145, 'after it')
  assert.match(
    describeRefusal(await refusalIn(diffs, [SNAPSHOT], atTime(150_000))),
    /update ids 121 to 129 are missing between 1970-01-01T00:00:00\.120000Z and .*\. No later snapshot/,
  )
})

test('O13 a snapshot inside a hole does not end it', async () => {
  const inside = snapshotOf(125, BIDS, ASKS, { limit: 2 })
  const refusal = await refusalIn([...DIFFS, ...LATER], [SNAPSHOT, inside], atTime(150_000))
  assert.deepEqual(refusal.reason === 'hole' && [refusal.fromUs, refusal.missing, refusal.next], [
    120_000,
    { from: 121, to: 129 },
    null,
  ])
  // With the id before the first diff it does.
  const usable = snapshotOf(129, BIDS, ASKS, { limit: 2 })
  const book = await bookIn(bookStore([...DIFFS, ...LATER], [SNAPSHOT, usable]), atTime(150_000))
  assert.equal(book.anchor.lastUpdateId, 129)
  const before = await refusalIn([...DIFFS, ...LATER], [SNAPSHOT, usable], atTime(130_000))
  assert.deepEqual(before.reason === 'hole' && before.next, keyOf(usable))
})

test('O13 where update ids begin again a book is refused until a snapshot of the new ids', async () => {
  const again = [diffOf(5, 9, [], [], { epoch: 1, eventTimeUs: 200_000 })]
  const anchor = snapshotOf(7, BIDS, ASKS, { epoch: 1, limit: 2 })
  const refusal = await refusalIn([...DIFFS, ...again], [SNAPSHOT, anchor], atTime(150_000))
  assert.deepEqual(
    refusal.reason === 'hole' && [refusal.fromUs, refusal.toUs, refusal.missing, refusal.next],
    [120_000, 200_000, null, keyOf(anchor)],
  )
  assert.match(describeRefusal(refusal), /^The update ids began again between .* known from update id 7/)
  const store = bookStore([...DIFFS, ...again], [SNAPSHOT, anchor])
  assert.deepEqual((await bookIn(store, atTime(200_000))).at.epoch, 1)
  assert.deepEqual((await bookIn(store, atId(120, 0))).at.epoch, 0)
  assert.equal((await refusalIn([...DIFFS, ...again], [SNAPSHOT], atTime(200_000))).reason, 'no anchor')
  const early = snapshotOf(2, BIDS, ASKS, { epoch: 1 })
  const unusable = await refusalIn([...DIFFS, ...again], [SNAPSHOT, early], atTime(200_000))
  assert.deepEqual(unusable.reason === 'no anchor' && unusable.tooOld, keyOf(early))
})

test('O13 a hole that a longer diff of another connection covers is none', async () => {
  const long = diffOf(95, 125, [['98.5', '5']], [])
  const diffs = [DIFFS[0], diffOf(115, 120, [['98.5', '4']], []), long].flatMap((diff) => diff ?? [])
  const book = await bookIn(bookStore(diffs, [snapshotOf(100, BIDS, ASKS, { limit: 2 })]), atTime(125_000))
  assert.deepEqual(book.bids.levels[1], { price: '98.5', quantity: '5' })
})

test('O14 before the first usable snapshot a book is refused, with the reason', async () => {
  const early = await refusalIn(DIFFS, [SNAPSHOT], atTime(100_000))
  assert.deepEqual(early, { kind: 'refused', reason: 'no anchor', tooOld: null, next: keyOf(SNAPSHOT) })
  assert.match(describeRefusal(early), /^No snapshot .*\. The book is known from update id 105 \(received/)
  const old = snapshotOf(50, BIDS, ASKS)
  const unusable = await refusalIn(DIFFS, [old, SNAPSHOT], atTime(100_000))
  assert.deepEqual(unusable, {
    kind: 'refused',
    reason: 'no anchor',
    tooOld: keyOf(old),
    next: keyOf(SNAPSHOT),
  })
  assert.match(describeRefusal(unusable), /update id 50 is older than the first stored change/)
  const none = await refusalIn(DIFFS, [SNAPSHOT], atTime(99_999))
  const { bids: _, asks: __, ...first } = DIFFS[0] ?? assert.fail()
  assert.deepEqual(none, { kind: 'refused', reason: 'nothing recorded', first })
  assert.match(describeRefusal(none), /^The first stored change .* begins with update id 91, at /)
  const unknown = await refusalIn([], [], atTime(100_000))
  assert.deepEqual(unknown, { kind: 'refused', reason: 'nothing recorded', first: null })
  assert.match(describeRefusal(unknown), /^No change of the order book is stored$/)
  const future = await refusalIn(DIFFS, [SNAPSHOT], atId(121))
  assert.match(describeRefusal(future), /newest stored change ends with update id 120/)
})

test('O15 a book whose best price is outside the horizon is refused, unless an older anchor reaches farther', async () => {
  const fallen = diffOf(
    121,
    130,
    [
      ['98.5', '0'],
      ['98', '0'],
      ['97', '1'],
    ],
    [],
  )
  const diffs = [...DIFFS, fallen]
  const refusal = await refusalIn(diffs, [SNAPSHOT], atTime(130_000))
  assert.deepEqual(
    refusal.reason === 'outside the horizon' && [refusal.side, refusal.horizon, refusal.anchor.lastUpdateId],
    ['bids', '98', 105],
  )
  assert.match(
    describeRefusal(refusal),
    /^The best bid is outside the horizon 98 of the snapshot with update id 105/,
  )
  const apart = await refusalIn(diffs.slice(1), [snapshotOf(50, BIDS, ASKS), SNAPSHOT], atTime(130_000))
  assert.equal(apart.reason, 'outside the horizon', 'ids after the older one are missing')
  const wide = snapshotOf(100, [...BIDS, ['97', '4'], ['95', '1']], ASKS, { limit: 4 })
  const book = await bookIn(bookStore(diffs, [wide, SNAPSHOT]), atTime(130_000))
  assert.equal(book.anchor.lastUpdateId, 100)
  // Keyframes of the newer snapshot are as narrow.
  const narrow = new OrderBook()
  narrow.reset(SNAPSHOT)
  const keyframes = DIFFS.slice(1).map((diff) => {
    narrow.apply(diff)
    return keyframeOf(narrow.state(), SNAPSHOT, diff.receivedUs)
  })
  const again = await bookIn(bookStore(diffs, [wide, SNAPSHOT, ...keyframes]), atTime(130_000))
  assert.equal(again.anchor.lastUpdateId, 100)
  assert.deepEqual(columns(book.bids.levels, 'price', 'quantity'), [
    ['97', '1'],
    ['95', '1'],
  ])
  // Answers lag: keyframes of the snapshot before may be stored when a snapshot comes.
  const lagging = snapshotOf(
    112,
    [
      ['98.5', '3'],
      ['98', '2'],
      ['97', '4'],
      ['95', '1'],
    ],
    ASKS,
    { limit: 4 },
  )
  const past = await bookIn(bookStore(diffs, [SNAPSHOT, ...keyframes, lagging]), atTime(130_000))
  assert.equal(past.anchor.lastUpdateId, 112)
  // Two snapshots of a symbol at rest have the same id.
  const deeper = await bookIn(bookStore(diffs, [SNAPSHOT, { ...wide, lastUpdateId: 105 }]), atTime(130_000))
  assert.equal(deeper.bids.horizon?.price, '95')
})

test('O12–O15 in recordings with lost diffs a book is right inside its horizon, or refused with a true reason', () =>
  fc.assert(
    fc.asyncProperty(
      HISTORIES,
      fc.uniqueArray(fc.nat(40), { maxLength: 3 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 }),
      async (one, lost, others) => {
        const truth = new TrueBook(one.orders)
        const { lastUpdateId } = truth
        const diffs = [one.cuts, one.otherCuts.slice(0, 4)]
          .flatMap((lengths) => truth.diffs(endsOf(lengths, lastUpdateId)))
          .filter((_, index) => !lost.includes(index))
        const anchors = [one.anchorAt, ...others].map((part) =>
          truth.snapshot(Math.floor(part * lastUpdateId), one.limit),
        )
        // A diff that ends later may contain the ids, but does not tell the book before its end.
        const isStored = (id: number, upTo: number) =>
          diffs.some(
            ({ firstUpdateId: first, lastUpdateId: last }) => first <= id && id <= last && last <= upTo,
          )
        const store = bookStore(diffs, anchors)
        for (let updateId = 0; updateId <= lastUpdateId; updateId += 3) {
          const answer = await bookAt(store, atId(updateId))
          if (answer.kind === 'book') {
            assert.ok(answer.at.lastUpdateId <= updateId)
            assertTrue(answer, truth)
            continue
          }
          if (answer.reason === 'hole' && answer.missing !== null)
            for (let id = answer.missing.from; id <= answer.missing.to; id++)
              assert.ok(!isStored(id, answer.missing.to), `${id}`)
          // The last diff ends less than the longest range before the instant.
          if (answer.reason === 'no anchor' && answer.tooOld === null)
            assert.ok(anchors.every((anchor) => anchor.lastUpdateId > updateId - 12))
          if (answer.reason === 'outside the horizon') {
            const [best] = truth.levels(answer.side, answer.at.lastUpdateId).keys()
            const horizon = Number(answer.horizon)
            assert.ok(best === undefined || (answer.side === 'bids' ? best < horizon : best > horizon))
          }
        }
      },
    ),
    { numRuns: 100 },
  ))

/** Compares the book with the exchange's. */
function assertTrue(book: BookAt, truth: TrueBook): void {
  for (const side of SIDE_NAMES) {
    const { levels, horizon, outside } = book[side]
    const real = truth.levels(side, book.at.lastUpdateId)
    const limit = horizon === null ? null : Number(horizon.price)
    const inside = [...real].filter(
      ([price]) => limit === null || (side === 'bids' ? price >= limit : price <= limit),
    )
    assert.deepEqual(
      columns(levels, 'price', 'quantity'),
      inside.map((pair) => pair.map(String)),
    )
    for (const { price, quantity } of outside) assert.equal(Number(quantity), real.get(Number(price)) ?? 0)
  }
}

test('O7 a keyframe gives the same book as its snapshot, and names it', () =>
  fc.assert(
    fc.asyncProperty(HISTORIES, fc.nat(20), async (one, at) => {
      const truth = new TrueBook(one.orders)
      const diffs = truth.diffs(endsOf(one.cuts, truth.lastUpdateId))
      const anchor = truth.snapshot(Math.floor(one.anchorAt * truth.lastUpdateId), one.limit)
      const book = new OrderBook()
      book.reset(anchor)
      const keyframes = diffs.flatMap((diff) => {
        if (book.apply(diff) !== 'applied') return []
        return keyframeOf(book.state(), anchor, diff.receivedUs)
      })
      const keyframe = keyframes[at]
      const last = diffs.at(-1)
      if (keyframe === undefined || last === undefined) return
      const [fromSnapshot, fromKeyframe] = await Promise.all(
        [[anchor], [anchor, keyframe]].map((anchors) =>
          bookAt(bookStore(diffs, anchors), atId(last.lastUpdateId)),
        ),
      )
      if (fromSnapshot?.kind !== 'book' || fromKeyframe?.kind !== 'book') {
        assert.deepEqual(fromKeyframe, fromSnapshot)
        return
      }
      const { anchor: used, ...same } = fromKeyframe
      const { anchor: snapshot, ...expected } = fromSnapshot
      assert.deepEqual(same, expected)
      assert.equal(used.lastUpdateId, keyframe.lastUpdateId)
      assert.equal(used.derivedFrom?.lastUpdateId, snapshot.lastUpdateId)
    }),
    { numRuns: 100 },
  ))

test('O12 the recorded frames: a book at any diff', { skip: NO_RECORDED_DEPTH }, async () => {
  const { diffs, quotes, anchor } = recordedDepth()
  const store = bookStore(diffs, [anchor])
  for (const index of [2, 3, 500, 1800, 2594, 3450]) {
    const diff = diffs[index] ?? assert.fail()
    const quote = quotes.findLast(({ updateId }) => updateId <= diff.lastUpdateId)
    const book = await bookIn(store, atTime(diff.eventTimeUs))
    assert.equal(book.at.lastUpdateId, diff.lastUpdateId)
    for (const side of SIDE_NAMES) {
      const [best] = book[side].levels
      const expected = side === 'bids' ? quote?.bidPrice : quote?.askPrice
      assert.equal(Number(best?.price), Number(expected))
      assert.ok((book[side].horizon?.basisPoints ?? 0) > 0)
    }
  }
  const refused = await bookAt(store, atTime(diffs[2595]?.eventTimeUs ?? 0))
  assert.equal(refused.kind === 'refused' && refused.reason, 'outside the horizon')
})
