import { isoOfUs } from '../../foundation/market/time-unit.ts'
import {
  BookCheck,
  type BookCheckCounts,
  countsSince,
  type Quote,
} from '../../foundation/order-book/book-check.ts'
import type { Anchor } from '../../foundation/order-book/book-rows.ts'
import { BookFindings, uncheckedOf } from './book-findings.ts'
import { type DepthPart, type DepthRows, type StoredAnchor, usOf } from './depth-rows.ts'
import type { Remark } from './findings.ts'
import type { Moments } from './quote-outages.ts'
import type { BookReport } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'
import type { Sequence } from './sequences.ts'

/** A quote arrives so long before or after the changes with ids next to it. */
const BESIDE_US = 60_000_000

/** The book of a range begins from a snapshot up to so long before it. */
export const LOOK_BACK_MS = 24 * 3_600_000

/** A snapshot may be so much older than its receipt. */
const LAG_MS = 60_000

/**
 * Cuts the changes of a book into parts, and tells where each one ends. Changes that end with the same id
 * are in one part.
 */
const PARTS = `SELECT max(last_update_id)::float8 AS "upToId", ${usOf('min(event_time)')} AS "fromUs", ${usOf('max(event_time)')} AS "toUs",
    ${usOf('min(ingestion_timestamp)')} AS "firstReceivedUs", ${usOf('max(ingestion_timestamp)')} AS "lastReceivedUs", count(*)::float8 AS diffs
  FROM (SELECT last_update_id, event_time, ingestion_timestamp, rank() OVER (ORDER BY last_update_id) AS place
    FROM depth_updates WHERE symbol = $1 AND epoch = $2 AND event_time >= $3::timestamptz AND event_time < $4::timestamptz) AS placed
  GROUP BY floor((place - 1) / $5::float8) ORDER BY 1`

interface Part extends Pick<DepthPart, 'upToId' | 'fromUs' | 'toUs'> {
  readonly firstReceivedUs: number
  readonly lastReceivedUs: number
  readonly diffs: number
}

const ANCHORS = `SELECT symbol, epoch, last_update_id::float8 AS "lastUpdateId", kind = 'derived' AS "isDerived", ${usOf('ingestion_timestamp')} AS "receivedUs"
  FROM depth_snapshots WHERE symbol = $1 AND epoch = $2 AND ingestion_timestamp >= $3::timestamptz AND ingestion_timestamp < $4::timestamptz
  ORDER BY last_update_id, kind, ingestion_timestamp`

/** The newest snapshot before the range: a book that begins with it is known from the start of the range. */
const ANCHOR_BEFORE = `SELECT ${usOf('max(ingestion_timestamp)')} AS us FROM depth_snapshots
  WHERE symbol = $1 AND epoch = $2 AND kind = 'rest' AND ingestion_timestamp >= $3::timestamptz AND ingestion_timestamp < $4::timestamptz`

/** Ids of quotes begin again, so the receipt has to fit as well. */
const QUOTES = `SELECT update_id::float8 AS "updateId", bid_price::text AS "bidPrice", bid_quantity::text AS "bidQuantity",
    ask_price::text AS "askPrice", ask_quantity::text AS "askQuantity"
  FROM book_ticker WHERE symbol = $1 AND ingestion_timestamp >= $2::timestamptz AND ingestion_timestamp <= $3::timestamptz
    AND update_id > $4 AND update_id <= $5 ORDER BY update_id, ingestion_timestamp`

export interface BooksInput {
  readonly rows: DepthRows
  /** The sequences of changes, without those of other types. */
  readonly sequences: readonly Sequence[]
  /** When quotes of a symbol are missing for a known reason, by receipt. */
  outagesOf(symbol: string): Promise<Moments>
  /** The update ids of quotes of a symbol that are dead letters, in order. */
  lettersOf(symbol: string): readonly number[]
  /** @param symbol whose changes are read, and how many of all */
  onProgress(symbol: string, diffs: number, all: number): void
}

