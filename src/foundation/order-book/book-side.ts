import { grown, type Levels, largestOf } from './level-columns.ts'

const FIRST_CAPACITY = 1024
/** Below this number a loop moves elements faster than `copyWithin`. */
const FEW = 24

/** Every level is known. */
const COMPLETE = Number.NEGATIVE_INFINITY

/**
 * One side of an order book. Levels are sorted by a key that rises towards the best price: the price for
 * bids, the negative price for asks. The best is last, since most changes are near it and then move few levels.
 *
 * Levels whose key is at or above the horizon are exact: those that are not here do not exist. Below it only
 * levels that a diff has touched are known; those with quantity 0 are known to be empty.
 */
export class BookSide {
  readonly #sign: 1 | -1
  #keys = new Float64Array(FIRST_CAPACITY)
  #quantities = new Float64Array(FIRST_CAPACITY)
  #count = 0
  #horizon = COMPLETE

  /** @param sign 1 for bids, -1 for asks */
  constructor(sign: 1 | -1) {
    this.#sign = sign
  }

  /** Stored levels, with those outside the horizon. */
  get count(): number {
    return this.#count
  }

  /** The price up to which the side is exact; null if the side is complete. */
  get horizon(): number | null {
    return this.#horizon === COMPLETE ? null : this.#horizon * this.#sign
  }

  /** Index of the best level; -1 if there is none inside the horizon. */
  get bestIndex(): number {
    const last = this.#count - 1
    return last >= 0 && this.keyAt(last) >= this.#horizon ? last : -1
  }

  /** Whether the best price is known, or known not to exist. */
  get isKnown(): boolean {
    return this.bestIndex >= 0 || this.#horizon === COMPLETE
  }

  /** Index of the first level inside the horizon. */
  get firstInside(): number {
    return this.#horizon === COMPLETE ? 0 : this.#firstFrom(this.#horizon)
  }

  keyAt(index: number): number {
    return this.#keys[index] ?? Number.NaN
  }

  priceAt(index: number): number {
    return this.keyAt(index) * this.#sign
  }

  quantityAt(index: number): number {
    return this.#quantities[index] ?? Number.NaN
  }

  /** The quantity at a price, 0 if there is no level; null if it is unknown. */
  quantityOf(price: number): number | null {
    const key = price * this.#sign
    const index = this.#firstFrom(key)
    if (index < this.#count && this.keyAt(index) === key) return this.quantityAt(index)
    return key >= this.#horizon ? 0 : null
  }

  /** The best price that is known to have a quantity, inside the horizon or not; null if there is none. */
  get bestKnown(): number | null {
    for (let i = this.#count - 1; i >= 0; i--) if (this.quantityAt(i) > 0) return this.priceAt(i)
    return null
  }

  /** The largest price of a level or of the horizon: a finer scale has to hold it. */
  get largestPrice(): number {
    return Math.max(largestOf(this.#keys, this.#count), Math.abs(this.horizon ?? 0))
  }

  get largestQuantity(): number {
    return largestOf(this.#quantities, this.#count)
  }

  /** Replaces everything. Factors bring the levels to the scale of the book. @param horizon null: complete */
  reset(levels: Levels, horizon: number | null, priceFactor: number, quantityFactor: number): void {
    this.#count = 0
    this.#horizon = horizon === null ? COMPLETE : horizon * this.#sign
    // From the worst, so that each level is added at the end.
    for (let i = levels.count - 1; i >= 0; i--) {
      const key = (levels.prices[i] ?? 0) * priceFactor * this.#sign
      const at = this.#count === 0 || this.keyAt(this.#count - 1) < key ? this.#count : this.#firstFrom(key)
      this.#set(at, key, (levels.quantities[i] ?? 0) * quantityFactor)
    }
  }

  /** Sets the quantities of levels. Factors bring them to the scale of the book. */
  apply(levels: Levels, priceFactor: number, quantityFactor: number): void {
    const { prices, quantities, count } = levels
    const priceToKey = priceFactor * this.#sign
    // Diffs list the best level first, so the next key is usually below the one before.
    let above = this.#count
    let before = Number.POSITIVE_INFINITY
    for (let i = 0; i < count; i++) {
      const key = (prices[i] ?? 0) * priceToKey
      if (key >= before) above = this.#count
      above = this.#firstFrom(key, above)
      this.#set(above, key, (quantities[i] ?? 0) * quantityFactor)
      before = key
    }
  }

  /** Extends the horizon to a price. Levels known to be empty need not be stored inside it. */
  widenTo(price: number): void {
    const horizon = price * this.#sign
    if (horizon >= this.#horizon) return
    const from = this.#firstFrom(horizon)
    const to = this.#firstFrom(this.#horizon)
    this.#horizon = horizon
    let kept = from
    for (let i = from; i < to; i++) {
      if (this.quantityAt(i) === 0) continue
      this.#keys[kept] = this.keyAt(i)
      this.#quantities[kept++] = this.quantityAt(i)
    }
    if (kept === to) return
    this.#keys.copyWithin(kept, to, this.#count)
    this.#quantities.copyWithin(kept, to, this.#count)
    this.#count -= to - kept
  }

  /** Multiplies prices and quantities for a finer scale. */
  rescale(priceFactor: number, quantityFactor: number): void {
    for (let i = 0; i < this.#count; i++) {
      this.#keys[i] = this.keyAt(i) * priceFactor
      this.#quantities[i] = this.quantityAt(i) * quantityFactor
    }
    this.#horizon *= priceFactor
  }

  /** Index of the first level at or above a key, searched downwards from `end`. */
  #firstFrom(key: number, end = this.#count): number {
    const keys = this.#keys
    let high = end
    let low = end - 1
    for (let step = 1; low >= 0 && (keys[low] ?? 0) >= key; step *= 2) {
      high = low
      low -= step
    }
    if (low < -1) low = -1
    while (high - low > 1) {
      const middle = (low + high) >>> 1
      if ((keys[middle] ?? 0) >= key) high = middle
      else low = middle
    }
    return high
  }

  /** @param index of the first level at or above the key */
  #set(index: number, key: number, quantity: number): void {
    const isKept = quantity !== 0 || key < this.#horizon
    if (index < this.#count && this.#keys[index] === key) {
      if (isKept) this.#quantities[index] = quantity
      else this.#remove(index)
    } else if (isKept) this.#insert(index, key, quantity)
  }

  #insert(index: number, key: number, quantity: number): void {
    if (this.#count === this.#keys.length) {
      this.#keys = grown(this.#keys)
      this.#quantities = grown(this.#quantities)
    }
    const keys = this.#keys
    const quantities = this.#quantities
    if (this.#count - index <= FEW) {
      for (let i = this.#count; i > index; i--) {
        keys[i] = keys[i - 1] ?? 0
        quantities[i] = quantities[i - 1] ?? 0
      }
    } else {
      keys.copyWithin(index + 1, index, this.#count)
      quantities.copyWithin(index + 1, index, this.#count)
    }
    keys[index] = key
    quantities[index] = quantity
    this.#count++
  }

  #remove(index: number): void {
    const keys = this.#keys
    const quantities = this.#quantities
    const last = --this.#count
    if (last - index <= FEW) {
      for (let i = index; i < last; i++) {
        keys[i] = keys[i + 1] ?? 0
        quantities[i] = quantities[i + 1] ?? 0
      }
    } else {
      keys.copyWithin(index, index + 1, last + 1)
      quantities.copyWithin(index, index + 1, last + 1)
    }
  }
}
