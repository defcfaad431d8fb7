import { updateOffsetAt } from './book-block.ts'
import type { MarketBlock } from './market-block.ts'
import { blockAt, blockStartMs, type SymbolPlan } from './market-plan.ts'

/** A time without trading; both ends are milliseconds since the Unix epoch and included, except the first one. */
interface Pause {
  readonly fromMs: number
  toMs: number
  /** The newest update before it. */
  readonly position: number
}

/** Which update of its book a symbol has reached at a time. While it does not trade, its book does not change. */
export class BookClock {
  readonly #plan: SymbolPlan
  readonly #block: (number: number) => MarketBlock
  readonly #pauses: Pause[] = []

  constructor(plan: SymbolPlan, block: (number: number) => MarketBlock) {
    this.#plan = plan
    this.#block = block
  }

  /** Begins a pause after the events of `ms`. */
  pause(ms: number): void {
    this.#pauses.push({ fromMs: ms, toMs: Number.POSITIVE_INFINITY, position: this.positionAt(ms) })
  }

  resume(ms: number): void {
    const pause = this.#pauses.at(-1)
    if (pause !== undefined) pause.toMs = ms
  }

  /** The position of the newest update at the end of a millisecond. */
  positionAt(ms: number): number {
    const pause = this.#pauses.find(({ fromMs, toMs }) => ms > fromMs && ms <= toMs)
    const tradingMs = pause?.fromMs ?? ms
    const number = blockAt(tradingMs)
    const offset = updateOffsetAt(this.#block(number), tradingMs - blockStartMs(number))
    return number * this.#plan.updateIdsPerBlock + offset
  }

  /** The position at which the book next pauses, after this one; infinite if it does not. */
  nextPauseAfter(position: number): number {
    return this.#pauses.find((pause) => pause.position > position)?.position ?? Number.POSITIVE_INFINITY
  }

  /** The position at the previous of the cuts that come every `periodMs`. None comes in a pause. */
  positionBeforeCut(cutMs: number, periodMs: number): number {
    const previousMs = cutMs - periodMs
    const pause = this.#pauses.find(({ fromMs, toMs }) => previousMs > fromMs && previousMs <= toMs)
    if (pause === undefined) return this.positionAt(previousMs - 1)
    const skipped = Math.ceil((previousMs - pause.fromMs) / periodMs)
    return this.positionBeforeCut(previousMs - (skipped - 1) * periodMs, periodMs)
  }
}
