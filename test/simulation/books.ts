import { CUT_MS, compare, unexplained } from '../../chaos/books.ts'
import { reasonsOf, type Snapshot } from '../../chaos/snapshot-reasons.ts'
import type { Gap } from '../../src/foundation/market/gap.ts'
import { type IdRange, normalise, subtract } from '../../src/foundation/market/id-ranges.ts'
import {
  type BookAt,
  type BookRefusal,
  bookAt,
  describeRefusal,
  type Instant,
} from '../../src/foundation/order-book/book-at.ts'
import type { Levels } from '../../src/foundation/order-book/level-columns.ts'
import { decimalText } from '../../src/foundation/order-book/scaled-units.ts'
import { hash32, mulberry32, Random } from '../../src/sandbox/simulator/market/random.ts'
import { bookStore } from '../support/book-store.ts'
import type { TrueSequence } from './market.ts'
import type { StoredBook, StoredSnapshot } from './stored-books.ts'
import type { World } from './world.ts'

/** Instants per symbol, by event time and as many by update id. */
const INSTANTS = 20
/** A snapshot by age is taken at most so much sooner than by the times of the messages. */
const KAFKA_LATE_MS = 3_600_000
/** Ingestion enters what it did not receive with one of these causes. */
const NOT_RECEIVED: ReadonlySet<Gap['cause']> = new Set(['missed', 'reconnect', 'stall'])

/** Violations of D and A of the specification, and of O12 to O15 of the page on order books. */
export async function bookViolations(world: World): Promise<string[]> {
  const random = new Random(hash32('instants', world.options.seed), mulberry32)
  const found = world.market.sequences
    .filter(({ type }) => type === 'depth')
    .flatMap((sequence) => [...ledger(world, sequence), ...reasons(world, sequence)])
  for (const [symbol, stored] of world.stored.books.bySymbol)
    found.push(...(await wrongBooks(world, symbol, stored, random)))
  return found
}

function count({ bookCounts }: World, what: string, by = 1): void {
  bookCounts[what] = (bookCounts[what] ?? 0) + by
}

function isOf({ symbol, type, epoch }: TrueSequence) {
  return (gap: Pick<Gap, 'symbol' | 'event_type' | 'epoch' | 'from_id'>) =>
    gap.symbol === symbol && gap.event_type === type && gap.epoch === epoch && gap.from_id !== null
}

function rowsOf(world: World, sequence: TrueSequence): Gap[] {
  return [...world.ledger.values()].filter(isOf(sequence))
}

function rangeOf({ from_id, to_id }: Gap): IdRange {
  return { from: from_id ?? 0, to: to_id ?? 0 }
}

/** D2, D3: no id is both stored and in the ledger, and no row has ids that its process had read. */
function ledger(world: World, sequence: TrueSequence): string[] {
  const name = `${sequence.symbol} depth ${sequence.epoch}`
  const events = world.stored.streams.get(name)?.events ?? []
  return rowsOf(world, sequence).flatMap((gap) => {
    const range = rangeOf(gap)
    const enteredMs = Math.min(...world.wall.whenShown(gap.detected_at))
    const within = ({ from, to }: IdRange) => from <= range.to && to >= range.from
    // What a broker that is cut off from the others told a start lacks what they have stored since.
    if (gap.cause === 'restart' && world.options.clusterFaults === true) return []
    const enteredBy = world.enteredBy.get(gap.gap_id) ?? 0
    const { bornMs = 0, read = [] } = world.processes.get(enteredBy) ?? {}
    // D5: what came late, or from an instance that was overtaken, stays in the ledger. What Kafka lost, a consumer
    // may have stored.
    const stored = events.filter(
      ({ firstId, id, receiptMs, storedMs, incarnation, excuses }) =>
        within({ from: firstId, to: id }) &&
        (incarnation === enteredBy
          ? Math.max(...world.wall.whenShown(receiptMs)) < enteredMs
          : storedMs < bornMs) &&
        excuses.size === 0,
    )
    const left = subtract(
      [range],
      stored.map(({ firstId: from, id: to }) => ({ from, to })),
    )
    const entry = `${name}: ${range.from}..${range.to} (${gap.cause})`
    const isWhole = left[0]?.from === range.from && left[0].to === range.to
    const wrong = isWhole ? [] : [`D3 ${entry} is in the ledger, but stored`]
    if (!NOT_RECEIVED.has(gap.cause)) return wrong
    const own = read.find((one) => one.sequence === sequence && within(one) && one.atMs < enteredMs)
    return own === undefined
      ? wrong
      : [...wrong, `D2 ${entry} was entered by a process that had read ${own.from}..${own.to}`]
  })
}

