import { type BookOutcome, DEPTH_WEIGHTS, type FetchBook } from '../../src/foundation/binance/depth-rest.ts'
import { refusalOf } from '../../src/foundation/binance/refusal.ts'
import type { NoAnswer } from '../../src/foundation/binance/rest-answer.ts'
import type { FetchTrades, RestOutcome, RestTrade } from '../../src/foundation/binance/trade-rest.ts'
import { restOf } from '../../src/foundation/market/event.ts'
import type { SideName } from '../../src/foundation/order-book/order-book.ts'
import { FaultyHistory } from '../../src/sandbox/simulator/faults/fault-history.ts'
import type { FaultRegistry } from '../../src/sandbox/simulator/faults/fault-registry.ts'
import { requestFate } from '../../src/sandbox/simulator/faults/fault-rest.ts'
import type { TradeEvent } from '../../src/sandbox/simulator/market/market-event.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { type LifeClock, ROUNDING_MS } from '../support/life-clock.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import type { Market } from './market.ts'

/** Unexpected answers that are not faults of the exchange's table. */
type Oddity = 'other unit' | 'exchangeInfo is not JSON' | 'exchangeInfo is short'

interface Shown {
  readonly market: Market
  readonly book: FaultRegistry
  readonly weightPerMinute: number
}

/** The exchange's REST over the true events, with faults. Records requests that break its rules. */
export class SimulatedRest {
  readonly complaints: string[] = []
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #shown: Shown
  readonly #history: FaultyHistory
  readonly #oddities = new Map<Oddity, number>()
  /** Its database lags. */
  #visibleMs = 0

  constructor(shown: Shown, clock: VirtualClock, random: Random) {
    this.#shown = shown
    this.#clock = clock
    this.#random = random
    const { market, book } = shown
    const past = {
      symbols: [],
      status: (symbol: string) => market.statuses.get(symbol) ?? null,
      nowMs: () => this.#visibleMs,
      events: market.eventsUntil(() => this.#visibleMs),
    }
    this.#history = new FaultyHistory(past, book)
  }

  /** Gives one kind of unexpected answer for a while. */
  misbehave(oddity: Oddity, forMs: number): void {
    this.#oddities.set(oddity, this.#clock.monotonicMs() + forMs)
  }

  heal(): void {
    this.#oddities.clear()
  }

  /** The answer to `exchangeInfo`. */
  symbols(): Map<string, string> {
    const { statuses } = this.#shown.market
    if (this.#isOdd('exchangeInfo is not JSON')) throw new Error('exchangeInfo is not JSON')
    if (!this.#isOdd('exchangeInfo is short')) return statuses
    return new Map([...statuses].filter(() => this.#random.chance(0.5)))
  }

  /** REST as seen by one process. */
  access(life: LifeClock): { readonly fetchTrades: FetchTrades; readonly fetchBook: FetchBook } {
    const spent: Array<{ readonly atMs: number; readonly weight: number }> = []
    let bannedUntilMs = 0
    const ask = <Outcome extends RestOutcome | BookOutcome>(
      weight: number,
      answer: () => Outcome,
    ): Promise<Outcome> => {
      const nowMs = this.#clock.monotonicMs()
      spent.push({ atMs: nowMs, weight })
      while (nowMs - (spent[0]?.atMs ?? nowMs) >= 60_000 - ROUNDING_MS) spent.shift()
      if (spent.reduce((sum, one) => sum + one.weight, 0) > this.#shown.weightPerMinute)
        this.complaints.push('more weight per minute than REST_WEIGHT_PER_MINUTE')
      if (nowMs + ROUNDING_MS < bannedUntilMs) this.complaints.push('a request before the end of Retry-After')
      return new Promise((resolve) => {
        life.schedule(this.#random.between(30, 500), () => {
          const outcome = answer()
          if (outcome.kind === 'refused')
            bannedUntilMs = this.#clock.monotonicMs() + (outcome.refusal.retryAfterMs ?? 0)
          resolve(outcome)
        })
      })
    }
    return {
      fetchTrades: (request) => ask(restOf(request.type).weight, () => this.#trades(request)),
      fetchBook: (symbol, limit) => {
        const weight = DEPTH_WEIGHTS.find((one) => one.limit === limit)?.weight
        if (weight === undefined) throw new Error(`No weight of ${limit} levels`)
        return ask(weight, () => this.#book(symbol, limit))
      },
    }
  }

  #isOdd(oddity: Oddity): boolean {
    return this.#clock.monotonicMs() < (this.#oddities.get(oddity) ?? 0)
  }

  #trades({ type, symbol, fromId, limit }: Parameters<FetchTrades>[0]): RestOutcome {
    const noAnswer = this.#noAnswer(restOf(type).path, symbol)
    if (noAnswer !== null) return noAnswer
    this.#visibleMs = Math.floor(this.#clock.wallMicros() / 1000) - this.#random.between(0, 3000)
    // Absent ids, and those not yet in its database, are at the end.
    const query = fromId === null ? { limit: 500 } : { fromId, limit }
    const rows = this.#history.events(type, symbol, query).slice(-limit)
    return { kind: 'rows', rows: rows.map(rowOf), usedWeight: 0 }
  }

  /** A book, sometimes of long ago. */
  #book(symbol: string, limit: number): BookOutcome {
    const noAnswer = this.#noAnswer('depth', symbol)
    if (noAnswer !== null) return noAnswer
    const lagMs = this.#random.between(0, this.#random.chance(0.05) ? 60_000 : 3000)
    const { market } = this.#shown
    const trueBook = market.book(symbol)
    const position = trueBook.positionAt(Math.floor(this.#clock.wallMicros() / 1000) - lagMs)
    const levels = (side: SideName) =>
      trueBook.levels(side, position, limit).map(([price, quantity]): [string, string] => [price, quantity])
    const { id: lastUpdateId } = market.updateAt(symbol, position)
    return { kind: 'book', book: { lastUpdateId, bids: levels('bids'), asks: levels('asks') }, usedWeight: 0 }
  }

  /** Why there is no answer at the moment; null if there is one. */
  #noAnswer(path: string, symbol: string): NoAnswer | null {
    const { answer } = requestFate(`/api/v3/${path}?symbol=${symbol}`, this.#shown.book)
    if (answer === 'reset') return { kind: 'failed', reason: 'reset' }
    if (answer !== 'as usual') {
      const { status, headers, body } = answer
      return { kind: 'refused', refusal: refusalOf(status, headers['retry-after'] ?? null, body, 0) }
    }
    if (this.#isOdd('other unit')) return { kind: 'failed', reason: 'REST gives times in microseconds' }
    if (this.#history.status(symbol) === null)
      return { kind: 'refused', refusal: refusalOf(400, null, '{"code":-1121,"msg":"Invalid symbol."}', 0) }
    return null
  }
}

function rowOf(event: TradeEvent): RestTrade {
  const { id, price, quantity, tradeTime, isBuyerMaker, firstTradeId: from, lastTradeId: to } = event
  const trades = from === undefined || to === undefined ? null : { from, to }
  return { id, price, quantity, timeUs: tradeTime * 1000, isBuyerMaker, isBestMatch: true, trades }
}
