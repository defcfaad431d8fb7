import type { Anchor, AnchorKey, BookDiff } from './book-rows.ts'
import { type Comparison, compareBooks, type LevelDifference } from './compare-books.ts'
import { type Level, OrderBook, SIDE_NAMES, type SideName } from './order-book.ts'
import { unitsAt } from './scaled-units.ts'

/** A quote as the exchange sent it. An empty side has price and quantity 0. */
export interface Quote {
  readonly updateId: number
  readonly bidPrice: string
  readonly bidQuantity: string
  readonly askPrice: string
  readonly askQuantity: string
}

export type Top = Omit<Quote, 'updateId'>

/** Something that a true recording of a true book does not show. */
export type BookFinding =
  /** The top of the book after a diff is not the last quote: a quote or diff is missing, or one is altered. */
  | {
      readonly kind: 'top'
      readonly updateId: number
      readonly eventTimeUs: number
      readonly book: Top
      readonly quote: Quote
    }
  | { readonly kind: 'crossed'; readonly updateId: number; readonly eventTimeUs: number }
  | {
      readonly kind: 'falling time'
      readonly updateId: number
      readonly eventTimeUs: number
      readonly beforeUs: number
    }
  /** The rebuilt book differs from a snapshot: a diff between this and the snapshot before is altered. */
  | ({ readonly kind: 'level'; readonly lastUpdateId: number } & LevelDifference)
  /** A keyframe differs from the rebuilt book in a level, or its price is `horizon`: books read from it are wrong. */
  | ({ readonly kind: 'keyframe'; readonly lastUpdateId: number } & LevelDifference)

/** What was checked, and what could not be. */
export interface BookCheckCounts {
  readonly diffs: number
  /** Diffs after which the top was compared with a quote. */
  readonly comparedTops: number
  /** Diffs without a known top: after a hole, before an anchor, or outside the horizon. */
  readonly unknownTops: number
  readonly quotes: number
  /**
   * Quotes whose absence would have been found: each is the last up to the end of a diff, and differs from the
   * quote before. A count of missing quotes is a lower bound; this count to `quotes` is the detectable share.
   */
  readonly detectableQuotes: number
  readonly comparedAnchors: number
  /** Anchors before which the book was not known: there was nothing to compare. */
  readonly firstAnchors: number
  /** Anchors that no diff continues. */
  readonly unusableAnchors: number
  readonly comparedLevels: number
  readonly comparedKeyframes: number
  /** Keyframes at whose id the book was not known, or no diff ends. */
  readonly unknownKeyframes: number
}

/** What was counted since `before`. */
export function countsSince(counts: BookCheckCounts, before: BookCheckCounts): BookCheckCounts {
  return {
    diffs: counts.diffs - before.diffs,
    comparedTops: counts.comparedTops - before.comparedTops,
    unknownTops: counts.unknownTops - before.unknownTops,
    quotes: counts.quotes - before.quotes,
    detectableQuotes: counts.detectableQuotes - before.detectableQuotes,
    comparedAnchors: counts.comparedAnchors - before.comparedAnchors,
    firstAnchors: counts.firstAnchors - before.firstAnchors,
    unusableAnchors: counts.unusableAnchors - before.unusableAnchors,
    comparedLevels: counts.comparedLevels - before.comparedLevels,
    comparedKeyframes: counts.comparedKeyframes - before.comparedKeyframes,
    unknownKeyframes: counts.unknownKeyframes - before.unknownKeyframes,
  }
}

const NO_FINDINGS: readonly BookFinding[] = []

/** How a quote shows an empty side. */
const NO_LEVEL: Level = { price: '0', quantity: '0' }

const PRICE_OF = { bids: 'bidPrice', asks: 'askPrice' } as const
const QUANTITY_OF = { bids: 'bidQuantity', asks: 'askQuantity' } as const

/**
 * Checks the recording of one symbol and epoch as a stream. Quotes and diffs count with one counter of update
 * ids, so after each diff the top of the book is the last quote up to its last id.
 *
 * Everything comes in the order of its last update id; at the same id first quotes, then anchors, then diffs,
 * the one with the lower first id first. Anchors are snapshots of the exchange: keyframes are no evidence.
 */
