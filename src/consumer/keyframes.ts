import { continuity } from '../foundation/order-book/book-rows.ts'
import { OrderBook } from '../foundation/order-book/order-book.ts'
import { repeat } from '../foundation/runtime/backoff.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import type { Database, Queryable } from '../foundation/store/database.ts'
import {
  type AnchorPlace,
  anchorsFrom,
  diffsAfter,
  hasDiffs,
  insertKeyframe,
  newestKeyframe,
  readAnchor,
  symbolsWithSnapshots,
} from '../foundation/store/depth-rows.ts'
import type { Logger } from '../foundation/telemetry/log.ts'

/**
 * Diffs from one keyframe to the next: some eight minutes of a busy symbol. `book_at` reads them in less than
 * two seconds; `tapeline book` would need fewer keyframes.
 */
const DIFFS = 5000

const EVERY_MS = 60_000

/** Diffs that are read at once. */
const PORTION = 1000

/** After so many diffs that do not continue the book none will: see `bookAt`. */
const MOST_APART = 1000

/** An arbitrary constant, like that of chunk maintenance. */
const LOCK = 'SELECT pg_try_advisory_xact_lock(7453913) AS taken'

/** Where the work on a symbol continues: at the first anchor from here on. */
interface Cursor extends AnchorPlace {
  /** The diffs after this anchor end at a hole: nothing to do before the next anchor. */
  readonly isEnded: boolean
}

/** `made`: a keyframe; `moved`: to the next anchor; `idle`: until more is stored; `busy`: another consumer does it. */
type Step = 'made' | 'moved' | 'idle' | 'busy'

/**
 * Stores whole order books every so many diffs, which makes reading a book at any time fast. Each is rebuilt
 * from the anchor before it, and only while the update ids have no hole. So a diff that arrives late cannot
 * make a keyframe wrong: it covers ids that other diffs covered, and quantities are absolute.
 *
 * Every consumer tries; the database allows one at a time. Each step is a short transaction about one anchor
 * of one symbol, holds one book in memory, and can be repeated. Nothing else depends on it.
 */
export class Keyframes {
  readonly #database: Database
  readonly #log: Logger
  readonly #stopping = new AbortController()
  readonly #cursors = new Map<string, Cursor>()
  readonly #diffs: number
  #made = 0

  /** @param diffs between keyframes */
  constructor(database: Database, log: Logger, diffs = DIFFS) {
    this.#database = database
    this.#log = log
    this.#diffs = diffs
  }

  /** Keyframes that this process has stored. */
  get made(): number {
    return this.#made
  }

  start(clock: Clock): void {
    const work = async () => {
      try {
        await this.round()
      } catch (error) {
        if (!this.#stopping.signal.aborted)
          this.#log.warn({ err: error }, `Storing keyframes failed, retrying later: ${describeError(error)}`)
      }
      return EVERY_MS
    }
    void repeat(work, this.#stopping.signal, clock)
  }

  /** Cancels the running statement, which the database then rolls back. */
  stop(): void {
    this.#stopping.abort()
  }

  /** Stores all keyframes that are due. */
  async round(): Promise<void> {
    const { signal } = this.#stopping
    const symbols = await this.#database.transaction(symbolsWithSnapshots, { signal })
    const present = new Set(symbols)
    for (const symbol of this.#cursors.keys()) if (!present.has(symbol)) this.#cursors.delete(symbol)
    for (const symbol of symbols) {
      for (let step: Step = 'moved'; step === 'moved' || step === 'made'; ) {
        step = await this.#database.transaction((on) => this.#step(on, symbol), { signal })
        if (step === 'busy') return
        if (step === 'made') this.#made++
      }
    }
  }

  async #step(on: Queryable, symbol: string): Promise<Step> {
    const { rows } = await on.query<{ taken: boolean }>(LOCK)
    if (rows[0]?.taken !== true) return 'busy'
    const cursor = this.#cursors.get(symbol) ??
      (await newestKeyframe(on, symbol)) ?? { epoch: 0, lastUpdateId: 0 }
    const [place, next] = await anchorsFrom(on, symbol, cursor)
    if (place === undefined) return 'idle'
    const isEnded = 'isEnded' in cursor && cursor.isEnded && isSame(cursor, place)
    const outcome = isEnded ? 'ended' : await this.#fromAnchor(on, symbol, place, next)
    if (typeof outcome === 'object') {
      this.#cursors.set(symbol, { ...outcome, isEnded: false })
      return 'made'
    }
    this.#cursors.set(symbol, { ...(next ?? place), isEnded: next === undefined && outcome === 'ended' })
    return next === undefined ? 'idle' : 'moved'
  }

  /** @returns the place of a new keyframe; `few` diffs are stored; or `ended`: ids are missing before it */
  async #fromAnchor(
    on: Queryable,
    symbol: string,
    place: AnchorPlace,
    next: AnchorPlace | undefined,
  ): Promise<AnchorPlace | 'few' | 'ended'> {
    const anchor = await readAnchor(on, symbol, place)
    if (anchor === null) return 'few'
    const below = next?.epoch === place.epoch ? next.lastUpdateId : null
    if (!(await hasDiffs(on, symbol, place, anchor.receivedUs, below, this.#diffs))) return 'few'
    const book = new OrderBook()
    book.reset(anchor)
    let [applied, apart] = [0, 0]
    for await (const diff of diffsAfter(on, symbol, place, anchor.receivedUs, PORTION)) {
      if (below !== null && diff.lastUpdateId >= below) return 'few'
      if (continuity(place.epoch, book.updateId, diff) === 'hole') {
        if (++apart === MOST_APART) return 'ended'
        continue
      }
      book.apply(diff)
      apart = 0
      if (++applied < this.#diffs) continue
      const { epoch, lastUpdateId, receivedUs } = anchor
      const derivedFrom = anchor.derivedFrom ?? { epoch, lastUpdateId, receivedUs }
      const keyframe = { ...book.state(), receivedUs: diff.receivedUs, derivedFrom }
      await insertKeyframe(on, symbol, keyframe, diff.eventTimeUs)
      return { epoch, lastUpdateId: book.updateId }
    }
    return apart > 0 ? 'ended' : 'few'
  }
}

function isSame(one: AnchorPlace, other: AnchorPlace): boolean {
  return one.epoch === other.epoch && one.lastUpdateId === other.lastUpdateId
}
