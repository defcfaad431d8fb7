/** So many consecutive ids below all remembered ones prove that the exchange restarted its ids. */
const RESET_EVENTS = 100

/**
 * Minimum of update ids remembered, to tell a late quote from a repeated one. Ids of the last one
 * to two minutes are kept; more only if the stream is so slow that these are fewer. A connection
 * that is silent for a minute is replaced.
 */
const REMEMBERED_LEAST = 512
/** Maximum, however busy the stream is. */
const REMEMBERED_MOST = 8192

/** The order of a bookTicker stream. Its ids have holes: only ids that were forwarded are duplicates. */
export class QuoteSequence {
  #last: number | null
  /** Ascending. Grows to twice the limit, so that trimming is rare and in bulk. */
  #recent: number[] = []
  #below = 0
  /** The last id at the previous {@link forgetOld}. */
  #lastBefore: number | null = null

  constructor(last: number | null = null) {
    this.#last = last
  }

  get last(): number | null {
    return this.#last
  }

  /** `reset`: forward it; ids were restarted, so the quotes before it were wrongly taken for repeats. */
  observe(updateId: number): 'forward' | 'duplicate' | 'reset' {
    if (this.#last !== null && updateId <= this.#last) {
      const at = this.#placeOf(updateId)
      if (this.#recent[at] === updateId) return 'duplicate'
      if (at === 0) return this.#countsAnew(updateId) ? 'reset' : 'duplicate'
      this.#recent.splice(at, 0, updateId)
      return 'forward'
    }
    this.#below = 0
    this.#last = updateId
    this.#remember(updateId)
    return 'forward'
  }

  /** Forgets ids from before the previous call. Call it every minute. */
  forgetOld(): void {
    const old = this.#lastBefore === null ? 0 : this.#placeOf(this.#lastBefore + 1)
    const spared = Math.min(old, this.#recent.length - REMEMBERED_LEAST)
    if (spared > 0) this.#recent = this.#recent.slice(spared)
    this.#lastBefore = this.#last
  }

  /** Returns the index of an id, or where to insert it; 0 if it is older than all remembered ids. */
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
