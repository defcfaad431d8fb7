import { isoOfUs } from '../../foundation/market/time-unit.ts'
import { type SideAt, sideAt } from '../../foundation/order-book/book-at.ts'
import { type AnchorKey, type BookDiff, snapshotHorizon } from '../../foundation/order-book/book-rows.ts'
import { LevelColumns } from '../../foundation/order-book/level-columns.ts'
import { OrderBook, SIDE_NAMES, type SideName } from '../../foundation/order-book/order-book.ts'
import { scaledOf } from '../../foundation/order-book/scaled-units.ts'
import type { BookLevel, DepthEvent, DepthSnapshotEvent, MarketEvent } from './market-event.ts'

/** Changes that are kept for the next snapshot, whose answer comes after changes that it lacks: 100 s. */
const KEPT_CHANGES = 1000

export type LiveBookSide = SideAt

/**
 * The order book of a symbol from the events `depth` and `depthSnapshot`, as they come from the topic. It is
 * exact up to a horizon per side, and says when it is not known: docs/order-books.md.
 */
export class LiveBook {
  readonly #symbol: string
  /** The newest changes, in the order of the topic. */
  readonly #changes: BookDiff[] = []
  #book = new OrderBook()
  #anchor: AnchorKey | null = null
  #last: BookDiff | null = null
  /** The first change after missing update ids; null while none are. */
  #afterHole: BookDiff | null = null

  /** @param symbol like `BTCUSDT`; events of other symbols are ignored */
  constructor(symbol: string) {
    this.#symbol = symbol
  }

  /** Takes the next event; events of other types and symbols change nothing. @returns whether the book changed */
  take(event: MarketEvent): boolean {
    if (event.symbol !== this.#symbol) return false
    if (event.type === 'depthSnapshot') return this.#begin(event)
    return event.type === 'depth' && this.#apply(event)
  }

  /** Why the book is not known at the moment; null if it is. */
  get refusal(): string | null {
    if (this.#anchor === null) return 'No usable snapshot has come yet'
    if (this.#afterHole !== null) {
      const { firstUpdateId, eventTimeUs, epoch } = this.#afterHole
      const ids =
        epoch === this.#book.epoch
          ? `The update ids ${this.#book.updateId + 1} to ${firstUpdateId - 1} are missing`
          : 'The update ids began again'
      return `${ids} before ${isoOfUs(eventTimeUs)}. The next snapshot ends this`
    }
    const side = SIDE_NAMES.find((name) => this.#book.best(name) === 'unknown')
    if (side === undefined) return null
    const name = side === 'bids' ? 'bid' : 'ask'
    return `The best ${name} is outside the horizon ${this.#book.horizon(side)} of the snapshot`
  }

  /**
   * Returns the best levels of a side inside its horizon, and the horizon; null while {@link refusal} gives a
   * reason.
   */
  side(name: SideName, limit = Number.POSITIVE_INFINITY): LiveBookSide | null {
    return this.refusal === null ? sideAt(this.#book, name, limit) : null
  }

  /** The last update id (`u`) that the book contains; null before the first snapshot. */
  get updateId(): number | null {
    return this.#anchor === null ? null : this.#book.updateId
  }

  /** The exchange's time (`E`) of the last change in the book; null before the first. */
  get eventTimeUs(): number | null {
    return this.#last?.eventTimeUs ?? null
  }

  /** The snapshot that the book began from: its last update id and its receipt. */
  get anchor(): AnchorKey | null {
    return this.#anchor
  }

  /** From the receipt of the snapshot to that of the last change, in microseconds. */
  get ageUs(): number {
    return Math.max(0, (this.#last?.receivedUs ?? 0) - (this.#anchor?.receivedUs ?? 0))
  }

  /** Begins again from a snapshot, unless changes after it are missing while the present book has them. */
  #begin(event: DepthSnapshotEvent): boolean {
    const [bids, asks] = [columnsOf(event.bids), columnsOf(event.asks)]
    if (bids === null || asks === null) return false
    const { epoch, lastUpdateId, limit, ingestionTimestampUs: receivedUs } = event
    const book = new OrderBook()
    const horizons = { bidHorizon: snapshotHorizon(bids, limit), askHorizon: snapshotHorizon(asks, limit) }
    book.reset({ epoch, lastUpdateId, bids, asks, ...horizons })
    const { last, afterHole } = this.#catchUp(book)
    if (afterHole !== null) return false
    this.#book = book
    this.#anchor = { epoch, lastUpdateId, receivedUs }
    this.#last = last
    this.#afterHole = null
    return true
  }

  /** Applies the kept changes. One that came late fills the hole before those that came sooner. */
  #catchUp(book: OrderBook) {
    let last: BookDiff | null = null
    let afterHole: BookDiff | null = null
    for (const change of this.#changes.toSorted(inOrder)) {
      const applied = book.apply(change)
      if (applied === 'applied') {
        last = change
        afterHole = null
      } else if (applied === 'hole') afterHole ??= change
    }
    return { last, afterHole }
  }

  #apply(event: DepthEvent): boolean {
    const [bids, asks] = [columnsOf(event.bids), columnsOf(event.asks)]
    // Like the tables, which set such a change aside: the next one comes after a hole.
    if (bids === null || asks === null) return false
    const { epoch, firstUpdateId, lastUpdateId, eventTimeUs, ingestionTimestampUs: receivedUs } = event
    const change = { epoch, firstUpdateId, lastUpdateId, eventTimeUs, receivedUs, bids, asks }
    this.#changes.push(change)
    if (this.#changes.length > KEPT_CHANGES) this.#changes.shift()
    const applied = this.#book.apply(change)
    if (applied === 'hole') this.#afterHole ??= change
    if (applied !== 'applied') return false
    this.#last = change
    if (this.#afterHole !== null) {
      const { last, afterHole } = this.#catchUp(this.#book)
      this.#last = last ?? change
      this.#afterHole = afterHole
    }
    return true
  }
}

function inOrder(one: BookDiff, other: BookDiff): number {
  return (
    one.epoch - other.epoch ||
    one.lastUpdateId - other.lastUpdateId ||
    one.firstUpdateId - other.firstUpdateId
  )
}

/** Returns levels with the smallest scales that hold them; null if a level has too many digits. */
function columnsOf(levels: readonly BookLevel[]): LevelColumns | null {
  const prices = levels.map(([price]) => scaledOf(price))
  const quantities = levels.map(([, quantity]) => scaledOf(quantity))
  const columns = new LevelColumns()
  columns.begin(largestScale(prices), largestScale(quantities))
  for (const [i, price] of prices.entries()) {
    const quantity = quantities[i] ?? null
    if (price === null || quantity === null) return null
    const units = price.units * 10 ** (columns.priceScale - price.scale)
    const amount = quantity.units * 10 ** (columns.quantityScale - quantity.scale)
    if (!Number.isSafeInteger(units) || !Number.isSafeInteger(amount)) return null
    columns.add(units, amount)
  }
  return columns
}

function largestScale(all: readonly ReturnType<typeof scaledOf>[]): number {
  return all.reduce((largest, one) => Math.max(largest, one?.scale ?? 0), 0)
}