/** Rebuilds every stored book, and compares it with its snapshots, keyframes and quotes. */
export async function checkBooks(
  context: CheckContext,
  { rows, sequences, outagesOf, lettersOf, onProgress }: BooksInput,
): Promise<{ books: BookReport[]; remarks: Remark[] }> {
  const books: BookReport[] = []
  const remarks: Remark[] = []
  const all = sequences.reduce((sum, one) => sum + one.rows, 0)
  let before = 0
  for (const { symbol, epoch, rows: own } of sequences) {
    const book = new StoredBook(context, rows, symbol, epoch, {
      outages: await outagesOf(symbol),
      letters: lettersOf(symbol),
    })
    await book.check((diffs) => onProgress(symbol, before + diffs, all))
    before += own
    const counts = book.counts
    books.push({
      ...{ symbol, epoch, changes: own },
      comparedTops: counts.comparedTops,
      unknownTops: counts.unknownTops,
      quotes: counts.quotes,
      detectableQuotes: counts.detectableQuotes,
      comparedSnapshots: counts.comparedAnchors,
      comparedLevels: counts.comparedLevels,
      comparedKeyframes: counts.comparedKeyframes,
    })
    remarks.push(...book.findings.remarks({ symbol, epoch }, counts), ...uncheckedOf(symbol, counts))
  }
  return { books, remarks }
}

/** Quotes that are known to be missing. */
interface MissingQuotes {
  readonly outages: Moments
  readonly letters: readonly number[]
}

/** The book of one symbol and epoch. What lies before the range is read, but not reported. */
class StoredBook {
  readonly findings: BookFindings
  readonly #check = new BookCheck()
  readonly #context: CheckContext
  readonly #rows: DepthRows
  readonly #symbol: string
  readonly #epoch: number
  readonly #missing: MissingQuotes
  #quotes: readonly Quote[] = []
  #quote = 0
  #lastQuoteId = -1
  #letter = 0
  /** Those that are not read yet. */
  #anchorKeys: readonly StoredAnchor[] = []
  #anchors: ReadonlyArray<{ readonly anchor: Anchor; readonly isDerived: boolean }> = []
  #anchor = 0
  /** What was counted before the range; null until the range begins. */
  #before: BookCheckCounts | null = null

  constructor(context: CheckContext, rows: DepthRows, symbol: string, epoch: number, missing: MissingQuotes) {
    this.#context = context
    this.#rows = rows
    this.#symbol = symbol
    this.#epoch = epoch
    this.#missing = missing
    this.findings = new BookFindings(context.limit)
  }

  get counts(): BookCheckCounts {
    const { counts } = this.#check
    return this.#before === null ? counts : countsSince(counts, this.#before)
  }

