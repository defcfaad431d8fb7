import type { SideName } from '../../src/foundation/order-book/order-book.ts'
import type { BookSnapshot } from '../../src/sandbox/simulator/market/book-history.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { firstIndex } from '../../src/sandbox/simulator/market/trade-history.ts'

/** The quantity of a level from now on. Each change has an update id. */
interface Change {
  readonly side: SideName
  readonly price: number
  readonly quantity: number
  readonly timeMs: number
}

type Sides = Readonly<Record<SideName, Map<number, number>>>

type Pairs = BookSnapshot['bids']

const FIRST_PRICE = 100_000
/** Levels of each side at first, and how far the price moves: snapshots of 1,000 levels have an edge that it nears. */
const FIRST_LEVELS = 1800
const FARTHEST = 900
const JUMP_SHARE = 1 / 500
/** Changes between two copies of the book. */
const KEPT_EVERY = 1000

/** The true order book of a symbol, as the list of its changes. A position counts them, also across restarts of ids. */
export class TrueBook {
  readonly #random: Random
  readonly #changes: Change[] = []
  readonly #now: Sides = { bids: new Map(), asks: new Map() }
  readonly #copies: Sides[] = []
  #bestBid = FIRST_PRICE - 1
  #bestAsk = FIRST_PRICE + 1
  #middle = FIRST_PRICE
  #drift = 0

  constructor(random: Random) {
    this.#random = random
    for (let i = 1; i <= FIRST_LEVELS; i++) {
      this.#now.bids.set(FIRST_PRICE - i, random.whole(1, 99))
      this.#now.asks.set(FIRST_PRICE + i, random.whole(1, 99))
    }
    this.#keep()
  }

  get position(): number {
    return this.#changes.length
  }

  get top() {
    const { bids, asks } = this.#now
    const [bid, ask] = [this.#bestBid, this.#bestAsk]
    return { bid, ask, bidQuantity: bids.get(bid) ?? 0, askQuantity: asks.get(ask) ?? 0 }
  }

  /** Changes some levels near the price, which moves. */
  change(timeMs: number): void {
    const random = this.#random
    if (random.chance(0.01)) this.#drift = random.pick([-2, 0, 2])
    const step = random.chance(JUMP_SHARE) ? random.whole(-600, 600) : random.whole(-3, 3) + this.#drift
    const middle = this.#middle + step
    this.#middle = Math.min(FIRST_PRICE + FARTHEST, Math.max(FIRST_PRICE - FARTHEST, middle))
    for (let left = random.whole(1, 6); left > 0; left--) {
      const distance = Math.min(FIRST_LEVELS, Math.floor(random.pareto(1)))
      const quantity = random.chance(0.25) ? 0 : random.whole(1, 99)
      if (random.chance(0.5)) this.#order('bids', this.#middle - distance, quantity, timeMs)
      else this.#order('asks', this.#middle + distance, quantity, timeMs)
    }
  }

  /** The position after the changes up to a time. */
  positionAt(timeMs: number): number {
    return firstIndex(0, this.#changes.length, (at) => (this.#changes[at]?.timeMs ?? 0) > timeMs)
  }

  /** The levels of a side after so many changes, the best first. */
  levels(side: SideName, position: number, limit = Number.POSITIVE_INFINITY): Pairs {
    const copied = Math.floor(position / KEPT_EVERY)
    const levels = new Map(this.#copies[copied]?.[side])
    for (const change of this.#changes.slice(copied * KEPT_EVERY, position))
      if (change.side === side) set(levels, change)
    const prices = Float64Array.from(levels.keys()).sort()
    if (side === 'bids') prices.reverse()
    return Array.from(prices.subarray(0, limit), (price) => pair(price, levels.get(price) ?? 0))
  }

  /** The changed levels between two positions, each with its last quantity. */
  diff(from: number, to: number, side: SideName): Pairs {
    const changed = this.#changes.slice(from, to).filter((change) => change.side === side)
    const last = new Map(changed.map(({ price, quantity }) => [price, quantity]))
    return [...last].map(([price, quantity]) => pair(price, quantity))
  }

  /** An order removes the levels that it would cross, each with an update id. */
  #order(side: SideName, price: number, quantity: number, timeMs: number): void {
    if (quantity > 0) {
      while (side === 'bids' && this.#bestAsk <= price) this.#add('asks', this.#bestAsk, 0, timeMs)
      while (side === 'asks' && this.#bestBid >= price) this.#add('bids', this.#bestBid, 0, timeMs)
    }
    this.#add(side, price, quantity, timeMs)
  }

  #add(side: SideName, price: number, quantity: number, timeMs: number): void {
    const change = { side, price, quantity, timeMs }
    this.#changes.push(change)
    const { bids, asks } = this.#now
    set(this.#now[side], change)
    if (side === 'bids' && quantity > 0) this.#bestBid = Math.max(this.#bestBid, price)
    if (side === 'asks' && quantity > 0) this.#bestAsk = Math.min(this.#bestAsk, price)
    // A side is never empty: the price stays within its first levels.
    while (!bids.has(this.#bestBid)) this.#bestBid--
    while (!asks.has(this.#bestAsk)) this.#bestAsk++
    if (this.#changes.length % KEPT_EVERY === 0) this.#keep()
  }

  #keep(): void {
    this.#copies.push({ bids: new Map(this.#now.bids), asks: new Map(this.#now.asks) })
  }
}

function set(levels: Map<number, number>, { price, quantity }: Change): void {
  if (quantity === 0) levels.delete(price)
  else levels.set(price, quantity)
}

function pair(price: number, quantity: number): Pairs[number] {
  return [`${price}.00`, `${quantity}.00`]
}
