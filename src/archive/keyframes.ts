import { ArchiveSnapshot } from '../foundation/archive/archive-snapshot.ts'
import { ArchivedBooks } from '../foundation/archive/archived-books.ts'
import { keyframesOf, storeKeyframe } from '../foundation/archive/archived-keyframes.ts'
import type { DuckDb } from '../foundation/archive/duckdb.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { ARCHIVE_TABLES } from '../foundation/archive/tables.ts'
import { bookAt } from '../foundation/order-book/book-at.ts'
import type { Anchor } from '../foundation/order-book/book-rows.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import { plural } from '../foundation/telemetry/plural.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** From one keyframe to the next: some 36,000 diffs of a busy symbol, which are read within a second. */
const EVERY_MS = HOUR_MS
/** Older books than this, before the newest diff, get none. */
const CATCH_UP_MS = 6 * HOUR_MS
/** A symbol whose last snapshot is older is not recorded any more. */
const DAYS = 8
/** The exchange's clock may be ahead. */
const AHEAD_MS = HOUR_MS

/**
 * Stores whole order books now and then, which makes reading a book at any time fast. Each is rebuilt from the
 * anchor before it, and only while the update ids have no hole. So a diff that arrives late cannot make a
 * keyframe wrong: it covers ids that other diffs covered, and quantities are absolute. It can only show that
 * more of the book was exact.
 */
export class ArchiveKeyframes {
  readonly #store: ObjectStore
  readonly #duckDb: DuckDb
  readonly #clock: Pick<Clock, 'wallMicros'>
  readonly #everyUs: number
  /** The event time up to which a symbol has its keyframes, in microseconds since the Unix epoch. */
  readonly #doneUs = new Map<string, number>()
  /** Keyframes that this process has stored. */
  made = 0

  /** @param everyMs event time between keyframes */
  constructor(
    store: ObjectStore,
    duckDb: DuckDb,
    clock: Pick<Clock, 'wallMicros'>,
    everyMs: number = EVERY_MS,
  ) {
    this.#store = store
    this.#duckDb = duckDb
    this.#clock = clock
    this.#everyUs = everyMs * 1000
  }

  /**
   * Stores all keyframes that are due.
   *
   * @throws after the other symbols what failed for some; an error of the store at once
   */
  async round(signal: AbortSignal): Promise<void> {
    await using snapshot = await ArchiveSnapshot.take(this.#store)
    const failures: unknown[] = []
    for (const [symbol, sinceUs] of await this.#symbols(snapshot)) {
      signal.throwIfAborted()
      try {
        await this.#ofSymbol(snapshot, symbol, sinceUs, signal)
      } catch (error) {
        if (signal.aborted || isTapelineError(error, 'STORE')) throw error
        // The others get theirs.
        failures.push(new Error(`${symbol}: ${describeError(error)}`, { cause: error }))
      }
    }
    const [cause] = failures
    if (cause === undefined) return
    // One of them for the log: compaction may have removed the files of all.
    throw new Error(`Books of ${plural(failures.length, 'symbol')} cannot be rebuilt`, { cause })
  }

  /** Returns when the first snapshot of the last days can have arrived, in microseconds, by symbol. */
  async #symbols(snapshot: ArchiveSnapshot): Promise<Map<string, number>> {
    const table = ARCHIVE_TABLES.depthSnapshot.name
    const sinceUs = new Map<string, number>()
    for (const date of (await snapshot.dates(table)).slice(-DAYS).reverse()) {
      const { list, pending } = await snapshot.day(table, date)
      const fromMs = Date.parse(date)
      for (const symbol of Object.keys(list?.symbols ?? {})) sinceUs.set(symbol, fromMs * 1000)
      if (pending.length === 0) continue
      const rows = await snapshot.relation(table, { symbols: null, fromMs, toMs: fromMs + DAY_MS })
      const found = await this.#duckDb.rows<{ symbol: string; us: number }>(
        `SELECT symbol, min(epoch_us(ingestion_timestamp))::DOUBLE AS us FROM (${rows}) GROUP BY symbol`,
      )
      for (const { symbol, us } of found) sinceUs.set(symbol, us)
    }
    return sinceUs
  }

  async #ofSymbol(
    snapshot: ArchiveSnapshot,
    symbol: string,
    sinceUs: number,
    signal: AbortSignal,
  ): Promise<void> {
    const nowUs = this.#clock.wallMicros()
    const doneUs = this.#doneUs.get(symbol) ?? (await this.#newestUs(symbol))
    if (doneUs + this.#everyUs > nowUs) return
    const newest = await this.#books(snapshot, symbol).diffsAround({
      kind: 'event time',
      us: nowUs + AHEAD_MS * 1000,
    })
    if (newest.last === null) return
    const endUs = newest.last.eventTimeUs
    const fromUs = Math.max(doneUs + this.#everyUs, endUs - CATCH_UP_MS * 1000, sinceUs)
    for (let us = fromUs; us <= endUs; us += this.#everyUs) {
      signal.throwIfAborted()
      await this.#make(snapshot, symbol, us)
      this.#doneUs.set(symbol, us)
    }
  }

  async #newestUs(symbol: string): Promise<number> {
    return (await keyframesOf(this.#store, symbol)).at(-1)?.eventTimeUs ?? 0
  }

  async #make(snapshot: ArchiveSnapshot, symbol: string, us: number): Promise<void> {
    const kept: Anchor[] = []
    const book = await bookAt(this.#books(snapshot, symbol), { kind: 'event time', us }, 0, (keyframe) =>
      kept.push(keyframe),
    )
    const [keyframe] = kept
    if (book.kind === 'refused' || keyframe === undefined) return
    // No diff came after the anchor.
    if (keyframe.lastUpdateId === book.anchor.lastUpdateId) return
    await storeKeyframe(this.#store, symbol, keyframe, book.at.eventTimeUs)
    this.made++
  }

  #books(snapshot: ArchiveSnapshot, symbol: string): ArchivedBooks {
    return new ArchivedBooks(this.#duckDb, snapshot, symbol)
  }
}
