import { streamName } from '../../../foundation/market/event.ts'
import type { SymbolMarket } from './market.ts'
import { hash32 } from './random.ts'
import { type BookLevel, SimulatedBook, type SimulatedDiff } from './simulated-book.ts'

/** The streams of the changes of a book: their names and how often they are cut. Tapeline reads only the first. */
const DEPTH_STREAMS: ReadonlyArray<{ readonly name: (symbol: string) => string; readonly periodMs: number }> =
  [
    { name: (symbol) => streamName(symbol, 'depth'), periodMs: 100 },
    { name: (symbol) => `${symbol.toLowerCase()}@depth`, periodMs: 1_000 },
  ]

/** Between the cuts of two groups of connections; no divisor of a period. */
const GROUP_SHIFT_MS = 37

export function depthStreams(symbol: string): string[] {
  return DEPTH_STREAMS.map(({ name }) => name(symbol))
}

/** @param groups of connections that get diffs with separate cuts */
export function depthCursors(market: SymbolMarket, groups: number, sinceMs: number): DepthCursor[] {
  const { symbol } = market.plan.instrument
  return DEPTH_STREAMS.flatMap(({ name, periodMs }) =>
    Array.from({ length: groups }, (_, group) => {
      return new DepthCursor(market, { stream: name(symbol), periodMs, group, sinceMs })
    }),
  )
}

/**
 * One depth stream of a symbol. At each cut it returns the changes since the cut before, with the update ids that
 * follow those of the diff before. Cuts depend only on the time, so a new cursor continues an earlier one's diffs.
 */
export class DepthCursor {
  readonly stream: string
  readonly group: number
  readonly #market: SymbolMarket
  readonly #periodMs: number
  #dueMs: number
  #book: SimulatedBook | undefined

  /** @param options.sinceMs skips earlier cuts */
  constructor(
    market: SymbolMarket,
    options: { stream: string; periodMs: number; group: number; sinceMs: number },
  ) {
    const { stream, periodMs, group, sinceMs } = options
    const { symbol } = market.plan.instrument
    this.#market = market
    this.stream = stream
    this.group = group
    this.#periodMs = periodMs
    // Differs by symbol, to spread the work.
    const phaseMs = (hash32('cut', symbol) + group * GROUP_SHIFT_MS) % periodMs
    this.#dueMs = Math.ceil((sinceMs - phaseMs) / periodMs) * periodMs + phaseMs
  }

  /** The time of the next cut. The diff contains the updates before it. */
  get dueMs(): number {
    return this.#dueMs
  }

  get isOpen(): boolean {
    return this.#book !== undefined
  }

  /** Skips the next cut, and frees the book. */
  skip(): void {
    this.#book = undefined
    this.#dueMs += this.#periodMs
  }

  /** The frames of the next cut: one, but none without an update, and two around a pause or a restart of the ids. */
  next(): string[] {
    const cutMs = this.#dueMs
    this.#dueMs += this.#periodMs
    const { clock, ids } = this.#market
    const from = clock.positionBeforeCut(cutMs, this.#periodMs)
    const to = clock.positionAt(cutMs - 1)
    const book = this.#book?.position === from ? this.#book : new SimulatedBook(this.#market, from)
    this.#book = book
    const frames: string[] = []
    while (book.position < to) {
      // A snapshot of a pause lies between two diffs.
      const { position } = book
      const end = Math.min(to, ids.update.lastOfEpochAt(position + 1), clock.nextPauseAfter(position))
      frames.push(this.#frame(book.cut(end), cutMs))
    }
    return frames
  }

  #frame({ first, last, bids, asks }: SimulatedDiff, eventTime: number): string {
    const { plan, ids } = this.#market
    const { symbol } = plan.instrument
    const levels = (side: readonly BookLevel[]) => side.map((level) => this.#level(level)).join()
    return (
      `{"stream":${JSON.stringify(this.stream)},"data":{"e":"depthUpdate","E":${eventTime},` +
      `"s":${JSON.stringify(symbol)},"U":${ids.update.idAt(first)},"u":${ids.update.idAt(last)},` +
      `"b":[${levels(bids)}],"a":[${levels(asks)}]}}`
    )
  }

  #level([ticks, steps]: BookLevel): string {
    const { price, quantity } = this.#market.plan.instrument
    return `["${price(ticks)}","${quantity(steps)}"]`
  }
}
