import { packedMaxBytes, packLevels, scalesOf, unpackLevels } from '../market/packed-levels.ts'
import { decimalText } from './scaled-units.ts'

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
  readonly #add = (price: number, quantity: number): void => this.add(price, quantity)

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

  /** Replaces the levels by those of a stored row. @throws a RangeError if they are damaged */
  read(packed: Uint8Array): void {
    const scales = scalesOf(packed)
    this.begin(scales?.price ?? 0, scales?.quantity ?? 0)
    unpackLevels(packed, this.#add)
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

/** Packs levels for a stored row, with the smallest scales that hold them. */
export function packColumns({ prices, quantities, count, priceScale, quantityScale }: Levels): Uint8Array {
  const texts: string[] = []
  for (let i = 0; i < count; i++)
    texts.push(
      `["${decimalText(prices[i] ?? 0, priceScale)}","${decimalText(quantities[i] ?? 0, quantityScale)}"]`,
    )
  const text = Buffer.from(texts.join(','))
  const packed = Buffer.alloc(packedMaxBytes(count))
  const end = packLevels(text, 0, text.length, packed, 0)
  return packed.subarray(0, end)
}
