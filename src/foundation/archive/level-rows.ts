import { LevelColumns } from '../order-book/level-columns.ts'
import type { EngineColumns } from './duckdb.ts'

/** SQL of the columns that {@link LevelRows} reads, after `last_update_id` and `first_update_id`. */
export const LEVEL_COLUMNS =
  "(CASE side WHEN 'bid' THEN 0 WHEN 'ask' THEN 1 ELSE 2 END)::UTINYINT, coalesce(price, 0), coalesce(quantity, 0)"

const TWO_TO_32 = 2 ** 32
const MAX_SCALE = 8
const BID = 0
const NO_LEVEL = 2

/**
 * Puts rows of levels together into events, without an object per row. Prices and quantities are whole
 * numbers of the fewest decimals that hold everything read so far.
 */
export class LevelRows {
  readonly bids = new LevelColumns()
  readonly asks = new LevelColumns()
  /** Update ids of the event whose rows are being read; −1 before the first one. */
  lastId = -1
  firstId = -1
  readonly #prices = new Scale()
  readonly #quantities = new Scale()

  /** Begins an event. */
  begin(lastId: number, firstId: number): void {
    this.lastId = lastId
    this.firstId = firstId
    for (const side of [this.bids, this.asks]) side.begin(this.#prices.scale, this.#quantities.scale)
  }

  /**
   * Adds a row to the event.
   *
   * @param side, prices, quantities the values of {@link LEVEL_COLUMNS}
   */
  add(side: number | undefined, prices: Uint32Array, quantities: Uint32Array, row: number): void {
    if (side === NO_LEVEL) return
    const price = this.#prices.read(prices, row)
    const quantity = this.#quantities.read(quantities, row)
    if (this.bids.priceScale !== this.#prices.scale || this.bids.quantityScale !== this.#quantities.scale)
      this.#rescale()
    ;(side === BID ? this.bids : this.asks).add(price, quantity)
  }

  /** Adds rows that all are of the event. @param at index of the first of {@link LEVEL_COLUMNS} */
  addAll(columns: EngineColumns, at: number): void {
    const [prices, quantities] = [columns.words(at + 1), columns.words(at + 2)]
    for (const [row, side] of columns.bytes(at).entries()) this.add(side, prices, quantities, row)
  }

  /** The levels of the event so far get the decimals that the next one needs. */
  #rescale(): void {
    for (const side of [this.bids, this.asks]) {
      const byPrice = 10 ** (this.#prices.scale - side.priceScale)
      const byQuantity = 10 ** (this.#quantities.scale - side.quantityScale)
      side.priceScale = this.#prices.scale
      side.quantityScale = this.#quantities.scale
      for (let i = 0; i < side.count; i++) {
        side.prices[i] = (side.prices[i] ?? 0) * byPrice
        side.quantities[i] = (side.quantities[i] ?? 0) * byQuantity
      }
    }
  }
}

/** Decimals of a column. */
class Scale {
  scale = 0
  #divisor = 10 ** MAX_SCALE

  /** Reads a DECIMAL(20,8) in units of the scale, which grows when the value needs it. */
  read(words: Uint32Array, row: number): number {
    const at = row * 4
    const [low = 0, high = 0, higher = 0] = [words[at], words[at + 1], words[at + 2]]
    if (higher > 0 || high >= 1 << 21) return this.#readLarge(low, high, higher)
    const value = high * TWO_TO_32 + low
    let units = Math.floor(value / this.#divisor)
    while (units * this.#divisor !== value) {
      this.#grow()
      units = Math.floor(value / this.#divisor)
    }
    return units
  }

  /** For values of 2⁵³ units of the eighth place or more. */
  #readLarge(low: number, high: number, higher: number): number {
    const value = (BigInt(higher) << 64n) | (BigInt(high) << 32n) | BigInt(low)
    while (value % BigInt(this.#divisor) !== 0n) this.#grow()
    return Number(value / BigInt(this.#divisor))
  }

  #grow(): void {
    this.scale++
    this.#divisor /= 10
  }
}
