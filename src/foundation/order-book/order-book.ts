import { type Applied, type BookDiff, type BookState, continuity } from './book-rows.ts'
import { BookSide } from './book-side.ts'
import { LevelColumns, type Levels, largestOf } from './level-columns.ts'
import { assertFits, decimalText, type Scaled, scaledOf } from './scaled-units.ts'

/** A level as exact decimals. */
export interface Level {
  readonly price: string
  readonly quantity: string
}

/** The best level of a side: null if the side is known to be empty, `unknown` if it is outside the horizon. */
export type Best = Level | null | 'unknown'

export type SideName = 'bids' | 'asks'

export const SIDE_NAMES = ['bids', 'asks'] as const satisfies readonly SideName[]

/**
 * The order book of a symbol, rebuilt from an anchor and the diffs after it. It is exact inside its horizon
 * (`docs/order-books.md`). Prices and quantities are whole numbers; the scales grow when a row needs it.
 */
export class OrderBook {
  readonly bids = new BookSide(1)
  readonly asks = new BookSide(-1)
  #priceScale = 0
  #quantityScale = 0
  #epoch = 0
  #updateId = -1

  get priceScale(): number {
    return this.#priceScale
  }

  get quantityScale(): number {
    return this.#quantityScale
  }

  get epoch(): number {
    return this.#epoch
  }

  /** The last update id that the book contains; -1 before the first anchor. */
  get updateId(): number {
    return this.#updateId
  }

  /**
   * Begins again from an anchor.
   *
   * @throws a TapelineError if a level does not fit ({@link assertFits}); no diff applies then
   */
  reset(anchor: BookState): void {
    const { bids, asks } = anchor
    const horizons = { bids: horizonOf(anchor.bidHorizon), asks: horizonOf(anchor.askHorizon) }
    const priceScale = Math.max(
      bids.priceScale,
      asks.priceScale,
      horizons.bids?.scale ?? 0,
      horizons.asks?.scale ?? 0,
    )
    const quantityScale = Math.max(bids.quantityScale, asks.quantityScale)
    this.#updateId = -1
    for (const name of SIDE_NAMES) {
      assertRowFits(anchor[name], priceScale, quantityScale)
      const horizon = horizons[name]
      if (horizon !== null) assertFits(horizon.units, horizon.scale, priceScale)
    }
    this.#priceScale = priceScale
    this.#quantityScale = quantityScale
    for (const name of SIDE_NAMES) {
      const levels = anchor[name]
      const horizon = horizons[name]
      this[name].reset(
        levels,
        horizon === null ? null : horizon.units * 10 ** (priceScale - horizon.scale),
        10 ** (priceScale - levels.priceScale),
        10 ** (quantityScale - levels.quantityScale),
      )
    }
    this.#epoch = anchor.epoch
    this.#updateId = anchor.lastUpdateId
    this.#widen()
  }

