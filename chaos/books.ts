import { type IdRange, subtract } from '../src/foundation/market/id-ranges.ts'
import {
  type BookAt,
  type BookRefusal,
  type BookStore,
  bookAt,
  describeRefusal,
} from '../src/foundation/order-book/book-at.ts'
import type { SideName } from '../src/foundation/order-book/order-book.ts'
import type { Database } from '../src/foundation/store/database.ts'
import type { BookHistory, BookSnapshot } from '../src/sandbox/simulator/market/book-history.ts'
import { Random } from '../src/sandbox/simulator/market/random.ts'
import { trimmed } from '../src/tools/verify/findings.ts'
import { type Figures, figuresOf } from './figures.ts'
import { type HorizonFigures, horizonFigures, type Width } from './horizons.ts'

/** An instant of which the book is compared, by exchange time in whole milliseconds. */
export interface BookInstant {
  readonly symbol: string
  readonly timeMs: number
}

export interface BookCheck {
  readonly instants: number
  /** Instants with a book. */
  readonly books: number
  /** Levels that were compared, and how many of them differ from the exchange's. */
  readonly levels: number
  readonly wrongLevels: number
  /** Instants without a book, by reason. */
  readonly refused: Readonly<Record<string, number>>
  /** From the end of each hole to the snapshot from which books are known again. */
  readonly waits: Figures
  readonly horizons: HorizonFigures
  readonly violations: readonly string[]
}

interface Sources {
  /** Where the books are read, in sentences: `tables`. */
  readonly name: string
  readonly storeOf: (symbol: string) => BookStore
  readonly truth: BookHistory
  /** Lost update ids in the ledger. */
  readonly lostOf: (symbol: string) => readonly IdRange[]
}

/** A diff comes every 100 ms, so by then a later one would have been due. */
export const CUT_MS = 102
const ALL_LEVELS = 1_000_000
const SHOWN = 5
const SIDES = ['bids', 'asks'] as const satisfies readonly SideName[]

/** Draws instants within the recordings, in the order of symbol and time, in which the exchange finds books fast. */
export async function drawInstants(database: Database, count: number, seed: number): Promise<BookInstant[]> {
  const { rows } = await database.query<{ symbol: string; fromMs: number; toMs: number }>(
    `SELECT symbol, ceil(extract(epoch FROM min(event_time)) * 1000)::float8 AS "fromMs",
       floor(extract(epoch FROM max(event_time)) * 1000)::float8 AS "toMs"
     FROM depth_updates GROUP BY symbol ORDER BY symbol COLLATE "C"`,
  )
  if (rows.length === 0) return []
  const random = new Random(seed)
  return Array.from({ length: count }, () => {
    const { symbol, fromMs, toMs } = random.pick(rows)
    return { symbol, timeMs: random.whole(fromMs, toMs) }
  }).sort((a, b) => (a.symbol === b.symbol ? a.timeMs - b.timeMs : a.symbol < b.symbol ? -1 : 1))
}

/**
 * Compares the recorded book at each instant with the exchange's true one. Inside the horizon both must have the same
 * levels. Where there is no book, the ledger must have the missing ids, or a snapshot must have come later.
 */
