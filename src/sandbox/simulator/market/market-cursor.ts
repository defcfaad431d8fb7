import { streamName, TICK_TYPES } from '../../../foundation/market/event.ts'
import { type DepthCursor, depthCursors } from './depth-cursor.ts'
import type { SymbolMarket } from './market.ts'
import type { MarketBlock } from './market-block.ts'
import { frameWriter } from './market-event.ts'
import { BLOCK_MS, blockAt, blockStartMs } from './market-plan.ts'
import { SERIES } from './market-series.ts'
import { hash32 } from './random.ts'

/** Stream names with subscribers. Frames of other streams are not created. */
type Audience = Pick<ReadonlySet<string>, 'has'>

/** @param group of connections that get this frame; undefined: all of them */
type Publish = (stream: string, text: string, group?: number) => void

/** Advances through one symbol's blocks and returns the frames that are due, in order. */
export class MarketCursor {
  readonly #market: SymbolMarket
  readonly #streams: ReadonlyArray<{ readonly name: string; readonly write: ReturnType<typeof frameWriter> }>
  /** When within a block the next one is created. Differs by symbol, to spread the work. */
  readonly #prepareAfterMs: number
  readonly #sinceMs: number
  #blockNumber: number
  #block: MarketBlock | undefined
  #nextBlock: MarketBlock | undefined
  #dueMs = 0
  #sent = 0
  /** By type: its number of sent events of the block. */
  readonly #sentOf = TICK_TYPES.map(() => 0)
  readonly #depths: readonly DepthCursor[]
  /** The earliest cut of a depth stream. */
  #cutMs: number

  /**
   * @param sinceMs skips frames with an earlier `E`
   * @param depthGroups groups of connections that get depth diffs with separate cuts
   */
  constructor(market: SymbolMarket, sinceMs: number, depthGroups = 1) {
    const { symbol } = market.plan.instrument
    this.#market = market
    this.#streams = TICK_TYPES.map((type) => ({
      name: streamName(symbol, type),
      write: frameWriter(symbol, type),
    }))
    this.#prepareAfterMs = BLOCK_MS * (0.1 + 0.8 * (hash32('prepare', symbol) / 0x1_0000_0000))
    this.#sinceMs = sinceMs
    this.#blockNumber = Math.max(0, blockAt(sinceMs))
    this.#depths = depthCursors(market, depthGroups, sinceMs)
    this.#cutMs = this.#nextCutMs
  }

  /** Whether a block must be created now, which takes a while. */
  needsBlock(nowMs: number): boolean {
    const intoBlockMs = nowMs - blockStartMs(this.#blockNumber)
    if (this.#block === undefined) return intoBlockMs >= 0
    return this.#nextBlock === undefined && intoBlockMs >= this.#prepareAfterMs
  }

  makeBlock(): void {
    const number = this.#block === undefined ? this.#blockNumber : this.#blockNumber + 1
    if (this.#block === undefined) this.#block = this.#market.block(number)
    else this.#nextBlock ??= this.#market.block(number)
    // Otherwise the first cut of the minute would create it.
    if (this.#depths.some(({ isOpen }) => isOpen)) this.#market.book(number)
  }

  /** Earliest time with a frame to deliver. */
  get dueMs(): number {
    return Math.min(this.#dueMs, this.#cutMs)
  }

  get #nextCutMs(): number {
    return Math.min(...this.#depths.map(({ dueMs }) => dueMs))
  }

  /** Delivers every frame due by `nowMs`, up to the end of the last block created. */
  deliver(nowMs: number, audience: Audience, publish: Publish): void {
    while (this.#block !== undefined) {
      this.#deliverBlock(this.#block, nowMs, audience, publish)
      if (this.#dueMs > nowMs) break
      this.#blockNumber++
      this.#block = this.#nextBlock
      this.#nextBlock = undefined
      this.#sent = 0
      this.#sentOf.fill(0)
    }
    // A diff comes after the quotes with its update ids.
    this.#deliverDiffs(Math.min(nowMs, this.#dueMs), audience, publish)
  }

  #deliverDiffs(untilMs: number, audience: Audience, publish: Publish): void {
    while (this.#cutMs <= untilMs) {
      for (const depth of this.#depths) {
        if (depth.dueMs > this.#cutMs) continue
        if (!audience.has(depth.stream)) depth.skip()
        else for (const text of depth.next()) publish(depth.stream, text, depth.group)
      }
      this.#cutMs = this.#nextCutMs
    }
  }

  #deliverBlock(block: MarketBlock, nowMs: number, audience: Audience, publish: Publish): void {
    const startMs = blockStartMs(block.block)
    const wanted = this.#streams.map(({ name }) => audience.has(name))
    for (; this.#sent < block.wire.length; this.#sent++) {
      const code = block.wire[this.#sent] ?? 0
      const [type, stream, index] = [TICK_TYPES[code], this.#streams[code], this.#sentOf[code]]
      if (type === undefined || stream === undefined || index === undefined) continue
      this.#dueMs = startMs + SERIES[type].eventMs(block, index)
      if (this.#dueMs > nowMs) return
      if (this.#cutMs <= this.#dueMs) this.#deliverDiffs(this.#dueMs, audience, publish)
      this.#sentOf[code] = index + 1
      if (wanted[code] && this.#dueMs >= this.#sinceMs)
        publish(stream.name, stream.write(SERIES[type].event(block, index, this.#market.ids)))
    }
    this.#dueMs = startMs + BLOCK_MS
  }
}