  /**
   * Applies a diff. Diffs come in the order of their last update ids, at the same id the lower first id first.
   *
   * @throws a TapelineError if a level does not fit ({@link assertFits}); the book is then unchanged
   */
  apply(diff: BookDiff): Applied {
    if (this.#updateId < 0) return 'no anchor'
    const verdict = continuity(this.#epoch, this.#updateId, diff)
    if (verdict !== 'applied') return verdict
    const { bids, asks } = diff
    this.growTo(
      Math.max(bids.priceScale, asks.priceScale),
      Math.max(bids.quantityScale, asks.quantityScale),
      diff,
    )
    for (const name of SIDE_NAMES) {
      const levels = diff[name]
      if (levels.count === 0) continue
      this[name].apply(
        levels,
        10 ** (this.#priceScale - levels.priceScale),
        10 ** (this.#quantityScale - levels.quantityScale),
      )
    }
    this.#updateId = diff.lastUpdateId
    this.#widen()
    return 'applied'
  }

  /**
   * Makes the scales at least these.
   *
   * @param row also has to fit into them
   * @throws a TapelineError if a level does not fit; the book is then unchanged
   */
  growTo(priceScale: number, quantityScale: number, row: Pick<BookDiff, SideName> | null = null): void {
    const toPrice = Math.max(priceScale, this.#priceScale)
    const toQuantity = Math.max(quantityScale, this.#quantityScale)
    if (row !== null) for (const name of SIDE_NAMES) assertRowFits(row[name], toPrice, toQuantity)
    if (toPrice === this.#priceScale && toQuantity === this.#quantityScale) return
    for (const side of [this.bids, this.asks]) {
      assertFits(side.largestPrice, this.#priceScale, toPrice)
      assertFits(side.largestQuantity, this.#quantityScale, toQuantity)
    }
    for (const side of [this.bids, this.asks])
      side.rescale(10 ** (toPrice - this.#priceScale), 10 ** (toQuantity - this.#quantityScale))
    this.#priceScale = toPrice
    this.#quantityScale = toQuantity
  }

  /** Whether the best bid is at or above a known ask, which no true book shows. */
  get isCrossed(): boolean {
    const { bestIndex } = this.bids
    const ask = this.asks.bestKnown
    if (bestIndex >= 0 && ask !== null && this.bids.priceAt(bestIndex) >= ask) return true
    const bid = this.bids.bestKnown
    return this.asks.bestIndex >= 0 && bid !== null && bid >= this.asks.priceAt(this.asks.bestIndex)
  }

  best(name: SideName): Best {
    const side = this[name]
    const { bestIndex } = side
    if (bestIndex >= 0) return this.#levelAt(side, bestIndex)
    return side.isKnown ? null : 'unknown'
  }

  /** The best `limit` levels inside the horizon, the best first. */
  levels(name: SideName, limit = Number.POSITIVE_INFINITY): Level[] {
    const side = this[name]
    const found: Level[] = []
    const first = side.firstInside
    for (let i = side.count - 1; i >= first && found.length < limit; i--) found.push(this.#levelAt(side, i))
    return found
  }

  /** Levels known outside the horizon, the nearest first. Quantity 0: known to be empty. */
  outside(name: SideName, limit = Number.POSITIVE_INFINITY): Level[] {
    const side = this[name]
    const found: Level[] = []
    for (let i = side.firstInside - 1; i >= 0 && found.length < limit; i--) found.push(this.#levelAt(side, i))
    return found
  }

  /** The price up to which a side is exact, as a decimal; null if the side is complete. */
  horizon(name: SideName): string | null {
    const { horizon } = this[name]
    return horizon === null ? null : decimalText(horizon, this.#priceScale)
  }

  /** The whole state, for a derived keyframe. */
  state(): BookState {
    return {
      epoch: this.#epoch,
      lastUpdateId: this.#updateId,
      bids: this.#columns(this.bids),
      asks: this.#columns(this.asks),
      bidHorizon: this.horizon('bids'),
      askHorizon: this.horizon('asks'),
    }
  }

  #columns(side: BookSide): Levels {
    const columns = new LevelColumns()
    columns.begin(this.#priceScale, this.#quantityScale)
    for (let i = side.count - 1; i >= 0; i--) columns.add(side.priceAt(i), side.quantityAt(i))
    return columns
  }

  #levelAt(side: BookSide, index: number): Level {
    return {
      price: decimalText(side.priceAt(index), this.#priceScale),
      quantity: decimalText(side.quantityAt(index), this.#quantityScale),
    }
  }

  /**
   * While the best bid stands at a price, no ask can be at or below it, and diffs show every later one. So the
   * asks are exact up to there from now on, and likewise the bids. A crossed book is no evidence.
   */
  #widen(): void {
    const bid = this.bids.bestIndex
    const ask = this.asks.bestIndex
    if ((bid < 0 && ask < 0) || this.isCrossed) return
    if (bid >= 0) this.asks.widenTo(this.bids.priceAt(bid))
    if (ask >= 0) this.bids.widenTo(this.asks.priceAt(ask))
  }
}

function assertRowFits(levels: Levels, priceScale: number, quantityScale: number): void {
  if (priceScale > levels.priceScale)
    assertFits(largestOf(levels.prices, levels.count), levels.priceScale, priceScale)
  if (quantityScale > levels.quantityScale)
    assertFits(largestOf(levels.quantities, levels.count), levels.quantityScale, quantityScale)
}

/** @throws a RangeError if the text is no decimal, or has more digits than a level can have */
function horizonOf(text: string | null): Scaled | null {
  const scaled = text === null ? null : scaledOf(text)
  if (scaled === null && text !== null) throw new RangeError(`The horizon "${text}" is no price`)
  return scaled
}
