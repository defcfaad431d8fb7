import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { LevelColumns, packColumns } from '../src/foundation/order-book/level-columns.ts'
import { OrderBook, SIDE_NAMES, type SideName } from '../src/foundation/order-book/order-book.ts'
import { diffOf, type Pair, snapshotOf } from './support/book-rows.ts'
import { columns } from './support/columns.ts'
import { endsOf, HISTORIES, type RandomHistory, TrueBook } from './support/true-book.ts'

const BIDS: Pair[] = [
  ['99', '1'],
  ['98', '2'],
  ['97', '3'],
]
const ASKS: Pair[] = [
  ['101', '1'],
  ['102', '2'],
  ['103', '3'],
]

/** A book from a snapshot of three levels a side, with update id 100. */
function bookOf(limit = 3, bids = BIDS, asks = ASKS): OrderBook {
  const book = new OrderBook()
  book.reset(snapshotOf(100, bids, asks, { limit }))
  return book
}

function after(book: OrderBook, ...diffs: Array<[bids: Pair[], asks: Pair[]]>): OrderBook {
  for (const [bids, asks] of diffs)
    assert.equal(book.apply(diffOf(book.updateId + 1, book.updateId + 5, bids, asks)), 'applied')
  return book
}

const pairsIn = (book: OrderBook, side: SideName) => columns(book.levels(side), 'price', 'quantity')
const outside = (book: OrderBook, side: SideName) => columns(book.outside(side), 'price', 'quantity')

/** A book's state as it comes back from packed columns. */
function storedState(book: OrderBook) {
  const state = book.state()
  const [bids, asks] = SIDE_NAMES.map((side) => {
    const columns = new LevelColumns()
    columns.read(packColumns(state[side]))
    return columns
  })
  return bids === undefined || asks === undefined ? state : { ...state, bids, asks }
}

/** Everything that a book says. */
function contentOf(book: OrderBook) {
  return SIDE_NAMES.map((side) => ({
    horizon: book.horizon(side),
    best: book.best(side),
    levels: book.levels(side),
    outside: book.outside(side),
  }))
}

test('O1 a diff continues the book if it ends later and begins at most one id after it', () => {
  const book = bookOf()
  const apply = (first: number, last: number, epoch = 0) =>
    book.apply(diffOf(first, last, [['98', String(last)]], [], { epoch }))
  assert.equal(apply(90, 100), 'old', 'it ends with the snapshot')
  assert.equal(apply(95, 99), 'old')
  assert.deepEqual(pairsIn(book, 'bids'), BIDS, 'an old diff changes nothing')
  assert.equal(apply(102, 110), 'hole')
  assert.deepEqual([book.updateId, pairsIn(book, 'bids')], [100, BIDS], 'a hole changes nothing')
  assert.equal(apply(95, 105), 'applied', 'it contains the id of the snapshot')
  assert.equal(apply(106, 106), 'applied')
  assert.equal(apply(100, 107), 'applied', 'an overlap')
  assert.equal(apply(101, 107), 'old', 'a repeat')
  assert.deepEqual(pairsIn(book, 'bids')[1], ['98', '107'])
  assert.equal(apply(1, 108, 1), 'hole', 'the ids began again')
  assert.equal(new OrderBook().apply(diffOf(1, 2, [], [])), 'no anchor')
})

test('O2 quantities are absolute, and 0 removes a level', () => {
  const book = after(
    bookOf(),
    [
      [
        ['99', '0'],
        ['98', '5'],
        ['97.5', '7'],
      ],
      [['100.5', '4']],
    ],
    [[['99', '0']], []],
  )
  assert.deepEqual(pairsIn(book, 'bids'), [
    ['98', '5'],
    ['97.5', '7'],
    ['97', '3'],
  ])
  assert.deepEqual(pairsIn(book, 'asks'), [['100.5', '4'], ...ASKS])
})

test('O3 a side is exact up to the last level of a full snapshot, and complete with fewer levels', () => {
  const book = bookOf(3, BIDS, ASKS.slice(0, 2))
  assert.deepEqual([book.horizon('bids'), book.horizon('asks')], ['97', null])
  after(book, [[['96', '9']], [['104', '9']]])
  assert.deepEqual(pairsIn(book, 'bids'), BIDS, 'there may be other levels between 97 and 96')
  assert.deepEqual(pairsIn(book, 'asks'), [...ASKS.slice(0, 2), ['104', '9']])
})

