import { type Apart, applyUpTo } from '../order-book/book-at.ts'
import { type Anchor, continuity, type DiffKey } from '../order-book/book-rows.ts'
import type { LevelColumns } from '../order-book/level-columns.ts'
import { OrderBook, SIDE_NAMES, type SideName } from '../order-book/order-book.ts'
import { decimalText } from '../order-book/scaled-units.ts'
import { type DuckDb, type EngineColumns, integerAt } from './duckdb.ts'
import { LevelRows } from './level-rows.ts'

/*
 * Quantities are absolute. So a book is the newest quantity of each price, which the engine finds faster than
 * diffs are applied one after the other. Its horizons need one fact of the time between: a side is exact up to
 * the best price that the other side has had, unless the book was crossed then (clause O5).
 */

/** Queries of rows with the columns of the archive's tables. */
export interface BookRows {
  /** The diffs after the snapshot up to the last one, as `ArchiveSnapshot.placed` returns them. */
  readonly diffs: string
  /** The levels of the anchor: `last_update_id`, `side`, `level`, `price`, `quantity`. */
  readonly anchor: string
}

/** Columns that tell which event a row belongs to, in the order in which events are applied. */
const EVENT = 'last_update_id, first_update_id, event_time, _rank, _offset'
/** An event has one such row or two. */
const IS_FIRST_LEVEL = 'coalesce("level", 1) = 1'
/** More levels than an event can have. */
const LEVELS_MAX = 2 ** 20
/** Values of `side` in the queries. */
const CODES = { bids: 0, asks: 1 } as const satisfies Record<SideName, number>

/**
 * Returns the book of an anchor with all diffs up to one, or where ids are missing. Null if only applying the
 * diffs tells it: some came before those that they continue, a book was crossed when it reached its best price, that
 * price came and went within one diff, or a value is too large.
 */
export async function reducedBook(
  duckDb: DuckDb,
  anchor: Anchor,
  last: DiffKey,
  rows: BookRows,
): Promise<OrderBook | Apart | null> {
  const events = await follow(duckDb, anchor, last, rows.diffs)
  if (events.apart !== null) return events.apart
  if (events.hasHoles) return null
  const levels = levelsOf(anchor, rows, events.hasRepeats)
  const { newest, peaks } = await newestLevels(duckDb, levels)
  if (SIDE_NAMES.some((name) => !isExact(newest[name]))) return null
  const book = new OrderBook()
  book.reset({
    ...{ epoch: anchor.epoch, lastUpdateId: events.updateId, bids: newest.bids, asks: newest.asks },
    ...{ bidHorizon: anchor.bidHorizon, askHorizon: anchor.askHorizon },
  })
  for (const name of SIDE_NAMES) {
    const peak = peaks[name]
    const other = book[name === 'bids' ? 'asks' : 'bids']
    if (peak === null) continue
    const { prices, priceScale } = newest[name]
    const price = (prices[peak.index] ?? 0) * 10 ** (book.priceScale - priceScale)
    const { horizon } = other
    // The horizon of the same side contains it, as it contains the best price of the snapshot.
    if (horizon === null || (name === 'bids' ? price <= horizon : price >= horizon)) continue
    const at = { price: decimalText(price, book.priceScale), updateId: peak.updateId }
    if (!(await wasUncrossed(duckDb, levels, name, at))) return null
    other.widenTo(price)
  }
  return book
}

/** Whether all values are exact as numbers (O8). */
function isExact({ prices, quantities, count }: LevelColumns): boolean {
  for (let i = 0; i < count; i++)
    if (!Number.isSafeInteger(prices[i]) || !Number.isSafeInteger(quantities[i])) return false
  return true
}

/** Follows the ids of the diffs. */
async function follow(duckDb: DuckDb, { epoch, lastUpdateId }: Anchor, last: DiffKey, diffs: string) {
  let [updateId, hasRepeats, hasHoles] = [lastUpdateId, false, false]
  const apart = await applyUpTo(last, keysOf(duckDb, epoch, diffs), (key) => {
    const verdict = continuity(epoch, updateId, key)
    if (verdict === 'applied') updateId = key.lastUpdateId
    else if (verdict === 'hole') hasHoles = true
    else hasRepeats = true
    return verdict
  })
  return { apart, updateId, hasRepeats, hasHoles }
}

