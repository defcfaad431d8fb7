import { isoOfUs } from '../market/time-unit.ts'
import type { Anchor, AnchorKey, Applied, BookDiff, DiffKey } from './book-rows.ts'
import { type Level, OrderBook, SIDE_NAMES, type SideName } from './order-book.ts'
import { scaledOf } from './scaled-units.ts'

/**
 * An instant by the exchange's event time, by the receipt clock, or by an update id, which joins with quotes.
 * Without an epoch an update id is one of the newest epoch that is stored.
 */
export type Instant =
  | { readonly kind: 'event time'; readonly us: number }
  | { readonly kind: 'receipt'; readonly us: number }
  | { readonly kind: 'update id'; readonly epoch: number | null; readonly updateId: number }

/** Stored anchors and diffs of one symbol, in the database or in the archive. */
export interface BookStore {
  /**
   * The last diff at or before an instant, and the one after it, both in the order of epoch and last update id.
   * Without a last one, the next is the first that is stored. An update id counts as the last id of a diff.
   */
  diffsAround(instant: Instant): Promise<{ readonly last: DiffKey | null; readonly next: DiffKey | null }>
  /**
   * The newest anchor of an epoch with `lastUpdateId` at or below an id: a snapshot or a keyframe. Among
   * snapshots with the same id it is the one with the most levels.
   *
   * @param except ids of snapshots: neither they nor their keyframes are wanted
   */
  anchorBefore(epoch: number, updateId: number, except: readonly number[]): Promise<Anchor | null>
  /** The first snapshot (not derived) of an epoch with `lastUpdateId` at or above an id. */
  snapshotFrom(epoch: number, updateId: number): Promise<AnchorKey | null>
  /**
   * Diffs of an epoch whose last update id is at or above an id, in batches, in the order of last and then first
   * update id. A diff and its levels are valid until the next one.
   */
  diffsFrom(epoch: number, updateId: number): AsyncIterable<Iterable<BookDiff>>
  /**
   * The book of an anchor with the diffs up to one, or where ids are missing: what {@link diffsFrom} leads to,
   * for a store that finds it faster. Null: it cannot tell.
   */
  bookAfter?(anchor: Anchor, last: DiffKey): Promise<OrderBook | Apart | null>
}

/** What an output says about a side. */
export interface SideAt {
  /** The best first. */
  readonly levels: readonly Level[]
  /** How far the side is exact, in basis points of the middle price; null: it is complete. */
  readonly horizon: { readonly price: string; readonly basisPoints: number | null } | null
  /** Exact single levels outside the horizon, the nearest first; quantity 0: known to be empty. */
  readonly outside: readonly Level[]
}

export interface BookAt {
  readonly kind: 'book'
  /** The last diff that the book contains. */
  readonly at: DiffKey
  /** Whether no later diff is stored: the book may have changed since. */
  readonly isNewest: boolean
  /** Whether the best bid is at or above the best ask. No true book is: a recorded change is wrong (O11). */
  readonly isCrossed: boolean
  readonly anchor: AnchorKey & { readonly derivedFrom: AnchorKey | null }
  /** Receipt of the last diff after that of the snapshot, in microseconds. */
  readonly ageUs: number
  readonly bids: SideAt
  readonly asks: SideAt
}

/** Why there is no book. */
export type BookRefusal = { readonly kind: 'refused' } & (
  | {
      readonly reason: 'nothing recorded'
      /** The first diff after the instant; null if the symbol has none. */
      readonly first: DiffKey | null
    }
  | { readonly reason: 'not recorded yet'; readonly newest: DiffKey }
  | {
      readonly reason: 'no anchor'
      /** A snapshot that cannot be used: the first diff after it begins above `lastUpdateId` + 1. */
      readonly tooOld: AnchorKey | null
      /** The first snapshot with which books are known again. */
      readonly next: AnchorKey | null
    }
  | {
      readonly reason: 'hole'
      /** Event times of the diffs around it. */
      readonly fromUs: number
      readonly toUs: number
      /** Update ids; null if the ids began again. */
      readonly missing: { readonly from: number; readonly to: number } | null
      /** The first snapshot with which books are known again. */
      readonly next: AnchorKey | null
    }
  | {
      readonly reason: 'outside the horizon'
      readonly at: DiffKey
      readonly side: SideName
      readonly horizon: string | null
      readonly anchor: AnchorKey
    }
)

/** Levels of a side in an answer, unless its caller wants fewer. */
const ALL = Number.POSITIVE_INFINITY

/** An older anchor may have more levels, and so a wider horizon, than the newest. */
const MOST_ANCHORS = 3

/** After so many diffs that do not continue the book none will: diffs overlap by less than that. */
const MOST_APART = 1000

