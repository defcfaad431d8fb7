import { streamName, TICK_TYPES } from '../../../foundation/market/event.ts'
import type { SymbolMarket } from './market.ts'
import type { MarketBlock } from './market-block.ts'
import { frameWriter } from './market-event.ts'
import { BLOCK_MS, blockAt, blockStartMs } from './market-plan.ts'
import { SERIES } from './market-series.ts'
import { hash32 } from './random.ts'

/** Stream names with subscribers. Frames of other streams are not created. */
type Audience = Pick<ReadonlySet<string>, 'has'>

type Publish = (stream: string, text: string) => void

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

  /** @param sinceMs skips frames with an earlier `E` */
  constructor(market: SymbolMarket, sinceMs: number) {
    const { symbol } = market.plan.instrument
    this.#market = market
    this.#streams = TICK_TYPES.map((type) => ({
      name: streamName(symbol, type),
      write: frameWriter(symbol, type),
    }))
    this.#prepareAfterMs = BLOCK_MS * (0.1 + 0.8 * (hash32('prepare', symbol) / 0x1_0000_0000))
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
    if (this.#block === undefined) this.#block = this.#market.block(this.#blockNumber)
    else this.#nextBlock ??= this.#market.block(this.#blockNumber + 1)
  }

  /** Earliest time with a frame to deliver. */
  get dueMs(): number {
    return this.#dueMs
  }

  /** Delivers every frame due by `nowMs`, up to the end of the last block created. */
  deliver(nowMs: number, audience: Audience, publish: Publish): void {
    while (this.#block !== undefined) {
      this.#deliverBlock(this.#block, nowMs, audience, publish)
      if (this.#dueMs > nowMs) return
      this.#blockNumber++
      this.#block = this.#nextBlock
      this.#nextBlock = undefined
      this.#sent = 0
      this.#sentOf.fill(0)
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
      this.#sentOf[code] = index + 1
      if (wanted[code] && this.#dueMs >= this.#sinceMs)
        publish(stream.name, stream.write(SERIES[type].event(block, index, this.#market.ids)))
    }
    this.#dueMs = startMs + BLOCK_MS
  }
}
