import { type FetchTrades, REST_WEIGHT } from '../binance/trade-rest.ts'
import type { WeightBudget } from '../binance/weight-budget.ts'
import { streamName } from '../market/event.ts'
import { type Clock, sleepOn } from '../timing/clock.ts'
import type { Continuity, StreamEvent } from './continuity.ts'

/** A stream whose first frame has not come by then after a connection opened is asked for over REST. */
const PATIENCE_MS = 15_000

/**
 * After a start or reconnect a stream's first frame shows its own gap; a symbol that stays silent shows none. Those
 * are asked for: the latest aggTrade is cheap, and its `l` names the last trade too.
 */
export class SilenceCheck {
  readonly #fetch: FetchTrades
  readonly #budget: WeightBudget
  readonly #clock: Clock
  readonly #continuity: Pick<Continuity<StreamEvent>, 'lastIdOf' | 'expect'>

  constructor(
    fetch: FetchTrades,
    budget: WeightBudget,
    clock: Clock,
    continuity: Pick<Continuity<StreamEvent>, 'lastIdOf' | 'expect'>,
  ) {
    this.#fetch = fetch
    this.#budget = budget
    this.#clock = clock
    this.#continuity = continuity
  }

  /**
   * Waits a while and asks for the symbols of which nothing came.
   *
   * @param seenSince whether a stream has delivered since the connection opened
   */
  async run(
    symbols: readonly string[],
    seenSince: (stream: string) => boolean,
    signal: AbortSignal,
  ): Promise<void> {
    await sleepOn(this.#clock, PATIENCE_MS, signal)
    for (const symbol of symbols) {
      const trade = streamName(symbol, 'trade')
      const aggTrade = streamName(symbol, 'aggTrade')
      const known = [trade, aggTrade].filter(
        (stream) => this.#continuity.lastIdOf(stream) !== null && !seenSince(stream),
      )
      if (known.length > 0) await this.#ask(symbol, known, signal)
    }
  }

  async #ask(symbol: string, streams: readonly string[], signal: AbortSignal): Promise<void> {
    for (let waitMs = 1; waitMs > 0; ) {
      waitMs = this.#budget.take(REST_WEIGHT.aggTrade, this.#clock.monotonicMs())
      if (waitMs > 0) await sleepOn(this.#clock, waitMs, signal)
    }
    const answer = await this.#fetch({ type: 'aggTrade', symbol, fromId: null, limit: 1 })
    const latest = answer.kind === 'rows' ? answer.rows.at(-1) : undefined
    if (latest === undefined) return
    for (const stream of streams) {
      const id = stream.endsWith('@aggTrade') ? latest.id : (latest.trades?.to ?? -1)
      if (id >= 0) this.#continuity.expect(stream, id, latest.timeMs)
    }
  }
}
