import fc from 'fast-check'
import type { Quote } from '../../src/foundation/order-book/book-check.ts'
import { SIDE_NAMES, type SideName } from '../../src/foundation/order-book/order-book.ts'
import { diffOf, type Pair, quoteOf, snapshotOf } from './book-rows.ts'

/** The quantity of a level from now on. */
export interface Order {
  readonly side: SideName
  readonly price: number
  readonly quantity: number
}

/**
 * The order book of an exchange as the list of its changes, one per update id from 1: a model that is simple
 * enough to be believed.
 */
export class TrueBook {
  readonly #changes: Order[] = []

  constructor(orders: readonly Order[]) {
    for (const order of orders) {
      // An order removes what it would cross, each level with an update id.
      const opposite = order.side === 'bids' ? 'asks' : 'bids'
      const crosses = (price: number) => (order.side === 'bids' ? price <= order.price : price >= order.price)
      if (order.quantity > 0)
        for (const price of this.levels(opposite).keys())
          if (crosses(price)) this.#changes.push({ side: opposite, price, quantity: 0 })
      this.#changes.push(order)
    }
  }

  get lastUpdateId(): number {
    return this.#changes.length
  }

  /** Price → quantity after an update id, the best first. */
  levels(side: SideName, updateId = this.lastUpdateId): Map<number, number> {
    const levels = new Map<number, number>()
    for (const { side: changed, price, quantity } of this.#changes.slice(0, updateId)) {
      if (changed !== side) continue
      if (quantity === 0) levels.delete(price)
      else levels.set(price, quantity)
    }
    return new Map([...levels].sort(([one], [other]) => (side === 'bids' ? other - one : one - other)))
  }

  /** The diff of a range of update ids: each changed level once, with its quantity at the end. */
  diff(from: number, to: number) {
    const of = (side: SideName): Pair[] => {
      const now = this.levels(side, to)
      const changed = new Set(
        this.#changes.slice(from - 1, to).flatMap((one) => (one.side === side ? [one.price] : [])),
      )
      return [...changed]
        .sort((one, other) => (side === 'bids' ? other - one : one - other))
        .map((price) => [String(price), String(now.get(price) ?? 0)])
    }
    return diffOf(from, to, of('bids'), of('asks'))
  }

  /** The diffs of ranges that end with these update ids. */
  diffs(ends: readonly number[]) {
    return ends.map((end, i) => this.diff((ends[i - 1] ?? 0) + 1, end))
  }

  snapshot(updateId: number, limit: number) {
    const of = (side: SideName): Pair[] =>
      [...this.levels(side, updateId)].map(([price, quantity]) => [String(price), String(quantity)])
    return snapshotOf(updateId, of('bids'), of('asks'), { limit })
  }

  /** A quote for each update id that changed the top. */
  quotes(): Quote[] {
    const quotes: Quote[] = []
    let before = ''
    for (let updateId = 1; updateId <= this.lastUpdateId; updateId++) {
      const [bid, ask] = SIDE_NAMES.map((side): Pair => {
        const [best] = this.levels(side, updateId)
        return best === undefined ? ['0.00', '0.00'] : [`${best[0]}.00`, `${best[1]}.00`]
      })
      const top = JSON.stringify([bid, ask])
      if (bid !== undefined && ask !== undefined && top !== before) quotes.push(quoteOf(updateId, bid, ask))
      before = top
    }
    return quotes
  }
}

const orders = fc.array(
  fc.record<Order>({
    side: fc.constantFrom(...SIDE_NAMES),
    price: fc.integer({ min: 1, max: 40 }),
    quantity: fc.integer({ min: 0, max: 4 }),
  }),
  { minLength: 20, maxLength: 120 },
)

/** Lengths of ranges of update ids. */
const cuts = fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 200, maxLength: 200 })

export interface RandomHistory {
  readonly orders: readonly Order[]
  readonly cuts: readonly number[]
  /** How another connection cuts the same updates into diffs. */
  readonly otherCuts: readonly number[]
  /** Part of the history before the snapshot. */
  readonly anchorAt: number
  readonly limit: number
}

export const HISTORIES: fc.Arbitrary<RandomHistory> = fc.record({
  orders,
  cuts,
  otherCuts: cuts,
  anchorAt: fc.double({ min: 0, max: 1, noNaN: true }),
  limit: fc.integer({ min: 1, max: 8 }),
})

/** Ends of ranges of these lengths, up to an update id. */
export function endsOf(lengths: readonly number[], last: number): number[] {
  const ends: number[] = []
  for (const length of lengths) {
    const end = (ends.at(-1) ?? 0) + length
    if (end > last) break
    ends.push(end)
  }
  return ends
}