export class BookCheck {
  #book = new OrderBook()
  /** Begins from the next anchor, to be compared with the book; then it is the book. */
  #anchored = new OrderBook()
  readonly #pending: Anchor[] = []
  readonly #keyframes: Anchor[] = []
  /** The anchor that the book began from. A symbol at rest may have several snapshots of one id. */
  #anchor: AnchorKey | null = null
  /** Diffs no longer continue the book. */
  #isApart = true
  #quote: Quote | null = null
  /** Whether the last quote's absence would be found at the next diff. */
  #isDetectable = false
  #eventTimeUs = 0
  #lastUpdateId = -1
  /** The last top that was reported, with the quote: it stays wrong until one of them changes. */
  #reported = ''
  #isTopWrong = false
  #isCrossed = false
  readonly #counts = {
    diffs: 0,
    comparedTops: 0,
    unknownTops: 0,
    quotes: 0,
    detectableQuotes: 0,
    comparedAnchors: 0,
    firstAnchors: 0,
    unusableAnchors: 0,
    comparedLevels: 0,
    comparedKeyframes: 0,
    unknownKeyframes: 0,
  }

  get counts(): BookCheckCounts {
    return this.#counts
  }

  /** Whether the top after the last diff differs from the quote. It may have been reported with an earlier diff. */
  get isTopWrong(): boolean {
    return this.#isTopWrong
  }

  quote(quote: Quote): void {
    this.#counts.quotes++
    this.#isDetectable = this.#quote !== null && !isSameTop(this.#quote, quote)
    this.#quote = quote
  }

  /** Quotes are known to be missing up to here: nothing is compared until the next one. */
  forgetQuote(): void {
    this.#quote = null
    this.#isDetectable = false
  }

  anchor(anchor: Anchor): void {
    this.#pending.push(anchor)
  }

  /** A derived anchor: it is compared with the book, which then continues without it. */
  keyframe(keyframe: Anchor): void {
    this.#keyframes.push(keyframe)
  }

  diff(diff: BookDiff): readonly BookFinding[] {
    this.#counts.diffs++
    this.#isTopWrong = false
    const findings: BookFinding[] = []
    const { lastUpdateId: updateId, eventTimeUs } = diff
    // Two connections may have cut the same updates at different times.
    if (eventTimeUs < this.#eventTimeUs && updateId > this.#lastUpdateId)
      findings.push({ kind: 'falling time', updateId, eventTimeUs, beforeUs: this.#eventTimeUs })
    this.#eventTimeUs = eventTimeUs
    this.#lastUpdateId = updateId
    const applied = this.#book.apply(diff)
    this.#isApart = applied === 'hole' || applied === 'no anchor'
    for (const keyframe of this.#keyframes) findings.push(...this.#compareKeyframe(keyframe))
    this.#keyframes.length = 0
    for (const anchor of this.#pending) findings.push(...this.#begin(anchor, diff))
    this.#pending.length = 0
    if (this.#isApart) {
      this.#counts.unknownTops++
      return findings.length === 0 ? NO_FINDINGS : findings
    }
    const { isCrossed } = this.#book
    if (isCrossed && !this.#isCrossed) findings.push({ kind: 'crossed', updateId, eventTimeUs })
    this.#isCrossed = isCrossed
    const top = this.#compareTop(updateId, eventTimeUs)
    if (top !== null) findings.push(top)
    return findings.length === 0 ? NO_FINDINGS : findings
  }

  /** Compares the book with an anchor after the diff that contains its last id, and continues from the anchor. */
  #begin(anchor: Anchor, diff: BookDiff): BookFinding[] {
    const anchored = this.#anchored
    anchored.reset(anchor)
    const applied = anchored.apply(diff)
    if (applied === 'hole') {
      this.#counts.unusableAnchors++
      return []
    }
    let comparison: Comparison | null = null
    if (this.#isApart) this.#counts.firstAnchors++
    else {
      comparison = compareBooks(this.#book, anchored, applied === 'applied' ? diff : null)
      this.#counts.comparedAnchors++
      this.#counts.comparedLevels += comparison.compared
    }
    this.#anchored = this.#book
    this.#book = anchored
    this.#isApart = false
    const { lastUpdateId } = anchor
    this.#anchor = anchor
    return (comparison?.differences ?? []).map((one) => ({ kind: 'level', lastUpdateId, ...one }))
  }

  #compareKeyframe(keyframe: Anchor): BookFinding[] {
    const { epoch, lastUpdateId } = keyframe
    if (this.#isApart || this.#book.epoch !== epoch || this.#book.updateId !== lastUpdateId) {
      this.#counts.unknownKeyframes++
      return []
    }
    this.#counts.comparedKeyframes++
    this.#anchored.reset(keyframe)
    const { differences } = compareBooks(this.#book, this.#anchored, null)
    const isOfAnchor =
      keyframe.derivedFrom?.lastUpdateId === this.#anchor?.lastUpdateId &&
      keyframe.derivedFrom?.receivedUs === this.#anchor?.receivedUs
    const all = isOfAnchor ? [...differences, ...this.#horizonDifferences()] : differences
    return all.map((one) => ({ kind: 'keyframe', lastUpdateId, ...one }))
  }

  /**
   * If two books began from one anchor, the keyframe must not be exact to more. To less it may: a diff that
   * arrived after it was made can show a better price in between.
   */
  #horizonDifferences(): LevelDifference[] {
    return SIDE_NAMES.flatMap((side) => {
      const rebuilt = this.#book.horizon(side) ?? 'none'
      const anchored = this.#anchored.horizon(side) ?? 'none'
      // Both have the same scale after the comparison of their levels.
      const isMore = reaches(side, this.#anchored[side].horizon) > reaches(side, this.#book[side].horizon)
      return isMore ? [{ side, price: 'horizon', rebuilt, anchored }] : []
    })
  }

  #compareTop(updateId: number, eventTimeUs: number): BookFinding | null {
    const quote = this.#quote
    const isKnown = this.#book.bids.isKnown && this.#book.asks.isKnown
    if (!isKnown) this.#counts.unknownTops++
    if (!isKnown || quote === null) return null
    this.#counts.comparedTops++
    if (SIDE_NAMES.every((side) => this.#isTop(side, quote))) {
      if (this.#isDetectable) this.#counts.detectableQuotes++
      this.#isDetectable = false
      return null
    }
    this.#isTopWrong = true
    const book = this.#top()
    const reported = JSON.stringify([quote.updateId, book])
    if (reported === this.#reported) return null
    this.#reported = reported
    return { kind: 'top', updateId, eventTimeUs, book, quote }
  }

  #top(): Top {
    const [bid, ask] = SIDE_NAMES.map((name) => {
      const best = this.#book.best(name)
      return best === null || best === 'unknown' ? NO_LEVEL : best
    })
    const { price: bidPrice, quantity: bidQuantity } = bid ?? NO_LEVEL
    const { price: askPrice, quantity: askQuantity } = ask ?? NO_LEVEL
    return { bidPrice, bidQuantity, askPrice, askQuantity }
  }

  #isTop(name: SideName, quote: Quote): boolean {
    const side = this.#book[name]
    const index = side.bestIndex
    return (
      unitsAt(quote[PRICE_OF[name]], this.#book.priceScale) === (index < 0 ? 0 : side.priceAt(index)) &&
      unitsAt(quote[QUANTITY_OF[name]], this.#book.quantityScale) === (index < 0 ? 0 : side.quantityAt(index))
    )
  }
}

/** Returns a larger number for a side that is exact to more. @param horizon null: complete */
function reaches(side: SideName, horizon: number | null): number {
  return horizon === null ? Number.POSITIVE_INFINITY : side === 'bids' ? -horizon : horizon
}

function isSameTop(one: Top, other: Top): boolean {
  return (
    one.bidPrice === other.bidPrice &&
    one.bidQuantity === other.bidQuantity &&
    one.askPrice === other.askPrice &&
    one.askQuantity === other.askQuantity
  )
}