/**
 * Rebuilds the book at an instant, or says why it is not known.
 *
 * @param limit levels per side and list
 * @param keep gets the book as a keyframe, from which a later one can be rebuilt
 */
export async function bookAt(
  store: BookStore,
  instant: Instant,
  limit = ALL,
  keep: ((keyframe: Anchor) => void) | null = null,
): Promise<BookAt | BookRefusal> {
  const { last, next } = await store.diffsAround(instant)
  if (last === null) return { kind: 'refused', reason: 'nothing recorded', first: next }
  if (isLater(instant, last)) {
    if (next === null) {
      if (instant.kind === 'update id') return { kind: 'refused', reason: 'not recorded yet', newest: last }
    } else if (next.epoch !== last.epoch) {
      return { ...(await holeBetween(store, last, next)), missing: null }
    } else if (next.firstUpdateId > last.lastUpdateId + 1) return holeBetween(store, last, next)
  }
  let refusal: BookRefusal | null = null
  const tried: number[] = []
  while (tried.length < MOST_ANCHORS) {
    const anchor = await store.anchorBefore(last.epoch, last.lastUpdateId, tried)
    if (anchor === null) break
    const answer = await fromAnchor(store, anchor, last, next === null, limit, keep)
    if (answer.kind === 'book') return answer
    refusal ??= answer
    if (answer.reason !== 'outside the horizon') break
    // Keyframes of the same snapshot have the same horizon; one may be newer than another snapshot.
    tried.push((anchor.derivedFrom ?? anchor).lastUpdateId)
  }
  if (refusal !== null) return refusal
  const first = await store.snapshotFrom(last.epoch, last.lastUpdateId + 1)
  return { kind: 'refused', reason: 'no anchor', tooOld: null, next: first }
}

function isLater(instant: Instant, { eventTimeUs, receivedUs, lastUpdateId }: DiffKey): boolean {
  switch (instant.kind) {
    case 'event time':
      return instant.us > eventTimeUs
    case 'receipt':
      return instant.us > receivedUs
    case 'update id':
      return instant.updateId > lastUpdateId
  }
}

async function holeBetween(store: BookStore, before: DiffKey, after: DiffKey) {
  return {
    kind: 'refused',
    reason: 'hole',
    fromUs: before.eventTimeUs,
    toUs: after.eventTimeUs,
    missing: { from: before.lastUpdateId + 1, to: after.firstUpdateId - 1 },
    next: await store.snapshotFrom(after.epoch, after.firstUpdateId - 1),
  } as const satisfies BookRefusal
}

/** @param last the diff that the book is to contain last */
async function fromAnchor(
  store: BookStore,
  anchor: Anchor,
  last: DiffKey,
  isNewest: boolean,
  limit: number,
  keep: ((keyframe: Anchor) => void) | null,
): Promise<BookAt | BookRefusal> {
  const book = (await store.bookAfter?.(anchor, last)) ?? (await bookAfter(store, anchor, last))
  if (!(book instanceof OrderBook)) return refuseApart(store, anchor, book)
  if (book.updateId !== last.lastUpdateId)
    throw new Error(`Diffs up to ${last.lastUpdateId} are stored, but were read up to ${book.updateId}`)
  const { derivedFrom } = anchor
  const key = anchorKey(anchor)
  for (const side of SIDE_NAMES) {
    if (book.best(side) !== 'unknown') continue
    const horizon = book.horizon(side)
    return {
      kind: 'refused',
      reason: 'outside the horizon',
      at: last,
      side,
      horizon,
      anchor: derivedFrom ?? key,
    }
  }
  keep?.({ ...book.state(), receivedUs: last.receivedUs, derivedFrom: derivedFrom ?? key })
  return {
    kind: 'book',
    at: last,
    isNewest,
    isCrossed: book.isCrossed,
    anchor: { ...key, derivedFrom },
    ageUs: last.receivedUs - (derivedFrom ?? key).receivedUs,
    bids: sideAt(book, 'bids', limit),
    asks: sideAt(book, 'asks', limit),
  }
}

/** Two diffs between which ids are missing; `before` is null if the anchor has the last id before them. */
export interface Apart {
  readonly before: DiffKey | null
  readonly after: DiffKey
}

/** Applies diffs up to one to the book of an anchor. */
async function bookAfter(store: BookStore, anchor: Anchor, last: DiffKey): Promise<OrderBook | Apart> {
  const book = new OrderBook()
  book.reset(anchor)
  const diffs = store.diffsFrom(anchor.epoch, anchor.lastUpdateId)
  return (await applyUpTo(last, diffs, (diff) => book.apply(diff))) ?? book
}

/**
 * Applies diffs up to one.
 *
 * @param diffs in the order of {@link BookStore.diffsFrom}
 * @returns where ids are missing; null if none are
 */
