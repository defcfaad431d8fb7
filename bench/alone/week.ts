import type { BookDiff, BookState } from '../../src/foundation/order-book/book-rows.ts'
import { snapshotHorizon } from '../../src/foundation/order-book/book-rows.ts'
import { LevelColumns } from '../../src/foundation/order-book/level-columns.ts'
import { OrderBook, type SideName } from '../../src/foundation/order-book/order-book.ts'
import { unitsAt } from '../../src/foundation/order-book/scaled-units.ts'
import { type Anchor, anchorOf, needOf } from '../../src/ingestion/anchors/anchor-need.ts'
import { type BookSnapshot, MarketBooks } from '../../src/sandbox/simulator/market/book-history.ts'
import { depthCursors } from '../../src/sandbox/simulator/market/depth-cursor.ts'
import { openMarket } from '../../src/sandbox/simulator/market/market.ts'

const SYMBOL = 'BTCUSDT'
const MARKET = { symbols: [SYMBOL], seed: 1, messagesPerSecond: 20, skew: 1 }
const START_MS = Date.UTC(2026, 0, 5)
const HOUR_MS = 3_600_000
const LOOK_EVERY_MS = 60_000
/** Default of `DEPTH_SNAPSHOT_HOURS`. */
const MAX_AGE_MS = 12 * HOUR_MS
const LIMIT = 5000
const SHOWN_HOURS = [1, 6, 25, 72, 168]
/** Digits of the exchange's decimals. */
const SCALE = 8
const SIDES = ['bids', 'asks'] as const satisfies readonly SideName[]

type Pairs = BookSnapshot['bids']

interface Frame {
  readonly E: number
  readonly U: number
  readonly u: number
  readonly b: Pairs
  readonly a: Pairs
}

/** A book by the exchange's documented recipe: one snapshot, then every diff. It forgets nothing. */
class RecipeBook {
  readonly bids: Map<string, string>
  readonly asks: Map<string, string>

  constructor(snapshot: BookSnapshot) {
    this.bids = new Map(snapshot.bids)
    this.asks = new Map(snapshot.asks)
  }

  apply({ b, a }: Frame): void {
    for (const [levels, changes] of [[this.bids, b] as const, [this.asks, a] as const])
      for (const [price, quantity] of changes)
        if (Number(quantity) === 0) levels.delete(price)
        else levels.set(price, quantity)
  }

  /** Share of the exchange's levels that it has with their quantity. */
  rightOf(name: SideName, truth: Pairs): number {
    const right = truth.filter(([price, quantity]) => this[name].get(price) === quantity).length
    return Math.round((1000 * right) / truth.length) / 10
  }
}

/**
 * Keeps the book of one symbol for virtual hours: by the exchange's recipe from one snapshot, and as Tapeline does,
 * with the snapshots that ingestion would request. Compares both with the true book, Tapeline's every hour.
 *
 * @returns for some hours the percentage of the true best 5,000 levels that the recipe's book has right, and how far
 *   Tapeline's book is exact; and the number of its wrong levels, which must be 0
 */