export async function checkBooks(instants: readonly BookInstant[], sources: Sources): Promise<BookCheck> {
  const { name, storeOf } = sources
  const violations: string[] = []
  const refused: Record<string, number> = {}
  const waitsMs = new Map<string, number>()
  const widths: Width[] = []
  let [levels, wrongLevels] = [0, 0]
  for (const { symbol, timeMs } of instants) {
    const report = (what: string) =>
      violations.push(`Book of ${symbol} at ${new Date(timeMs).toISOString()} from the ${name}: ${what}.`)
    const book = await bookAt(storeOf(symbol), { kind: 'event time', us: timeMs * 1000 })
    if (book.kind === 'refused') {
      refused[book.reason] = (refused[book.reason] ?? 0) + 1
      if (book.reason === 'hole' && book.next !== null)
        waitsMs.set(`${symbol} ${book.toUs}`, (book.next.receivedUs - book.toUs) / 1000)
      const problem = unexplained(book, sources.lostOf(symbol))
      if (problem !== null) report(problem)
      continue
    }
    // In the order of time: the exchange continues from the book before.
    const due = sources.truth.book(symbol, { timeMs: timeMs - CUT_MS }, 0).lastUpdateId
    const { lastUpdateId } = book.at
    const updateId = Math.max(due, lastUpdateId)
    const compared = compare(book, sources.truth.book(symbol, { updateId }, ALL_LEVELS))
    levels += compared.levels
    if (lastUpdateId < due) report(`it ends with update ${lastUpdateId}, although ${due} was due`)
    else if (compared.wrong.length > 0) {
      wrongLevels += compared.wrong.length
      report(`${compared.wrong.length} wrong levels, ${compared.wrong.slice(0, SHOWN).join(', ')}`)
    }
    widths.push(widthOf(book, timeMs))
  }
  if (instants.length === 0) violations.push('No order book is stored.')
  const books = widths.length
  const horizons = horizonFigures(widths)
  if (books > 0 && horizons.deepShare < ENOUGH)
    violations.push(
      `Only ${(horizons.deepShare * 100).toFixed(1)} % of the books from the ${name} have 100 levels per side.`,
    )
  const waits = figuresOf([...waitsMs.values()])
  return { instants: instants.length, books, levels, wrongLevels, refused, waits, horizons, violations }
}

/** Share of the books that must have 100 levels on both sides inside their horizons. */
const ENOUGH = 0.95

/** Compares the levels inside the horizon, and those known outside it, with the true ones. */
export function compare(book: BookAt, expected: Pick<BookSnapshot, SideName>) {
  const wrong: string[] = []
  let levels = 0
  for (const name of SIDES) {
    const { horizon, outside, levels: own } = book[name]
    const trueLevels = new Map(expected[name].map(([price, quantity]) => [trimmed(price), trimmed(quantity)]))
    const isInside = (price: string) =>
      horizon === null ||
      (name === 'bids' ? Number(price) >= Number(horizon.price) : Number(price) <= Number(horizon.price))
    const inside = [...trueLevels].filter(([price]) => isInside(price))
    const found = new Map(own.map(({ price, quantity }) => [trimmed(price), trimmed(quantity)]))
    levels += Math.max(inside.length, found.size) + outside.length
    for (const [price, quantity] of inside) {
      const stored = found.get(price) ?? '0'
      if (stored !== quantity) wrong.push(`${name} ${price} has ${stored}, expected ${quantity}`)
    }
    for (const price of found.keys())
      if (!trueLevels.has(price) || !isInside(price)) wrong.push(`${name} ${price} does not exist`)
    for (const { price, quantity } of outside) {
      const real = trueLevels.get(trimmed(price)) ?? '0'
      if (real !== trimmed(quantity)) wrong.push(`${name} ${price} outside has ${quantity}, expected ${real}`)
    }
  }
  return { levels, wrong }
}

/**
 * Returns why a refusal is not right; null if it is.
 *
 * @param isOver whether the recording of these ids has ended, so that no snapshot may follow
 */
export function unexplained(refusal: BookRefusal, lost: readonly IdRange[], isOver = false): string | null {
  const said = describeRefusal(refusal)
  switch (refusal.reason) {
    case 'hole': {
      if (refusal.missing === null) return `${said}, but they did not`
      const { from, to } = refusal.missing
      if (subtract([{ from, to }], lost).length > 0) return `${said}, which is not in the ledger`
      return refusal.next === null && !isOver ? `${said}, although the recording continued` : null
    }
    case 'no anchor':
      return refusal.next === null && !isOver ? said : null
    case 'outside the horizon':
    case 'nothing recorded':
    case 'not recorded yet':
      return said
  }
}

function widthOf({ bids, asks, ageUs }: BookAt, timeMs: number): Width {
  const width = (side: BookAt['bids']) => side.horizon?.basisPoints ?? Number.POSITIVE_INFINITY
  return {
    timeMs,
    ageMs: ageUs / 1000,
    levels: Math.min(bids.levels.length, asks.levels.length),
    basisPoints: Math.min(width(bids), width(asks)),
  }
}
