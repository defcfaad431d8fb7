/** As many update ids in a row below all that is remembered, and none above it, mean that the exchange counts anew. */
const RESET_EVENTS = 100

/**
 * Update ids that are remembered, to tell a late quote from a repeated one: those of the last minute or two, and more of them only
 * where a stream is so slow that these are fewer. A connection that has been silent for a minute is replaced.
 */
const REMEMBERED_LEAST = 512
/** However busy the stream is. */
const REMEMBERED_MOST = 8192

/**
 * The order of one bookTicker stream. Update ids rise with holes, so nothing is ever known to be missing; only
 * those that were forwarded are duplicates.
 */
export class QuoteSequence {
  #last: number | null
  /** Rising; up to twice as many as are meant to be, so that the oldest are dropped seldom and all at once. */
  #recent: number[] = []
  #below = 0
  /** The last id when {@link forgetOld} was called last. */
  #lastBefore: number | null = null

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
      const at = this.#placeOf(updateId)
      if (this.#recent[at] === updateId) return 'duplicate'
      if (at === 0) return this.#countsAnew(updateId) ? 'anew' : 'duplicate'
      this.#recent.splice(at, 0, updateId)
      return 'forward'
    }
    this.#below = 0
    this.#last = updateId
    this.#remember(updateId)
    return 'forward'
  }

  /** To be called every minute: forgets ids that came before the last call. */
  forgetOld(): void {
    const old = this.#lastBefore === null ? 0 : this.#placeOf(this.#lastBefore + 1)
    const spared = Math.min(old, this.#recent.length - REMEMBERED_LEAST)
    if (spared > 0) this.#recent = this.#recent.slice(spared)
    this.#lastBefore = this.#last
  }

  /** Where in what is remembered an id stands, or would stand; 0 when it is older than all of that. */
  #placeOf(updateId: number): number {
    let low = 0
    let high = this.#recent.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#recent[middle] ?? 0) < updateId) low = middle + 1
      else high = middle
    }
    return low
  }

  #countsAnew(updateId: number): boolean {
    this.#below++
    if (this.#below < RESET_EVENTS) return false
    this.#below = 0
    this.#recent = []
    this.#lastBefore = null
    this.#last = updateId
    this.#remember(updateId)
    return true
  }

  #remember(updateId: number): void {
    if (this.#recent.length === 2 * REMEMBERED_MOST) this.#recent = this.#recent.slice(REMEMBERED_MOST)
    this.#recent.push(updateId)
  }
}