  async check(onProgress: (diffs: number) => void): Promise<void> {
    const { connection } = this.#context
    const range = await this.#range()
    const values = [this.#symbol, this.#epoch, ...range]
    const parts = (await connection.query<Part>(PARTS, [...values, this.#rows.partChanges])).rows
    const anchors = (await connection.query<StoredAnchor>(ANCHORS, values)).rows
    this.#anchorKeys = [...anchors, ...(await this.#keyframesBeside(range))].sort(
      (one, other) => one.lastUpdateId - other.lastUpdateId,
    )
    let afterId = -1
    let diffs = 0
    for (const [i, part] of parts.entries()) {
      await this.#readAnchors(part.upToId)
      await this.#readQuotes(afterId, part, parts[i - 1] ?? part, parts[i + 1] ?? part)
      await this.#checkPart({ symbol: this.#symbol, epoch: this.#epoch, afterId, ...part })
      afterId = part.upToId
      diffs += part.diffs
      onProgress(diffs)
    }
    this.findings.end()
  }

  /** The keyframes of a store that has them beside its rows. */
  async #keyframesBeside([from, to]: readonly [from: string, to: string]): Promise<StoredAnchor[]> {
    const keyframes = (await this.#rows.keyframes?.(this.#symbol, this.#epoch)) ?? []
    // Infinite times are no numbers, and leave nothing out.
    const [fromUs, toUs] = [Date.parse(from) * 1000, Date.parse(to) * 1000]
    return keyframes.filter(({ receivedUs }) => !(receivedUs < fromUs || receivedUs >= toUs))
  }

  /** Returns the times to read: the range, and before it as much as the first book needs. */
  async #range(): Promise<[from: string, to: string]> {
    const { connection, scope } = this.#context
    const [from, to] = timeBounds(scope)
    if (scope.fromMs === null) return [from, to]
    const values = [this.#symbol, this.#epoch, ...timeBounds({ ...scope, toMs: scope.fromMs }, 0)]
    values[2] = new Date(scope.fromMs - LOOK_BACK_MS).toISOString()
    const [row] = (await connection.query<{ us: number | null }>(ANCHOR_BEFORE, values)).rows
    const us = row?.us ?? null
    return [us === null ? from : new Date(us / 1000 - LAG_MS).toISOString(), to]
  }

  /** Reads the quotes with the ids of a part. The clock may have been set between it and the parts beside it. */
  async #readQuotes(afterId: number, part: Part, before: Part, after: Part): Promise<void> {
    const { upToId, firstReceivedUs, lastReceivedUs } = part
    const times = [firstReceivedUs, lastReceivedUs, before.lastReceivedUs, after.firstReceivedUs]
    const fromUs = Math.min(...times) - BESIDE_US
    const toUs = Math.max(...times) + BESIDE_US
    const values = [this.#symbol, isoOfUs(fromUs), isoOfUs(toUs), afterId, upToId]
    this.#quotes = (await this.#context.connection.query<Quote>(QUOTES, values)).rows
    this.#quote = 0
  }

  async #checkPart(part: DepthPart): Promise<void> {
    const check = this.#check
    const fromUs = (this.#context.scope.fromMs ?? Number.NEGATIVE_INFINITY) * 1000
    for await (const batch of this.#rows.diffs(part))
      for (const diff of batch) {
        const isReported = diff.eventTimeUs >= fromUs
        if (isReported) this.#before ??= { ...check.counts }
        this.#giveQuotes(diff.lastUpdateId)
        this.#giveAnchors(diff.lastUpdateId)
        if (this.#missing.outages.has(diff.receivedUs)) check.forgetQuote()
        const found = check.diff(diff)
        if (isReported) this.findings.add(found, diff, check.isTopWrong)
      }
  }

  #giveQuotes(upToId: number): void {
    for (; ; this.#quote++) {
      const quote = this.#quotes[this.#quote]
      if (quote === undefined || quote.updateId > upToId) break
      this.#giveLetters(quote.updateId)
      // One that is stored twice is another check's finding.
      if (quote.updateId > this.#lastQuoteId) this.#check.quote(quote)
      this.#lastQuoteId = quote.updateId
    }
    this.#giveLetters(upToId)
  }

  /** Between a quote that is a dead letter and the next quote, nothing is compared. */
  #giveLetters(upToId: number): void {
    const { letters } = this.#missing
    for (; (letters[this.#letter] ?? Number.POSITIVE_INFINITY) <= upToId; this.#letter++)
      this.#check.forgetQuote()
  }

  async #readAnchors(upToId: number): Promise<void> {
    const keys = this.#anchorKeys.filter(({ lastUpdateId }) => lastUpdateId <= upToId)
    this.#anchorKeys = this.#anchorKeys.slice(keys.length)
    const anchors = this.#anchors.slice(this.#anchor)
    for (const key of keys) {
      const anchor = await this.#rows.anchor(key)
      if (anchor !== null) anchors.push({ anchor, isDerived: key.isDerived })
    }
    this.#anchors = anchors
    this.#anchor = 0
  }

  #giveAnchors(upToId: number): void {
    for (; ; this.#anchor++) {
      const next = this.#anchors[this.#anchor]
      if (next === undefined || next.anchor.lastUpdateId > upToId) return
      if (next.isDerived) this.#check.keyframe(next.anchor)
      else this.#check.anchor(next.anchor)
    }
  }
}