export function keepBooks(hours: number): Record<string, number> {
  const endMs = START_MS + hours * HOUR_MS
  const market = openMarket(MARKET)
  const own = market.get(SYMBOL)
  // The stream of a second costs less than that of 100 ms, and leads to the same books.
  const cursor = own && depthCursors(own, 1, START_MS).find(({ stream }) => stream.endsWith('@depth'))
  if (cursor === undefined) throw new Error(`The market has no ${SYMBOL}`)
  const books = new MarketBooks(market, () => endMs)
  const first = books.book(SYMBOL, { timeMs: cursor.dueMs }, LIMIT)
  const recipe = new RecipeBook(first)
  const book = new OrderBook()
  book.reset(stateOf(first))
  let anchor: Anchor = anchorAt(first, cursor.dueMs)
  const report: Record<string, number> = {}
  let [snapshots, compared, wrong, diffs] = [1, 0, 0, 0]
  let lookMs = START_MS + LOOK_EVERY_MS
  let compareMs = START_MS + HOUR_MS
  while (cursor.dueMs <= endMs) {
    const atMs = cursor.dueMs
    for (const text of cursor.next()) {
      const frame: Frame = JSON.parse(text).data
      if (frame.u <= first.lastUpdateId) continue
      recipe.apply(frame)
      book.apply(diffOf(frame))
      diffs++
    }
    if (atMs >= lookMs) {
      lookMs += LOOK_EVERY_MS
      const top = books.book(SYMBOL, { timeMs: atMs }, LIMIT)
      const prices = { bid: Number(top.bids[0]?.[0]), ask: Number(top.asks[0]?.[0]) }
      const chain = { epoch: 0, joinedFrom: 0, lastId: top.lastUpdateId }
      if (needOf(anchor, chain, prices, { levels: LIMIT, maxAgeMs: MAX_AGE_MS, nowMs: atMs }) !== null) {
        anchor = anchorAt(top, atMs)
        book.reset(stateOf(top))
        snapshots++
      }
    }
    if (atMs < compareMs || book.updateId < 0) continue
    const hour = Math.round((compareMs - START_MS) / HOUR_MS)
    compareMs += HOUR_MS
    const truth = books.book(SYMBOL, { updateId: book.updateId }, Number.POSITIVE_INFINITY)
    for (const name of SIDES) {
      const found = wrongInside(book, name, truth[name])
      compared += found.compared
      wrong += found.wrong
      if (!SHOWN_HOURS.includes(hour)) continue
      report[`recipe, ${name} right after ${hour} h, %`] = recipe.rightOf(name, truth[name].slice(0, LIMIT))
      report[`exact ${name} after ${hour} h, levels`] = found.compared
      report[`exact ${name} after ${hour} h, basis points`] = found.basisPoints
    }
    console.error(`after ${hour} h: ${wrong} of ${compared} levels inside the horizon are wrong`)
  }
  return {
    ...report,
    diffs,
    snapshots,
    'levels compared inside the horizon': compared,
    'of them wrong': wrong,
  }
}

function wrongInside(book: OrderBook, name: SideName, truth: Pairs) {
  const horizon = book.horizon(name)
  const isInside = ([price]: Pairs[number]) =>
    horizon === null ||
    (name === 'bids' ? Number(price) >= Number(horizon) : Number(price) <= Number(horizon))
  const inside = new Map(truth.filter(isInside).map(([price, quantity]) => [Number(price), Number(quantity)]))
  const shown = new Map(book.levels(name).map(({ price, quantity }) => [Number(price), Number(quantity)]))
  const best = Number(truth[0]?.[0])
  const differing = [...inside].filter(([price, quantity]) => shown.get(price) !== quantity).length
  const invented = [...shown.keys()].filter((price) => !inside.has(price)).length
  return {
    compared: inside.size,
    wrong: differing + invented,
    basisPoints: horizon === null ? 10_000 : Math.round(10_000 * Math.abs(Number(horizon) / best - 1)),
  }
}

function anchorAt({ lastUpdateId, bids, asks }: BookSnapshot, atMs: number): Anchor {
  const pairs = (side: Pairs): Array<[string, string]> => side.map(([price, quantity]) => [price, quantity])
  const chain = { epoch: 0, joinedFrom: 0, lastId: lastUpdateId }
  return anchorOf({ lastUpdateId, bids: pairs(bids), asks: pairs(asks) }, LIMIT, chain, atMs)
}

function stateOf(snapshot: BookSnapshot): BookState {
  const [bids, asks] = [columnsOf(snapshot.bids), columnsOf(snapshot.asks)]
  return {
    ...{ epoch: 0, lastUpdateId: snapshot.lastUpdateId, bids, asks },
    bidHorizon: snapshotHorizon(bids, LIMIT),
    askHorizon: snapshotHorizon(asks, LIMIT),
  }
}

function diffOf({ E, U, u, b, a }: Frame): BookDiff {
  const times = { eventTimeUs: E * 1000, receivedUs: E * 1000 }
  return { epoch: 0, firstUpdateId: U, lastUpdateId: u, ...times, bids: columnsOf(b), asks: columnsOf(a) }
}

function columnsOf(pairs: Pairs): LevelColumns {
  const columns = new LevelColumns()
  columns.begin(SCALE, SCALE)
  for (const [price, quantity] of pairs)
    columns.add(unitsAt(price, SCALE) ?? Number.NaN, unitsAt(quantity, SCALE) ?? Number.NaN)
  return columns
}