export async function applyUpTo<Diff extends DiffKey>(
  last: DiffKey,
  diffs: AsyncIterable<Iterable<Diff>>,
  apply: (diff: Diff) => Applied,
): Promise<Apart | null> {
  let before: DiffKey | null = null
  let after: DiffKey | null = null
  let apart = 0
  for await (const batch of diffs) {
    for (const diff of batch) {
      if (diff.lastUpdateId > last.lastUpdateId) return after === null ? null : { before, after }
      if (apply(diff) === 'hole') {
        // A longer diff that another connection delivered may still close it: it ends later.
        after ??= keyOf(diff)
        if (++apart === MOST_APART) return { before, after }
      } else {
        before = keyOf(diff)
        after = null
        apart = 0
      }
    }
  }
  return after === null ? null : { before, after }
}

async function refuseApart(store: BookStore, anchor: Anchor, { before, after }: Apart): Promise<BookRefusal> {
  const { epoch, firstUpdateId } = after
  const instant = { kind: 'update id', epoch, updateId: firstUpdateId - 1 } as const
  const previous = before ?? (await store.diffsAround(instant)).last
  if (previous !== null && previous.epoch === epoch) return holeBetween(store, previous, after)
  const next = await store.snapshotFrom(epoch, firstUpdateId - 1)
  return { kind: 'refused', reason: 'no anchor', tooOld: anchorKey(anchor), next }
}

function anchorKey({ epoch, lastUpdateId, receivedUs }: AnchorKey): AnchorKey {
  return { epoch, lastUpdateId, receivedUs }
}

function keyOf({ epoch, firstUpdateId, lastUpdateId, eventTimeUs, receivedUs }: DiffKey): DiffKey {
  return { epoch, firstUpdateId, lastUpdateId, eventTimeUs, receivedUs }
}

/** The price between the best of both sides, or the only best price; null for an empty book. */
function middleOf(book: OrderBook): number | null {
  const prices = SIDE_NAMES.flatMap((name) => {
    const { bestIndex } = book[name]
    return bestIndex < 0 ? [] : [book[name].priceAt(bestIndex)]
  })
  if (prices.length === 0) return null
  return prices.reduce((sum, price) => sum + price, 0) / prices.length / 10 ** book.priceScale
}

export function sideAt(book: OrderBook, name: SideName, limit: number): SideAt {
  const price = book.horizon(name)
  const middle = middleOf(book)
  return {
    levels: book.levels(name, limit),
    horizon: price === null ? null : { price, basisPoints: basisPoints(price, middle) },
    outside: book.outside(name, limit),
  }
}

function basisPoints(price: string, middle: number | null): number | null {
  const scaled = scaledOf(price)
  if (scaled === null || middle === null || middle === 0) return null
  const distance = Math.abs(scaled.units / 10 ** scaled.scale / middle - 1)
  return Math.round(distance * 1_000_000) / 100
}

/** Says in one line why there is no book. */
export function describeRefusal(refusal: BookRefusal): string {
  switch (refusal.reason) {
    case 'nothing recorded': {
      const { first } = refusal
      if (first === null) return 'No change of the order book is stored'
      const { firstUpdateId, eventTimeUs } = first
      return `The first stored change of the order book begins with update id ${firstUpdateId}, at ${isoOfUs(eventTimeUs)}`
    }
    case 'not recorded yet':
      return `The newest stored change ends with update id ${refusal.newest.lastUpdateId}`
    case 'no anchor':
      return `${noAnchor(refusal.tooOld)}. ${knownAgain(refusal.next)}`
    case 'hole': {
      const { fromUs, toUs, missing } = refusal
      const ids =
        missing === null
          ? 'The update ids began again'
          : `The update ids ${missing.from} to ${missing.to} are missing`
      return `${ids} between ${isoOfUs(fromUs)} and ${isoOfUs(toUs)}. ${knownAgain(refusal.next)}`
    }
    case 'outside the horizon': {
      const side = refusal.side === 'bids' ? 'bid' : 'ask'
      const { anchor, horizon } = refusal
      return (
        `The best ${side} is outside the horizon ${horizon} of the snapshot with update id ` +
        `${anchor.lastUpdateId} (received ${isoOfUs(anchor.receivedUs)})`
      )
    }
  }
}

function noAnchor(tooOld: AnchorKey | null): string {
  if (tooOld === null) return 'No snapshot of the order book is stored at or before this instant'
  return (
    `The snapshot with update id ${tooOld.lastUpdateId} is older than the first stored change, ` +
    'and there is no other before this instant'
  )
}

function knownAgain(next: AnchorKey | null): string {
  if (next === null) return 'No later snapshot is stored yet'
  return `The book is known from update id ${next.lastUpdateId} (received ${isoOfUs(next.receivedUs)})`
}
