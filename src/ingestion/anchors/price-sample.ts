import type { EventFields } from '../../foundation/market/event-fields.ts'

/** Best prices of a symbol; both the last price if it came from a trade. Numbers, since they only order requests. */
export interface BestPrices {
  readonly bid: number
  readonly ask: number
}

/** Notes the next price of each symbol on request. Between requests an event costs one comparison. */
export class PriceSample {
  /** Whether prices are wanted: only then must {@link note} be called. */
  isOpen = false
  #wanted = new Set<string>()
  #untilMs = 0
  #prices = new Map<string, BestPrices>()

  /** Asks for the next price of each of these symbols. @param untilMs on the monotonic clock */
  begin(symbols: Iterable<string>, untilMs: number): void {
    this.#wanted = new Set(symbols)
    this.#untilMs = untilMs
    this.isOpen = true
  }

  /** Returns the prices since the last call. */
  take(): ReadonlyMap<string, BestPrices> {
    const prices = this.#prices
    this.#prices = new Map()
    return prices
  }

  note(event: Readonly<EventFields>, nowMs: number): void {
    const { type } = event
    const symbol = event.symbol.text
    if (nowMs >= this.#untilMs) this.isOpen = false
    // The parties of a block trade agree on a price outside the book.
    else if (
      (type === 'trade' || type === 'aggTrade' || type === 'bookTicker') &&
      this.#wanted.delete(symbol)
    ) {
      const bid = Number(event.price)
      this.#prices.set(symbol, { bid, ask: type === 'bookTicker' ? Number(event.askPrice) : bid })
    }
  }
}
