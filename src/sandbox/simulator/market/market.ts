import { TICK_TYPES, type TickType } from '../../../foundation/market/event.ts'
import { type BookBlock, makeBookBlock } from './book-block.ts'
import { BookClock } from './book-clock.ts'
import { type MarketBlock, makeBlock } from './market-block.ts'
import {
  eventsBefore,
  type MarketIdentity,
  planMarket,
  type SymbolIds,
  type SymbolPlan,
  symbolIds,
} from './market-plan.ts'
import { SERIES } from './market-series.ts'

/** Maximum number of events in the cached blocks. A column entry takes some 20 bytes. */
const KEPT_EVENTS = 1_500_000
/** Maximum number of changes in the cached minutes of order books, of 12 bytes each. */
const KEPT_BOOK_CHANGES = 6_000_000

/** Types that `makeBlock` draws together, since they depend on each other. */
const DENSE: ReadonlySet<TickType> = new Set(['trade', 'aggTrade', 'bookTicker'])

export interface SymbolMarket {
  readonly plan: SymbolPlan
  /** With the pauses of `clock`, the only state that does not follow from the identity of the market. */
  readonly ids: SymbolIds
  readonly clock: BookClock
  /** The events of one minute; equal calls give equal blocks. */
  block(number: number): MarketBlock
  /** The changes of the order book of one minute; equal calls give equal changes. */
  book(number: number): BookBlock
}

/** All symbols of a simulated market, by name. They share the caches of blocks. */
export type Market = ReadonlyMap<string, SymbolMarket>

export function openMarket(identity: MarketIdentity): Market {
  const blocks = new BlockCache<MarketBlock>(KEPT_EVENTS, ({ wire }) => wire.length)
  const books = new BlockCache<BookBlock>(KEPT_BOOK_CHANGES, ({ ticks }) => ticks.length)
  return new Map(
    [...planMarket(identity)].map(([symbol, plan]) => {
      const block = (number: number) =>
        blocks.get(`${number}/${symbol}`, () => withSparseTypes(makeBlock(plan, number)))
      const book = (number: number) => books.get(`${number}/${symbol}`, () => makeBookBlock(block(number)))
      return [symbol, { plan, ids: symbolIds(plan), clock: new BookClock(plan, block), block, book }]
    }),
  )
}

/** Adds the events of the other types to the order of sending. */
function withSparseTypes(block: MarketBlock): MarketBlock {
  const { plan } = block
  const sparse = TICK_TYPES.flatMap((type, code) => {
    if (DENSE.has(type)) return []
    const count = eventsBefore(plan, type, block.block + 1) - eventsBefore(plan, type, block.block)
    return Array.from({ length: count }, (_, index) => ({ code, atMs: SERIES[type].eventMs(block, index) }))
  }).sort((a, b) => a.atMs - b.atMs)
  if (sparse.length === 0) return block
  const sent = TICK_TYPES.map(() => 0)
  const wire = new Uint8Array(block.wire.length + sparse.length)
  let next = 0
  for (const code of block.wire) {
    const [type, index] = [TICK_TYPES[code], sent[code] ?? 0]
    sent[code] = index + 1
    const atMs = type === undefined ? 0 : SERIES[type].eventMs(block, index)
    while (sparse[0] !== undefined && sparse[0].atMs < atMs) wire[next++] = sparse.shift()?.code ?? 0
    wire[next++] = code
  }
  for (const { code } of sparse) wire[next++] = code
  return { ...block, wire }
}

/** Caches the most recently used blocks. An evicted one is created again on request. */
class BlockCache<Block> {
  readonly #blocks = new Map<string, Block>()
  readonly #maxSize: number
  readonly #sizeOf: (block: Block) => number
  #size = 0

  constructor(maxSize: number, sizeOf: (block: Block) => number) {
    this.#maxSize = maxSize
    this.#sizeOf = sizeOf
  }

  get(key: string, make: () => Block): Block {
    const kept = this.#blocks.get(key)
    const block = kept ?? make()
    // The last key is the most recently used.
    this.#blocks.delete(key)
    this.#blocks.set(key, block)
    if (kept === undefined) this.#size += this.#sizeOf(block)
    for (const [oldestKey, oldest] of this.#blocks) {
      if (this.#size <= this.#maxSize || oldestKey === key) break
      this.#blocks.delete(oldestKey)
      this.#size -= this.#sizeOf(oldest)
    }
    return block
  }
}