/** A1: every snapshot has a reason. */
function reasons(world: World, sequence: TrueSequence): string[] {
  const { symbol, epoch } = sequence
  const lost = normalise(rowsOf(world, sequence).map(rangeOf))
  const firstRead = (process: number) => {
    const read = world.processes.get(process)?.read.filter((one) => one.sequence === sequence) ?? []
    return Math.min(...read.map(({ from }) => from))
  }
  // One from before the first update of its process, or from within lost ones, is of no use, which shows only later.
  const isUsable = ({ lastUpdateId: id, incarnation }: StoredSnapshot) =>
    id + 1 >= firstRead(incarnation) && !lost.some(({ from, to }) => from <= id && id < to)
  const snapshots = [...(world.stored.books.bySymbol.get(symbol)?.snapshots.values() ?? [])]
    .filter((one) => one.epoch === epoch && isUsable(one))
    .map(asSnapshot)
  const oldMs = world.config.snapshotMaxAgeMs - KAFKA_LATE_MS
  const found = reasonsOf(snapshots, lost, oldMs)
  for (const [reason, snapshots] of found) count(world, `snapshots: ${reason}`, snapshots)
  const needless = found.get('none') ?? 0
  return needless === 0 ? [] : [`A1 ${symbol} depth ${epoch}: ${needless} snapshots without a reason`]
}

function asSnapshot({ lastUpdateId, limit, incarnation, storedMs, ...book }: StoredSnapshot): Snapshot {
  const best = ({ prices, count, priceScale }: Levels) =>
    count === 0 ? null : Number(decimalText(prices[0] ?? 0, priceScale))
  const edge = (horizon: string | null) => (horizon === null ? null : Number(horizon))
  return {
    ...{ id: lastUpdateId, limit, process: incarnation, takenMs: storedMs },
    ...{ bestBid: best(book.bids), bestAsk: best(book.asks) },
    ...{ bidEdge: edge(book.bidHorizon), askEdge: edge(book.askHorizon) },
  }
}

async function wrongBooks(
  world: World,
  symbol: string,
  { diffs, snapshots }: StoredBook,
  random: Random,
): Promise<string[]> {
  const all = [...diffs.values()]
  if (all.length === 0) return []
  const store = bookStore(all, [...snapshots.values()])
  const times = all.map(({ eventTimeUs }) => eventTimeUs)
  const [fromUs, toUs] = [Math.min(...times), Math.max(...times)]
  const wrong: string[] = []
  for (let i = 0; i < INSTANTS; i++) {
    const { epoch, firstUpdateId, lastUpdateId } = random.pick(all)
    for (const instant of [
      { kind: 'event time', us: random.whole(fromUs, toUs) },
      { kind: 'update id', epoch, updateId: random.whole(firstUpdateId, lastUpdateId) },
    ] as const) {
      const book = await bookAt(store, instant)
      count(world, book.kind === 'book' ? 'books' : `no book: ${book.reason}`)
      const { last } = await store.diffsAround(instant)
      if (last === null) continue
      const problem =
        book.kind === 'book'
          ? problemOf(world, symbol, instant, book)
          : refusalProblem(world, symbol, last.epoch, book)
      if (problem !== null) wrong.push(`O12 ${symbol} at ${JSON.stringify(instant)}: ${problem}`)
    }
  }
  return wrong
}

function problemOf(world: World, symbol: string, instant: Instant, book: BookAt): string | null {
  const { market } = world
  const trueBook = market.book(symbol)
  const { lastUpdateId, epoch } = book.at
  const position = market.positionOf(symbol, epoch, lastUpdateId)
  if (instant.kind === 'event time') {
    const due = trueBook.positionAt(instant.us / 1000 - CUT_MS)
    if (due > position) return `it ends with update ${lastUpdateId}, ${due - position} later ones were due`
  }
  const levels = { bids: trueBook.levels('bids', position), asks: trueBook.levels('asks', position) }
  const { levels: compared, wrong } = compare(book, levels)
  count(world, 'book levels', compared)
  return wrong.length === 0 ? null : `${wrong.length} wrong levels, ${wrong.slice(0, 3).join(', ')}`
}

function refusalProblem(world: World, symbol: string, epoch: number, refusal: BookRefusal): string | null {
  const { market } = world
  const sequences = market.sequences.filter((one) => one.symbol === symbol && one.type === 'depth')
  const sequence = sequences[epoch]
  if (sequence === undefined) return `there is no epoch ${epoch}`
  const isOver = sequence !== sequences.at(-1) || !market.statuses.has(symbol)
  if (refusal.reason === 'hole' && refusal.missing === null) return isOver ? null : describeRefusal(refusal)
  if (refusal.reason === 'outside the horizon') {
    const position = market.positionOf(symbol, epoch, refusal.at.lastUpdateId)
    const best = Number(market.book(symbol).levels(refusal.side, position, 1)[0]?.[0])
    const horizon = Number(refusal.horizon)
    const isOutside = refusal.side === 'bids' ? best < horizon : best > horizon
    return isOutside ? null : `${describeRefusal(refusal)}, but it is ${best}`
  }
  return unexplained(refusal, rowsOf(world, sequence).map(rangeOf), isOver)
}
