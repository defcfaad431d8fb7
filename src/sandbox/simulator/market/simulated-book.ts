import type { BookBlock } from './book-block.ts'
import type { MarketBlock } from './market-block.ts'
import type { SymbolPlan } from './market-plan.ts'
import { RestingLevels } from './resting-levels.ts'

/** Where a book gets its changes from. */
export interface BookSource {
  readonly plan: SymbolPlan
  block(number: number): MarketBlock
  book(number: number): BookBlock
}

export type BookSide = 'bid' | 'ask'

/** A price in ticks and its quantity in steps; 0: the level is removed. */
export type BookLevel = readonly [ticks: number, steps: number]

/** The levels of the book that changed, best first. Positions are those of `SymbolIds.update`. */
export interface SimulatedDiff {
  readonly first: number
  readonly last: number
  readonly bids: readonly BookLevel[]
  readonly asks: readonly BookLevel[]
}

interface Top {
  readonly bidTicks: number
  readonly askTicks: number
  readonly bidSteps: number
  readonly askSteps: number
}

/** A longer step is compared level by level instead of following each change. */
const FOLLOWED_BLOCKS = 2

/**
 * One symbol's order book, as the matching engine has it after an update. The quotes are its best
 * levels, and the resting quantities below and above them are its other bids and asks.
 */
export class SimulatedBook {
  readonly #source: BookSource
  readonly #updatesPerBlock: number
  /** Quantity by price in ticks. Those inside the spread are not visible. */
  #resting = new Map<number, number>()
  #position = -1
  #top: Top = { bidTicks: 0, askTicks: 0, bidSteps: 0, askSteps: 0 }
  /** How many changes and quotes of the next update's block are in the book. */
  #changes = 0
  #quotes = 0

  /** @param position of the newest update in the book */
  constructor(source: BookSource, position: number) {
    this.#source = source
    this.#updatesPerBlock = source.plan.updateIdsPerBlock
    this.#open(position)
  }

  get position(): number {
    return this.#position
  }

