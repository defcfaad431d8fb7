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
/** Ages at which books of the recipe are compared, and how often one is begun. */
const RECIPE_HOURS = [1, 6, 25]
const RECIPE_EVERY_HOURS = 12
/** Levels per side of the fresh snapshot that a book of the recipe is compared with. */
const FRESH_LEVELS = 5000
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
  readonly limit: number
  readonly sinceHour: number
  readonly bids: Map<string, string>
  readonly asks: Map<string, string>
  readonly #lastUpdateId: number

  constructor(snapshot: BookSnapshot, limit: number, sinceHour: number) {
    this.limit = limit
    this.sinceHour = sinceHour
    this.#lastUpdateId = snapshot.lastUpdateId
    this.bids = new Map(snapshot.bids.slice(0, limit))
    this.asks = new Map(snapshot.asks.slice(0, limit))
  }

  apply({ u, b, a }: Frame): void {
    if (u <= this.#lastUpdateId) return
    for (const [levels, changes] of [[this.bids, b] as const, [this.asks, a] as const])
      for (const [price, quantity] of changes)
        if (Number(quantity) === 0) levels.delete(price)
        else levels.set(price, quantity)
  }

  /** Percentage of the levels of a fresh snapshot that it has with their quantity. */
  rightOf(name: SideName, fresh: Pairs): number {
    const right = fresh.filter(([price, quantity]) => this[name].get(price) === quantity).length
    return (100 * right) / fresh.length
  }
}

/** Books by the recipe: one of each limit is begun every few hours, and compared at some ages. */
class Recipes {
  #books: RecipeBook[] = []
  readonly #right = new Map<string, number[]>()

  apply(frame: Frame): void {
    for (const book of this.#books) book.apply(frame)
  }

  /** @param truth all levels at a full hour */
  look(truth: BookSnapshot, hour: number): void {
    const oldest = Math.max(...RECIPE_HOURS)
    for (const { book, age } of this.#books.map((one) => ({ book: one, age: hour - one.sinceHour }))) {
      if (!RECIPE_HOURS.includes(age)) continue
      for (const name of SIDES) {
        const what = `recipe from ${book.limit} levels, ${name} after ${age} h, % right`
        const all = this.#right.get(what) ?? []
        this.#right.set(what, [...all, book.rightOf(name, truth[name].slice(0, FRESH_LEVELS))])
      }
    }
    this.#books = this.#books.filter(({ sinceHour }) => hour - sinceHour < oldest)
    if (hour % RECIPE_EVERY_HOURS === 0)
      this.#books.push(...LIMITS.map((limit) => new RecipeBook(truth, limit, hour)))
  }

  report(): Record<string, number> {
    const entries = [...this.#right].sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true }))
    return Object.fromEntries(
      entries.flatMap(([what, unsorted]) => {
        const values = unsorted.map((one) => Math.round(10 * one) / 10).sort((one, other) => one - other)
        const [lowest = 0, median = 0, highest = 0] = [0, Math.floor(values.length / 2), -1].map((at) =>
          values.at(at),
        )
        return [
          [`${what}: lowest`, lowest],
          [`${what}: median of ${values.length}`, median],
          [`${what}: highest`, highest],
        ]
      }),
    )
  }
}

/** Tapeline's book of one symbol, from snapshots of so many levels. */
class KeptBook {
  readonly #limit: number
  readonly #book = new OrderBook()
  #anchor: Anchor
  #snapshots = 1
  #compared = 0
  #fewest = Number.POSITIVE_INFINITY
  #narrowest = Number.POSITIVE_INFINITY
  wrong = 0

  constructor(first: BookSnapshot, limit: number, atMs: number) {
    this.#limit = limit
    this.#book.reset(stateOf(first, limit))
    this.#anchor = anchorAt(first, limit, atMs)
  }

  get updateId(): number {
    return this.#book.updateId
  }

  apply(frame: Frame): void {
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
    this.#snapshots++
  }

  compare(truth: BookSnapshot): void {
    for (const name of SIDES) {
      const found = wrongInside(this.#book, name, truth[name])
      this.#compared += found.compared
      this.wrong += found.wrong
      this.#fewest = Math.min(this.#fewest, found.compared)
      this.#narrowest = Math.min(this.#narrowest, found.basisPoints)
    }
  }

  report(): Record<string, number> {
    const from = `from ${this.#limit} levels`
    return {
      [`${from}: snapshots`]: this.#snapshots,
      [`${from}: levels compared inside the horizon`]: this.#compared,
      [`${from}: of them wrong`]: this.wrong,
      [`${from}: fewest exact levels of a side`]: this.#fewest,
      [`${from}: narrowest horizon, basis points`]: this.#narrowest,
    }
  }
}

/**
 * Keeps the book of one symbol for virtual hours as Tapeline does, with the snapshots that ingestion would request, and
 * compares it with the true book every hour. Beside it, books by the exchange's recipe are begun and compared with a
 * fresh snapshot.
 *
 * @returns Tapeline's wrong levels, which must be 0, and how far its book was exact; for the recipe's, from 1,000 and
 *   5,000 levels, the percentage of a fresh snapshot that they had right after some hours
 */
export function keepBooks(hours: number): Record<string, number> {
  const endMs = START_MS + hours * HOUR_MS
  const market = openMarket(MARKET)
  const own = market.get(SYMBOL)
  // The stream of a second costs less than that of 100 ms, and leads to the same books.
  const cursor = own && depthCursors(own, 1, START_MS).find(({ stream }) => stream.endsWith('@depth'))
  if (cursor === undefined) throw new Error(`The market has no ${SYMBOL}`)
  const books = new MarketBooks(market, () => endMs + HOUR_MS)
  const at = (timeMs: number, limit: number) => books.book(SYMBOL, { timeMs }, limit)
  const kept = LIMITS.map((limit) => new KeptBook(at(START_MS, limit), limit, START_MS))
  const recipes = new Recipes()
  recipes.look(at(START_MS, FRESH_LEVELS), 0)
  let diffs = 0
  let lookMs = START_MS + LOOK_EVERY_MS
  let compareMs = START_MS + HOUR_MS
  // The last full hour is compared after the first diff that follows it.
  while (compareMs <= endMs) {
    const atMs = cursor.dueMs
    for (const text of cursor.next()) {
      const frame: Frame = JSON.parse(text).data
      for (const one of kept) one.apply(frame)
      recipes.apply(frame)
      diffs++
    }
    if (atMs >= lookMs) {
      lookMs += LOOK_EVERY_MS
      for (const [index, one] of kept.entries()) one.renew(at(atMs - 1, LIMITS[index] ?? 0), atMs)
    }
    if (atMs < compareMs) continue
    const hour = Math.round((compareMs - START_MS) / HOUR_MS)
    compareMs += HOUR_MS
    const truth = books.book(SYMBOL, { updateId: kept[0]?.updateId ?? 0 }, Number.POSITIVE_INFINITY)
    for (const one of kept) one.compare(truth)
    recipes.look(truth, hour)
    console.error(
      `after ${hour} h: ${kept.map(({ wrong }) => wrong).join(' and ')} levels inside the horizons are wrong`,
    )
  }
  return Object.assign({ diffs }, ...kept.map((one) => one.report()), recipes.report())
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
