import type { Market, SymbolMarket } from './market.ts'
import { type BookLevel, type BookSide, SimulatedBook } from './simulated-book.ts'

/** A book as REST shows it: levels as price and quantity, best first. */
export interface BookSnapshot {
  readonly lastUpdateId: number
  readonly bids: ReadonlyArray<readonly [price: string, quantity: string]>
  readonly asks: ReadonlyArray<readonly [price: string, quantity: string]>
}

/**
 * When to look at a book: at the end of a millisecond since the Unix epoch, or after an update. Epochs of ids are
 * counted from 0; default: the latest.
 */
export type BookMoment =
  | { readonly timeMs: number }
  | { readonly updateId: number; readonly epoch?: number | undefined }

/** The books of the past, up to now. */
export interface BookHistory {
  /**
   * @param levels at most this many of each side
   * @throws {RangeError} when the moment is in the future, or its epoch does not have the id
   */
  book(symbol: string, moment: BookMoment, levels: number): BookSnapshot
}

/**
 * The true books of the simulated market, recreated from its blocks. Ask for the moments of a symbol in ascending order:
 * each minute is then created once, otherwise for each moment.
 */
export class MarketBooks implements BookHistory {
  readonly #markets: Market
  readonly #nowMs: () => number
  /** The last book of each symbol: a later moment of the same minute continues from it. */
  readonly #books = new Map<string, SimulatedBook>()

  constructor(markets: Market, nowMs: () => number) {
    this.#markets = markets
    this.#nowMs = nowMs
  }

  book(symbol: string, moment: BookMoment, levels: number): BookSnapshot {
    const market = this.#markets.get(symbol)
    if (market === undefined) throw new RangeError(`${symbol} is not listed`)
    const position = this.#positionOf(market, moment)
    const last = this.#books.get(symbol)
    const book = last !== undefined && last.position <= position ? last : new SimulatedBook(market, position)
    book.advance(position)
    this.#books.set(symbol, book)
    const { price, quantity } = market.plan.instrument
    const textOf = ([ticks, steps]: BookLevel) => [price(ticks), quantity(steps)] as const
    const side = (name: BookSide) => book.levels(name, levels).map(textOf)
    return { lastUpdateId: market.ids.update.idAt(position), bids: side('bid'), asks: side('ask') }
  }

  #positionOf({ clock, ids }: SymbolMarket, moment: BookMoment): number {
    const nowMs = this.#nowMs()
    const end = clock.positionAt(nowMs)
    if ('timeMs' in moment) {
      if (moment.timeMs > nowMs) throw new RangeError(`${moment.timeMs} is in the future: it is ${nowMs}`)
      return clock.positionAt(moment.timeMs)
    }
    const { fromPosition, toPosition, firstId } = ids.update.epoch(moment.epoch)
    const position = fromPosition + moment.updateId - firstId
    if (position < fromPosition || position >= toPosition || position > end)
      throw new RangeError(`There is no update ${moment.updateId} yet, or not in this epoch`)
    return position
  }
}