async function* keysOf(duckDb: DuckDb, epoch: number, diffs: string): AsyncGenerator<Iterable<DiffKey>> {
  const query = `SELECT first_update_id, last_update_id, epoch_us(event_time), epoch_us(any_value(ingestion_timestamp))
    FROM (${diffs}) WHERE ${IS_FIRST_LEVEL} GROUP BY ${EVENT} ORDER BY ${EVENT}`
  for await (const columns of duckDb.columns(query)) yield keysIn(columns, epoch)
}

function* keysIn(columns: EngineColumns, epoch: number): Generator<DiffKey> {
  const [firstIds, lastIds, times, receipts] = [0, 1, 2, 3].map((i) => columns.words(i))
  for (let row = 0; row < columns.rows; row++)
    yield {
      epoch,
      firstUpdateId: integerAt(firstIds, row),
      lastUpdateId: integerAt(lastIds, row),
      eventTimeUs: integerAt(times, row),
      receivedUs: integerAt(receipts, row),
    }
}

/** Returns a query of the levels of the snapshot and of the diffs that are applied, with their position in time. */
function levelsOf({ lastUpdateId }: Anchor, { diffs, anchor }: BookRows, hasRepeats: boolean): string {
  const columns = `last_update_id, if(side = 'bid', ${CODES.bids}, ${CODES.asks})::UTINYINT AS side, price, quantity,
    (last_update_id - ${lastUpdateId}) * ${LEVELS_MAX} + "level" AS position`
  // If several have the same last id, only the first is applied.
  const applied = `SELECT ${EVENT} FROM (${diffs}) WHERE ${IS_FIRST_LEVEL} GROUP BY ${EVENT}
    QUALIFY row_number() OVER (PARTITION BY last_update_id ORDER BY ${EVENT}) = 1`
  const changes = hasRepeats ? `(${diffs}) SEMI JOIN (${applied}) USING (${EVENT})` : `(${diffs})`
  return `SELECT ${columns} FROM (${anchor}) WHERE side IS NOT NULL
    UNION ALL SELECT ${columns} FROM ${changes} WHERE side IS NOT NULL`
}

/** Reads the newest quantity of each price, the best first, and the best price that had one. */
async function newestLevels(duckDb: DuckDb, levels: string) {
  const query = `SELECT side, price, arg_max(quantity, position) AS quantity,
      coalesce(min(last_update_id) FILTER (quantity > 0), -1) AS since
    FROM (${levels}) GROUP BY side, price ORDER BY side, if(side = ${CODES.bids}, -price, price)`
  const newest = new LevelRows()
  newest.begin(0, 0)
  const peaks: Record<SideName, Peak | null> = { bids: null, asks: null }
  for await (const columns of duckDb.columns(query)) {
    const [sides, prices, quantities, sinces] = [
      columns.bytes(0),
      columns.words(1),
      columns.words(2),
      columns.words(3),
    ]
    for (const [row, side] of sides.entries()) {
      newest.add(side, prices, quantities, row)
      const name = side === CODES.bids ? 'bids' : 'asks'
      if (peaks[name] !== null) continue
      const updateId = integerAt(sinces, row)
      if (updateId >= 0) peaks[name] = { index: newest[name].count - 1, updateId }
    }
  }
  return { newest, peaks }
}

/** The best price that a side has had. */
interface Peak {
  readonly index: number
  /** The diff or snapshot that brought it first. */
  readonly updateId: number
}

/** Whether the best price of a side stood, and no known level of the other side was in reach of it. */
async function wasUncrossed(
  duckDb: DuckDb,
  levels: string,
  name: SideName,
  { price, updateId }: { readonly price: string; readonly updateId: number },
): Promise<boolean> {
  const best = `price ${name === 'bids' ? '<=' : '>='} ${price}::DECIMAL(20,8)`
  const found = await duckDb.rows<{ side: number }>(
    `SELECT side FROM (${levels}) WHERE last_update_id <= ${updateId} AND ${best} AND (side <> ${CODES[name]} OR price = ${price}::DECIMAL(20,8))
     GROUP BY side, price HAVING arg_max(quantity, position) > 0 LIMIT 2`,
  )
  return found.length === 1 && found[0]?.side === CODES[name]
}