test('O4 a touched level outside the horizon is known, also as empty', () => {
  const book = after(
    bookOf(),
    [
      [
        ['96', '9'],
        ['94', '0'],
      ],
      [],
    ],
    [
      [
        ['97', '0'],
        ['95', '8'],
        ['96', '0'],
      ],
      [],
    ],
  )
  assert.deepEqual(outside(book, 'bids'), [
    ['96', '0'],
    ['95', '8'],
    ['94', '0'],
  ])
  assert.equal(book.horizon('bids'), '97', 'the horizon stays where its level is gone')
  assert.deepEqual(
    [96, 95, 94, 97, 93].map((price) => book.bids.quantityOf(price)),
    [0, 8, 0, 0, null],
  )
})

test('O5 where the best bid has stood no ask is unknown, so the horizon widens; and likewise for bids', () => {
  const gone: Pair[] = ASKS.map(([price]) => [price, '0'])
  // The price rises through the horizon of the asks.
  const book = after(
    bookOf(),
    [
      [],
      [
        ['105', '6'],
        ['106', '0'],
        ['108', '4'],
      ],
    ],
    [[['104', '1']], gone],
  )
  assert.equal(book.horizon('asks'), '104')
  assert.equal(book.best('asks'), 'unknown', 'an ask between 104 and 105 may exist')
  assert.deepEqual(outside(book, 'asks')[0], ['105', '6'])
  after(book, [[['106', '2']], [['105', '0']]])
  assert.equal(book.horizon('asks'), '106')
  assert.deepEqual(outside(book, 'asks'), [['108', '4']], 'empty levels inside are not stored')
  // It falls back.
  after(book, [
    [
      ['106', '0'],
      ['104', '0'],
    ],
    [['105', '3']],
  ])
  assert.deepEqual(pairsIn(book, 'asks'), [['105', '3']])
  assert.deepEqual(pairsIn(book, 'bids'), BIDS)

  const fallen = after(bookOf(), [BIDS.map(([price]) => [price, '0']), [['95', '1']]])
  assert.deepEqual([fallen.horizon('bids'), fallen.best('bids')], ['95', 'unknown'])
})

test('O5 a crossed book does not widen the horizon', () => {
  const book = after(bookOf(), [[['104', '1']], []])
  assert.ok(book.isCrossed)
  assert.equal(book.horizon('asks'), '103')
  assert.ok(!bookOf().isCrossed)
  const known = after(bookOf(), [[], [['105', '6'], ...ASKS.map(([price]): Pair => [price, '0'])]])
  after(known, [[['105', '1']], []])
  assert.ok(known.isCrossed, 'with a known ask outside the horizon')
  assert.equal(known.horizon('asks'), '103')
})

test('O6 the best price is unknown if no level is inside the horizon, and none if the side is complete', () => {
  const gone = (pairs: Pair[]): Pair[] => pairs.map(([price]) => [price, '0'])
  const book = after(bookOf(3, BIDS, ASKS.slice(0, 2)), [gone(BIDS), gone(ASKS)])
  assert.equal(book.best('bids'), 'unknown')
  assert.equal(book.best('asks'), null)
  assert.deepEqual([book.bids.isKnown, book.asks.isKnown], [false, true])
  assert.deepEqual(pairsIn(book, 'bids'), [])
  after(book, [[['96.5', '1']], []])
  assert.equal(book.best('bids'), 'unknown', 'a level at 96.6 may exist')
  after(book, [[['97', '1']], []])
  assert.deepEqual(book.best('bids'), { price: '97', quantity: '1' })
})

test('O2 a book grows to any number of levels', () => {
  const level = (i: number): Pair => [String(10_000 - i), '1']
  const bids = Array.from({ length: 3000 }, (_, i) => level(2 * i))
  const book = bookOf(5000, bids, [])
  after(book, [Array.from({ length: 3000 }, (_, i) => level(2 * i + 1)), []])
  const expected = Array.from({ length: 6000 }, (_, i) => level(i))
  assert.deepEqual(pairsIn(book, 'bids'), expected)
  after(book, [expected.filter((_, i) => i % 3 === 0).map(([price]) => [price, '0']), []])
  assert.deepEqual(
    pairsIn(book, 'bids'),
    expected.filter((_, i) => i % 3 !== 0),
  )
})

test('O8 scales grow with the rows, exactly up to 2^53 - 1 units', () => {
  const book = after(bookOf(), [[['98.12345678', '0.00000001']], []])
  assert.deepEqual([book.priceScale, book.quantityScale], [8, 8])
  assert.deepEqual(pairsIn(book, 'bids').slice(0, 2), [BIDS[0], ['98.12345678', '0.00000001']])
  assert.deepEqual(pairsIn(book, 'asks'), ASKS)
  assert.equal(book.horizon('asks'), '103')
  const before = contentOf(book)
  const largest = { bids: [['98', '90071992.54740991']] as Pair[], asks: [] }
  const larger = (quantity: string) => diffOf(106, 106, [['98', quantity]], [])
  assert.throws(
    () => book.apply(larger('90071993')),
    /cannot hold 90071993 together with values of 8 decimals/,
  )
  assert.deepEqual(contentOf(book), before, 'it is unchanged')
  after(book, [largest.bids, largest.asks])
  assert.deepEqual(pairsIn(book, 'bids')[2], ['98', '90071992.54740991'])

  const coarse = after(bookOf(), [[['98', '9007199254740991']], []])
  const finer = diffOf(coarse.updateId + 1, coarse.updateId + 1, [['97', '0.1']], [])
  assert.throws(() => coarse.apply(finer), /cannot hold 9007199254740991 together with values of 1 decimals/)
  assert.equal(coarse.quantityScale, 0)
  const anchor = snapshotOf(1, [['99', '9007199254740991']], [['101', '0.1']])
  assert.throws(() => new OrderBook().reset(anchor), /cannot hold/)
})

