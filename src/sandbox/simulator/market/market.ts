import { type MarketBlock, makeBlock } from './market-block.ts'
import { type MarketIdentity, planMarket, type SymbolIds, type SymbolPlan, symbolIds } from './market-plan.ts'

/** Maximum number of events in the cached blocks. A column entry takes some 20 bytes. */
const KEPT_EVENTS = 1_500_000

/** One symbol of a simulated market. */
export interface SymbolMarket {
  readonly plan: SymbolPlan
  /** The only state that does not follow from the identity of the market. */
  readonly ids: SymbolIds
  /** The events of one minute; equal calls give equal blocks. */
  block(number: number): MarketBlock
}

/** All symbols of a simulated market, by name. They share a cache of blocks. */
export type Market = ReadonlyMap<string, SymbolMarket>

export function openMarket(identity: MarketIdentity): Market {
  const blocks = new BlockCache()
  return new Map(
    [...planMarket(identity)].map(([symbol, plan]) => [
      symbol,
      { plan, ids: symbolIds(plan), block: (number: number) => blocks.get(plan, number) },
    ]),
  )
}

/**
 * Caches recently created blocks, and evicts the least recently used. An evicted block is created
 * again on request, so nothing is lost.
 */
class BlockCache {
  readonly #blocks = new Map<string, MarketBlock>()
  #events = 0

  get(plan: SymbolPlan, number: number): MarketBlock {
    const key = `${number}/${plan.instrument.symbol}`
    const kept = this.#blocks.get(key)
    const block = kept ?? makeBlock(plan, number)
    // The last key is the most recently used.
    this.#blocks.delete(key)
    this.#blocks.set(key, block)
    if (kept === undefined) this.#events += block.wire.length
    for (const [oldestKey, oldest] of this.#blocks) {
      if (this.#events <= KEPT_EVENTS || oldestKey === key) break
      this.#blocks.delete(oldestKey)
      this.#events -= oldest.wire.length
    }
    return block
  }
}
