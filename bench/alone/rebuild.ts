import type { BookDiff } from '../../src/foundation/order-book/book-rows.ts'
import { LevelColumns, packColumns } from '../../src/foundation/order-book/level-columns.ts'
import { OrderBook } from '../../src/foundation/order-book/order-book.ts'
import { NO_RECORDED_DEPTH, recordedDepth } from '../../test/support/recorded-depth.ts'
import { timed } from './timed.ts'

/** Passes before the measured ones, so that they use compiled code. */
const WARM_UP = 3

/**
 * Rebuilds the book of the recorded frames with depth, from their snapshot on, again and again.
 *
 * @param diffCount how many diffs at least
 */
export async function rebuildAll(diffCount: number): Promise<Record<string, number>> {
  if (NO_RECORDED_DEPTH !== false) throw new Error(`The stage rebuild needs frames: ${NO_RECORDED_DEPTH}`)
  const { diffs, anchor } = recordedDepth()
  const perPass = diffs.reduce((sum, { bids, asks }) => sum + bids.count + asks.count, 0)
  const passes = Math.ceil(diffCount / diffs.length)
  const packed = diffs.map((diff) => ({
    ...diff,
    bids: packColumns(diff.bids),
    asks: packColumns(diff.asks),
  }))
  const bids = new LevelColumns()
  const asks = new LevelColumns()
  const fromRows = (book: OrderBook) => {
    for (const row of packed) {
      bids.read(row.bids)
      asks.read(row.asks)
      book.apply({ ...row, bids, asks })
    }
  }
  const fromColumns = (book: OrderBook) => {
    for (const diff of diffs) book.apply(diff)
  }
  const measure = async (work: (book: OrderBook) => void) => {
    const last = diffs.at(-1) satisfies BookDiff | undefined
    const book = new OrderBook()
    const pass = () => {
      book.reset(anchor)
      work(book)
      if (book.updateId !== last?.lastUpdateId) throw new Error(`The book ends with ${book.updateId}`)
    }
    for (let i = 0; i < WARM_UP; i++) pass()
    return timed(passes * perPass, () => {
      for (let i = 0; i < passes; i++) pass()
    })
  }
  const rows = await measure(fromRows)
  const columns = await measure(fromColumns)
  return {
    'level changes/s': rows.perSecond,
    µs: rows.micros,
    'diffs/s': (rows.perSecond * diffs.length) / perPass,
    'level changes/s without unpacking': columns.perSecond,
  }
}
