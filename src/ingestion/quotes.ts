/** As many update ids in a row below all that is remembered, and none above it, mean that the exchange counts anew. */
const RESET_EVENTS = 100

/** Update ids that are remembered, to tell a late quote from a repeated one. */
const REMEMBERED = 8192

/**
 * The order of one bookTicker stream. Update ids rise with holes, so nothing is ever known to be missing; only
 * those that were forwarded are duplicates.
 */
export class QuoteOrder {
  #last: number | null
  readonly #recent = new Set<number>()
  #below = 0

  constructor(last: number | null = null) {
    this.#last = last
  }

  get last(): number | null {
    return this.#last
  }

  /**
   * Whether the quote is to be forwarded; `anew`: it is, and the exchange counts anew, so that those before it were
   * taken for repeats.
   */
  observe(updateId: number): 'forward' | 'duplicate' | 'anew' {
    if (this.#last !== null && updateId <= this.#last) {
      if (this.#recent.has(updateId)) return 'duplicate'
      if (this.#isOlderThanMemory(updateId)) return this.#countsAnew(updateId) ? 'anew' : 'duplicate'
      this.#remember(updateId)
      return 'forward'
    }
    this.#below = 0
    this.#last = updateId
    this.#remember(updateId)
    return 'forward'
  }

  #isOlderThanMemory(updateId: number): boolean {
    const [oldest] = this.#recent
    return oldest === undefined || updateId < oldest
  }

  #countsAnew(updateId: number): boolean {
    this.#below++
    if (this.#below < RESET_EVENTS) return false
    this.#below = 0
    this.#recent.clear()
    this.#last = updateId
    this.#remember(updateId)
    return true
  }

  #remember(updateId: number): void {
    this.#recent.add(updateId)
    if (this.#recent.size <= REMEMBERED) return
    const [oldest] = this.#recent
    if (oldest !== undefined) this.#recent.delete(oldest)
  }
}
