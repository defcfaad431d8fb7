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
/** Levels per side of snapshots: of the documented recipe's older and newer form. */
const LIMITS = [1000, 5000]
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
  readonly #lastUpdateId: number

  constructor(snapshot: BookSnapshot) {
    this.#lastUpdateId = snapshot.lastUpdateId
    this.bids = new Map(snapshot.bids)
    this.asks = new Map(snapshot.asks)
  }

  apply({ u, b, a }: Frame): void {
    if (u <= this.#lastUpdateId) return
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

/** Both books of one symbol, from snapshots of the same number of levels. */
class KeptBooks {
  readonly #limit: number
  readonly #recipe: RecipeBook
  readonly #book = new OrderBook()
  #anchor: Anchor
  readonly report: Record<string, number> = {}
  snapshots = 1
  compared = 0
  wrong = 0

  constructor(first: BookSnapshot, limit: number, atMs: number) {
    this.#limit = limit
    this.#recipe = new RecipeBook(first)
    this.#book.reset(stateOf(first, limit))
    this.#anchor = anchorAt(first, limit, atMs)
  }

  get updateId(): number {
    return this.#book.updateId
  }

  apply(frame: Frame): void {
    this.#recipe.apply(frame)
    this.#book.apply(diffOf(frame))
  }

  /** Takes another snapshot if ingestion would request one. */
  renew(now: BookSnapshot, atMs: number): void {
    const prices = { bid: Number(now.bids[0]?.[0]), ask: Number(now.asks[0]?.[0]) }
    const chain = { epoch: 0, joinedFrom: 0, lastId: now.lastUpdateId }
    const limits = { levels: this.#limit, maxAgeMs: MAX_AGE_MS, nowMs: atMs }
    if (needOf(this.#anchor, chain, prices, limits) === null) return
    this.#anchor = anchorAt(now, this.#limit, atMs)
    this.#book.reset(stateOf(now, this.#limit))
    this.snapshots++
  }

  compare(truth: BookSnapshot, hour: number): void {
    for (const name of SIDES) {
      const found = wrongInside(this.#book, name, truth[name])
      this.compared += found.compared
      this.wrong += found.wrong
      if (!SHOWN_HOURS.includes(hour)) continue
      const what = `${name} of ${this.#limit} after ${hour} h`
      this.report[`${what}: recipe right, %`] = this.#recipe.rightOf(name, truth[name].slice(0, this.#limit))
      this.report[`${what}: exact levels`] = found.compared
      this.report[`${what}: exact basis points`] = found.basisPoints
    }
  }
}

/**
 * Keeps the book of one symbol for virtual hours: by the exchange's recipe from one snapshot, and as Tapeline does,
 * with the snapshots that ingestion would request. Compares both with the true book, Tapeline's every hour.
 *
 * @returns for snapshots of 1,000 and 5,000 levels, after some hours: the percentage of as many true best levels that
 *   the recipe's book has right, and how far Tapeline's book is exact; and its wrong levels, which must be 0
 */
export function keepBooks(hours: number): Record<string, number> {
  const endMs = START_MS + hours * HOUR_MS
  const market = openMarket(MARKET)
  const own = market.get(SYMBOL)
  // The stream of a second costs less than that of 100 ms, and leads to the same books.
  const cursor = own && depthCursors(own, 1, START_MS).find(({ stream }) => stream.endsWith('@depth'))
  if (cursor === undefined) throw new Error(`The market has no ${SYMBOL}`)
  const books = new MarketBooks(market, () => endMs)
  const at = (timeMs: number, limit: number) => books.book(SYMBOL, { timeMs }, limit)
  const kept = LIMITS.map((limit) => new KeptBooks(at(START_MS, limit), limit, START_MS))
  let diffs = 0
  let lookMs = START_MS + LOOK_EVERY_MS
  let compareMs = START_MS + HOUR_MS
  while (cursor.dueMs <= endMs) {
    const atMs = cursor.dueMs
    for (const text of cursor.next()) {
      const frame: Frame = JSON.parse(text).data
      for (const one of kept) one.apply(frame)
      diffs++
    }
    if (atMs >= lookMs) {
      lookMs += LOOK_EVERY_MS
      for (const [index, one] of kept.entries()) one.renew(at(atMs - 1, LIMITS[index] ?? 0), atMs)
    }
    if (atMs < compareMs) continue
    const hour = Math.round((compareMs - START_MS) / HOUR_MS)
    compareMs += HOUR_MS
    for (const one of kept) {
      one.compare(books.book(SYMBOL, { updateId: one.updateId }, Number.POSITIVE_INFINITY), hour)
      console.error(`after ${hour} h: ${one.wrong} of ${one.compared} levels inside the horizon are wrong`)
    }
  }
  const report: Record<string, number> = { diffs }
  for (const [index, one] of kept.entries())
    Object.assign(report, one.report, {
      [`snapshots of ${LIMITS[index]}`]: one.snapshots,
      [`levels compared inside the horizon, of ${LIMITS[index]}`]: one.compared,
      [`of them wrong, of ${LIMITS[index]}`]: one.wrong,
    })
  return report
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

function anchorAt({ lastUpdateId, bids, asks }: BookSnapshot, limit: number, atMs: number): Anchor {
  const pairs = (side: Pairs): Array<[string, string]> => side.map(([price, quantity]) => [price, quantity])
  const chain = { epoch: 0, joinedFrom: 0, lastId: lastUpdateId }
  return anchorOf({ lastUpdateId, bids: pairs(bids), asks: pairs(asks) }, limit, chain, atMs)
}

function stateOf(snapshot: BookSnapshot, limit: number): BookState {
  const [bids, asks] = [columnsOf(snapshot.bids), columnsOf(snapshot.asks)]
  return {
    ...{ epoch: 0, lastUpdateId: snapshot.lastUpdateId, bids, asks },
    bidHorizon: snapshotHorizon(bids, limit),
    askHorizon: snapshotHorizon(asks, limit),
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
