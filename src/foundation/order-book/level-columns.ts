const FIRST_CAPACITY = 64

/** Price levels of one side of a row, in the exchange's order: the best first. Quantity 0 removes the level. */
export interface Levels {
  /** Prices are in units of 10^-priceScale. */
  readonly priceScale: number
  readonly quantityScale: number
  readonly count: number
  /** At least `count` whole numbers up to 2^53 - 1; so have the quantities. */
  readonly prices: Float64Array
  readonly quantities: Float64Array
}

/** Levels that are refilled for each row, which saves their allocation. */
export class LevelColumns implements Levels {
  priceScale = 0
  quantityScale = 0
  count = 0
  prices = new Float64Array(FIRST_CAPACITY)
  quantities = new Float64Array(FIRST_CAPACITY)

  /** Empties the columns. */
  begin(priceScale: number, quantityScale: number): void {
    this.priceScale = priceScale
    this.quantityScale = quantityScale
    this.count = 0
  }

  add(price: number, quantity: number): void {
    if (this.count === this.prices.length) this.#grow()
    this.prices[this.count] = price
    this.quantities[this.count++] = quantity
  }

  #grow(): void {
    this.prices = grown(this.prices)
    this.quantities = grown(this.quantities)
  }
}

/** Returns a copy with twice the capacity. */
export function grown(column: Float64Array): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(column.length * 2)
  larger.set(column)
  return larger
}

/** Returns the largest of the first `count` values; 0 if there are none. */
export function largestOf(column: Float64Array, count: number): number {
  let largest = 0
  for (let i = 0; i < count; i++) largest = Math.max(largest, Math.abs(column[i] ?? 0))
  return largest
}
