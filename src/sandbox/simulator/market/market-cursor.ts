import type { BlockStore } from './block-store.ts'
import type { MarketBlock } from './market-block.ts'
import { frameWriter } from './market-frames.ts'
import { BLOCK_MS, blockAt, blockStartMs, type SymbolIds, type SymbolPlan } from './market-plan.ts'
import { hash32 } from './random.ts'

/** Stream names with subscribers. Frames of other streams are not created. */
export interface Audience {
  has(stream: string): boolean
}

/** Advances through one symbol's blocks and returns the frames that are due, in order. */
export class MarketCursor {
  readonly #plan: SymbolPlan
  readonly #blocks: BlockStore
  readonly #writer: ReturnType<typeof frameWriter>
  /**
   * Time within a block at which the next block is created. It differs by symbol, to spread the
   * work.
   */
  readonly #prepareAfterMs: number
  readonly #sinceMs: number
  #blockNumber: number
  #block: MarketBlock | undefined
  #nextBlock: MarketBlock | undefined
  #dueMs = 0
  #sent = 0
  #aggTrade = 0
  #trade = 0
  #quote = 0

  /** @param sinceMs skips frames with an earlier `E` */
  constructor(plan: SymbolPlan, ids: SymbolIds, blocks: BlockStore, sinceMs: number) {
    this.#plan = plan
    this.#blocks = blocks
    this.#writer = frameWriter(plan, ids)
    this.#prepareAfterMs =
      BLOCK_MS * (0.1 + 0.8 * (hash32('prepare', plan.instrument.symbol) / 0x1_0000_0000))
    this.#sinceMs = sinceMs
    this.#blockNumber = Math.max(0, blockAt(sinceMs))
  }

  /** Whether a block must be created now, which takes a while. */
  needsBlock(nowMs: number): boolean {
    const intoBlockMs = nowMs - blockStartMs(this.#blockNumber)
    if (this.#block === undefined) return intoBlockMs >= 0
    return this.#nextBlock === undefined && intoBlockMs >= this.#prepareAfterMs
  }

  makeBlock(): void {
    if (this.#block === undefined) this.#block = this.#blocks.get(this.#plan, this.#blockNumber)
    else this.#nextBlock ??= this.#blocks.get(this.#plan, this.#blockNumber + 1)
  }

  /** Earliest time with a frame to deliver. */
  get dueMs(): number {
    return this.#dueMs
  }

  /**
   * Delivers every undelivered frame due by `nowMs`. Stops at the end of a block if the next one
   * has not been created.
   */
  deliver(nowMs: number, audience: Audience, publish: (stream: string, text: string) => void): void {
    while (this.#block !== undefined) {
      this.#deliverBlock(this.#block, nowMs, audience, publish)
      if (this.#dueMs > nowMs) return
      this.#blockNumber++
      this.#block = this.#nextBlock
      this.#nextBlock = undefined
      this.#sent = this.#aggTrade = this.#trade = this.#quote = 0
    }
  }

  #deliverBlock(
    block: MarketBlock,
    nowMs: number,
    audience: Audience,
    publish: (stream: string, text: string) => void,
  ): void {
    const { wire, aggTrades, quotes } = block
    const writer = this.#writer
    const wantsTrade = audience.has(writer.tradeStream)
    const wantsAggTrade = audience.has(writer.aggTradeStream)
    const wantsQuote = audience.has(writer.bookTickerStream)
    const startMs = blockStartMs(block.block)
    for (; this.#sent < wire.length; this.#sent++) {
      const isQuote = wire[this.#sent] === 0
      const eventMs = (isQuote ? quotes.eventMs[this.#quote] : aggTrades.eventMs[this.#aggTrade]) ?? 0
      this.#dueMs = startMs + eventMs
      if (this.#dueMs > nowMs) return
      const wanted = this.#dueMs >= this.#sinceMs
      if (isQuote) {
        if (wantsQuote && wanted) publish(writer.bookTickerStream, writer.bookTicker(block, this.#quote))
        this.#quote++
        continue
      }
      const end = aggTrades.firstTrade[this.#aggTrade + 1] ?? 0
      for (; this.#trade < end; this.#trade++) {
        if (wantsTrade && wanted)
          publish(writer.tradeStream, writer.trade(block, this.#trade, this.#aggTrade))
      }
      if (wantsAggTrade && wanted) publish(writer.aggTradeStream, writer.aggTrade(block, this.#aggTrade))
      this.#aggTrade++
    }
    this.#dueMs = startMs + BLOCK_MS
  }
}