/** The book after each applied diff, from a snapshot in a random history that two connections recorded. */
function* rebuilt(one: RandomHistory) {
  const truth = new TrueBook(one.orders)
  const { lastUpdateId } = truth
  const diffs = [one.cuts, one.otherCuts]
    .flatMap((lengths) => truth.diffs(endsOf(lengths, lastUpdateId)))
    .sort((a, b) => a.lastUpdateId - b.lastUpdateId || a.firstUpdateId - b.firstUpdateId)
  const anchor = truth.snapshot(Math.floor(one.anchorAt * lastUpdateId), one.limit)
  const book = new OrderBook()
  book.reset(anchor)
  yield { truth, anchor, book, diffs: [] }
  const applied: typeof diffs = []
  for (const diff of diffs) {
    if (book.apply(diff) !== 'applied') continue
    applied.push(diff)
    yield { truth, anchor, book, diffs: applied }
  }
}

test('O1–O6 inside its horizon a book equals the exchange’s after every diff, and known levels outside do', () => {
  fc.assert(
    fc.property(HISTORIES, (one) => {
      for (const { truth, book } of rebuilt(one)) {
        assert.ok(!book.isCrossed)
        for (const side of SIDE_NAMES) {
          const real = truth.levels(side, book.updateId)
          const horizon = book[side].horizon
          const inside = [...real].filter(([price]) =>
            horizon === null ? true : side === 'bids' ? price >= horizon : price <= horizon,
          )
          assert.deepEqual(
            pairsIn(book, side),
            inside.map((pair) => pair.map(String)),
            `${side} after ${book.updateId}`,
          )
          for (const { price, quantity } of book.outside(side))
            assert.equal(Number(quantity), real.get(Number(price)) ?? 0, `${side} ${price}`)
          const best = book.best(side)
          const [first] = real
          if (best === null) assert.equal(first, undefined)
          else if (best !== 'unknown') assert.deepEqual([best.price, best.quantity], first?.map(String))
        }
      }
    }),
    { numRuns: 300 },
  )
})

test('O3–O5 a horizon reaches the last level of the snapshot, and where the other side was; touched levels are known', () => {
  fc.assert(
    fc.property(HISTORIES, (one) => {
      const widest: Record<SideName, number | null> = { bids: null, asks: null }
      for (const { truth, anchor, book, diffs } of rebuilt(one)) {
        for (const side of SIDE_NAMES) {
          const other = side === 'bids' ? 'asks' : 'bids'
          const { horizon } = book[side]
          const given = side === 'bids' ? anchor.bidHorizon : anchor.askHorizon
          if (given === null) {
            assert.equal(horizon, null)
            continue
          }
          const farther = side === 'bids' ? Math.min : Math.max
          const best = book.best(other)
          const seen = best === null || best === 'unknown' ? [] : [Number(best.price)]
          widest[side] = farther(Number(given), ...seen, widest[side] ?? Number(given))
          assert.equal(horizon, widest[side])
          for (const diff of diffs) {
            for (const price of diff[side].prices.subarray(0, diff[side].count))
              assert.notEqual(book[side].quantityOf(price), null, `${side} ${price}`)
          }
        }
        assert.ok(truth.lastUpdateId >= book.updateId)
      }
    }),
    { numRuns: 300 },
  )
})

test('O7 a book’s state makes the same book again, which continues in the same way', () => {
  fc.assert(
    fc.property(HISTORIES, fc.nat(30), (one, at) => {
      let restored: OrderBook | null = null
      let count = 0
      for (const { book, diffs } of rebuilt(one)) {
        const diff = diffs.at(-1)
        if (restored !== null && diff !== undefined) {
          assert.equal(restored.apply(diff), 'applied')
          assert.deepEqual(contentOf(restored), contentOf(book))
        }
        if (count++ !== at) continue
        restored = new OrderBook()
        restored.reset(storedState(book))
        assert.deepEqual(contentOf(restored), contentOf(book))
      }
    }),
    { numRuns: 200 },
  )
})
