import { type MarketBlock, makeBlock } from './market-block.ts'
import type { SymbolPlan } from './market-plan.ts'

/** Events in the blocks that are kept at most; a column entry is some 20 bytes. */
const KEPT_EVENTS = 1_500_000

/**
 * Blocks that were made lately, the least recently used dropped first. What is dropped is made again when it
 * is asked for: nothing is ever lost here.
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
