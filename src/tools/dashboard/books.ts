import {
  type BookAt,
  type BookRefusal,
  type BookStore,
  bookAt,
  describeRefusal,
  type SideAt,
} from '../../foundation/order-book/book-at.ts'
import type { Anchor } from '../../foundation/order-book/book-rows.ts'
import { cumulative } from '../../foundation/order-book/cumulative.ts'
import type { Database } from '../../foundation/store/database.ts'
import { StoredBooks } from '../../foundation/store/stored-books.ts'
import type { BookSideView, BookView } from './page/snapshot.ts'

/** So near to the best price that a chart shows each level. */
const LEVELS_SHOWN = 500
/** All pages get the same answer for so long. */
const SHARED_MS = 1000
const BOOKS_KEPT = 40
/** The exchange's clock may be ahead of this one. */
const AHEAD_US = 86_400_000_000

/** Reads the newest order books. Keeps each, so that the next reading takes only the changes since. */
export class Books {
  readonly #database: Database
  readonly #nowMs: () => number
  /** By symbol, the least recently read first. */
  readonly #kept = new Map<string, Anchor>()
  readonly #answers = new Map<string, { readonly atMs: number; readonly view: Promise<BookView> }>()

  constructor(database: Database, nowMs = () => performance.now()) {
    this.#database = database
    this.#nowMs = nowMs
  }

  /** Rejects if the database does not answer. */
  read(symbol: string): Promise<BookView> {
    const nowMs = this.#nowMs()
    for (const [of, { atMs }] of this.#answers) if (nowMs - atMs > SHARED_MS) this.#answers.delete(of)
    const view = this.#answers.get(symbol)?.view ?? this.#read(symbol)
    if (!this.#answers.has(symbol)) this.#answers.set(symbol, { atMs: nowMs, view })
    return view
  }

  #read(symbol: string): Promise<BookView> {
    const instant = { kind: 'event time', us: Date.now() * 1000 + AHEAD_US } as const
    const read = async (connection: ConstructorParameters<typeof StoredBooks>[0]) => {
      const store = withKept(new StoredBooks(connection, symbol), this.#kept.get(symbol) ?? null)
      return viewOf(await bookAt(store, instant, LEVELS_SHOWN, (keyframe) => this.#keep(symbol, keyframe)))
    }
    return this.#database.transaction(read, { isSnapshot: true })
  }

  #keep(symbol: string, keyframe: Anchor): void {
    this.#kept.delete(symbol)
    this.#kept.set(symbol, keyframe)
    const [oldest] = this.#kept.keys()
    if (this.#kept.size > BOOKS_KEPT && oldest !== undefined) this.#kept.delete(oldest)
  }
}

/** A store that has this anchor, too. */
function withKept(store: StoredBooks, kept: Anchor | null): BookStore {
  return {
    diffsAround: (instant) => store.diffsAround(instant),
    async anchorBefore(epoch, updateId, except) {
      const stored = await store.anchorBefore(epoch, updateId, except)
      const isUsable =
        kept !== null &&
        kept.epoch === epoch &&
        kept.lastUpdateId <= updateId &&
        !except.includes((kept.derivedFrom ?? kept).lastUpdateId)
      return isUsable && kept.lastUpdateId > (stored?.lastUpdateId ?? -1) ? kept : stored
    },
    snapshotFrom: (epoch, updateId) => store.snapshotFrom(epoch, updateId),
    diffsFrom: (epoch, updateId) => store.diffsFrom(epoch, updateId),
  }
}

function viewOf(answer: BookAt | BookRefusal): BookView {
  if (answer.kind === 'refused')
    return answer.reason === 'nothing recorded'
      ? { kind: 'none' }
      : { kind: 'refused', text: describeRefusal(answer) }
  const { at, isCrossed, anchor, ageUs, bids, asks } = answer
  return {
    kind: 'book',
    atMs: at.eventTimeUs / 1000,
    updateId: at.lastUpdateId,
    isCrossed,
    anchorUpdateId: (anchor.derivedFrom ?? anchor).lastUpdateId,
    ageMs: ageUs / 1000,
    bids: sideView(bids),
    asks: sideView(asks),
  }
}

function sideView({ levels, horizon }: SideAt): BookSideView {
  const sums = cumulative(levels)
  const points = levels.map(({ price }, i) => [Number(price), Number(sums[i])] as const)
  return { levels: points, isCut: levels.length === LEVELS_SHOWN, horizon }
}
