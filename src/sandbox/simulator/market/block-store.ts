import { type MarketBlock, makeBlock } from './market-block.ts'
import type { SymbolPlan } from './market-plan.ts'

/** Maximum number of events in the cached blocks. A column entry takes some 20 bytes. */
const KEPT_EVENTS = 1_500_000

/**
 * Caches recently created blocks, and evicts the least recently used. An evicted block is created
 * again on request, so nothing is lost.
 */
export class BlockStore {
  readonly #blocks = new Map<string, MarketBlock>()
  #events = 0

  get(plan: SymbolPlan, block: number): MarketBlock {
    const key = `${block}/${plan.instrument.symbol}`
    const kept = this.#blocks.get(key)
    if (kept !== undefined) {
      this.#blocks.delete(key)
      this.#blocks.set(key, kept)
      return kept
    }
    const made = makeBlock(plan, block)
    this.#blocks.set(key, made)
    this.#events += eventCount(made)
    for (const [oldestKey, oldest] of this.#blocks) {
      if (this.#events <= KEPT_EVENTS || oldestKey === key) break
      this.#blocks.delete(oldestKey)
      this.#events -= eventCount(oldest)
    }
    return made
  }
}

function eventCount(block: MarketBlock): number {
  return block.wire.length + block.trades.steps.length
}