  /** Advances to a later update. */
  advance(position: number): void {
    if (this.#blockOf(position) - this.#blockOf(this.#position) > 0) this.#open(position)
    else this.#follow(position)
  }

  /** Advances to a later update and returns the levels that changed on the way. */
  cut(position: number): SimulatedDiff {
    const first = this.#position + 1
    const changed =
      this.#blockOf(position) - this.#blockOf(this.#position) > FOLLOWED_BLOCKS
        ? this.#replace(position)
        : this.#advanceAndCompare(position)
    return { first, last: position, ...changed }
  }

  /** The best levels of a side, best first. */
  levels(side: BookSide, limit: number): BookLevel[] {
    const { bidTicks, askTicks, bidSteps, askSteps } = this.#top
    const isBid = side === 'bid'
    const prices = Float64Array.from(this.#resting.keys())
      .filter((ticks) => (isBid ? ticks < bidTicks : ticks > askTicks))
      .sort()
    if (isBid) prices.reverse()
    const best: BookLevel = isBid ? [bidTicks, bidSteps] : [askTicks, askSteps]
    const others = Array.from(
      prices.subarray(0, Math.max(0, limit - 1)),
      (ticks): BookLevel => [ticks, this.#resting.get(ticks) ?? 0],
    )
    return [best, ...others]
  }

  #blockOf(position: number): number {
    return Math.floor(position / this.#updatesPerBlock)
  }

  /** Creates the book from the resting levels of its minute. */
  #open(position: number): void {
    const number = this.#blockOf(position)
    this.#resting = new Map()
    new RestingLevels(this.#source.plan, number).visit((ticks, steps) => {
      this.#resting.set(ticks, steps)
    })
    const { quotes } = this.#source.block(number - 1)
    this.#top = topOf(quotes, quotes.eventMs.length - 1)
    this.#position = number * this.#updatesPerBlock - 1
    this.#changes = 0
    this.#quotes = 0
    this.#follow(position)
  }

  /** @param touched gets the prices whose resting quantity changes */
  #follow(position: number, touched?: Set<number>, onQuote?: (top: Top) => void): void {
    while (this.#position < position) {
      const number = this.#blockOf(this.#position + 1)
      const start = number * this.#updatesPerBlock
      const lastOfBlock = start + this.#updatesPerBlock - 1
      const until = Math.min(position, lastOfBlock)
      const { updateOffset, ticks, steps } = this.#source.book(number)
      for (; (updateOffset[this.#changes] ?? Infinity) <= until - start; this.#changes++) {
        const [price, quantity] = [ticks[this.#changes] ?? 0, steps[this.#changes] ?? 0]
        touched?.add(price)
        if (quantity > 0) this.#resting.set(price, quantity)
        else this.#resting.delete(price)
      }
      const { quotes } = this.#source.block(number)
      for (; (quotes.updateOffset[this.#quotes] ?? Infinity) <= until - start; this.#quotes++) {
        this.#top = topOf(quotes, this.#quotes)
        onQuote?.(this.#top)
      }
      this.#position = until
      if (until === lastOfBlock) {
        this.#changes = 0
        this.#quotes = 0
      }
    }
  }

  #advanceAndCompare(position: number): Pick<SimulatedDiff, 'bids' | 'asks'> {
    const touched = new Set<number>()
    const { bidTicks, askTicks } = this.#top
    const [bids, asks] = [new PriceRange(bidTicks), new PriceRange(askTicks)]
    this.#follow(position, touched, (top) => {
      bids.add(top.bidTicks)
      asks.add(top.askTicks)
    })
    return {
      bids: this.#changedLevels('bid', touched, bids).sort(([a], [b]) => b - a),
      asks: this.#changedLevels('ask', touched, asks).sort(([a], [b]) => a - b),
    }
  }

  /**
   * The levels of a side that had another quantity at some update of the diff: those that were touched, and those
   * that the best price has passed. So the diff leads from the book of each of its updates to that of the last one.
   */
  #changedLevels(side: BookSide, touched: ReadonlySet<number>, best: PriceRange): BookLevel[] {
    const changed = new Set(best.ends)
    for (const ticks of touched)
      if (side === 'bid' ? ticks <= best.highest : ticks >= best.lowest) changed.add(ticks)
    for (let ticks = best.lowest; ticks <= best.highest; ticks++)
      if (this.#resting.has(ticks)) changed.add(ticks)
    return [...changed].map((ticks) => [ticks, this.#stepsAt(side, ticks)])
  }

  /** The quantity at a price of a side, as it is now; 0 if there is none. */
  #stepsAt(side: BookSide, ticks: number): number {
    const { bidTicks, askTicks, bidSteps, askSteps } = this.#top
    if (side === 'bid' && ticks >= bidTicks) return ticks === bidTicks ? bidSteps : 0
    if (side === 'ask' && ticks <= askTicks) return ticks === askTicks ? askSteps : 0
    return this.#resting.get(ticks) ?? 0
  }

  /** Compares all levels before and after. */
  #replace(position: number): Pick<SimulatedDiff, 'bids' | 'asks'> {
    const all = Number.POSITIVE_INFINITY
    const former = { bid: new Map(this.levels('bid', all)), ask: new Map(this.levels('ask', all)) }
    this.#open(position)
    const changes = (side: BookSide) => {
      const now = this.levels(side, all)
      const left = former[side]
      const changed = now.filter(([ticks, steps]) => left.get(ticks) !== steps)
      for (const [ticks] of now) left.delete(ticks)
      return [...changed, ...[...left.keys()].map((ticks): BookLevel => [ticks, 0])]
    }
    return {
      bids: changes('bid').sort(([a], [b]) => b - a),
      asks: changes('ask').sort(([a], [b]) => a - b),
    }
  }
}

/** The best prices of a side over some quotes in turn. */
class PriceRange {
  /** All of them; empty if there were no quotes. */
  readonly ends = new Set<number>()
  lowest: number
  highest: number
  readonly #first: number

  /** @param ticks before the quotes */
  constructor(ticks: number) {
    this.lowest = ticks
    this.highest = ticks
    this.#first = ticks
  }

  add(ticks: number): void {
    this.ends.add(this.#first).add(ticks)
    this.lowest = Math.min(this.lowest, ticks)
    this.highest = Math.max(this.highest, ticks)
  }
}

function topOf(quotes: MarketBlock['quotes'], index: number): Top {
  return {
    bidTicks: quotes.bidTicks[index] ?? 0,
    askTicks: quotes.askTicks[index] ?? 0,
    bidSteps: quotes.bidSteps[index] ?? 0,
    askSteps: quotes.askSteps[index] ?? 0,
  }
}
