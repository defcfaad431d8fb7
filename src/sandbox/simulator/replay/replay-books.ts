import { z } from 'zod'
import type { BookHistory, BookMoment, BookSnapshot } from '../market/book-history.ts'

const levels = z.array(z.tuple([z.string(), z.string()]))
const SNAPSHOT = z.object({ lastUpdateId: z.int(), bids: levels, asks: levels })
const DIFF = z.object({
  e: z.literal('depthUpdate'),
  s: z.string(),
  U: z.int(),
  u: z.int(),
  b: levels,
  a: levels,
})

/** Returns the book that a line of a capture contains; null if it contains something else. */
export function snapshotIn(frame: object): BookSnapshot | null {
  return 'lastUpdateId' in frame ? (SNAPSHOT.safeParse(frame).data ?? null) : null
}

/**
 * The order book of a replay: a snapshot of its capture, with the diffs that have been sent. Only the present book is
 * known. Until the replay has passed the snapshot, it is the book of the snapshot.
 */
export class ReplayBooks implements BookHistory {
  readonly #symbol: string
  readonly #bids: Map<string, string>
  readonly #asks: Map<string, string>
  #lastUpdateId: number
  /** The first missing update; null if none is. */
  #missing: number | null = null

  constructor(symbol: string, { lastUpdateId, bids, asks }: BookSnapshot) {
    this.#symbol = symbol
    this.#lastUpdateId = lastUpdateId
    this.#bids = new Map(bids)
    this.#asks = new Map(asks)
  }

  /** Applies the `data` of a frame, if it is a later diff of the book. */
  add(data: unknown): void {
    const diff = DIFF.safeParse(data).data
    if (diff?.s !== this.#symbol || diff.u <= this.#lastUpdateId || this.#missing !== null) return
    if (diff.U > this.#lastUpdateId + 1) {
      this.#missing = this.#lastUpdateId + 1
      return
    }
    this.#lastUpdateId = diff.u
    applyLevels(this.#bids, diff.b)
    applyLevels(this.#asks, diff.a)
  }

  book(symbol: string, moment: BookMoment, most: number): BookSnapshot {
    if (symbol !== this.#symbol) throw new RangeError(`The capture has no snapshot of ${symbol}`)
    if (this.#missing !== null) throw new RangeError(`The capture lacks update ${this.#missing} of ${symbol}`)
    if ('updateId' in moment && moment.updateId !== this.#lastUpdateId)
      throw new RangeError(`A replay knows only its present book, after update ${this.#lastUpdateId}`)
    const asks = [...this.#asks].sort(([one], [other]) => Number(one) - Number(other))
    const bids = [...this.#bids].sort(([one], [other]) => Number(other) - Number(one))
    return { lastUpdateId: this.#lastUpdateId, bids: bids.slice(0, most), asks: asks.slice(0, most) }
  }
}

function applyLevels(side: Map<string, string>, changed: ReadonlyArray<readonly [string, string]>): void {
  for (const [price, quantity] of changed) {
    if (Number(quantity) === 0) side.delete(price)
    else side.set(price, quantity)
  }
}
