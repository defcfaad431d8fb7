import { refusalOf } from '../../src/foundation/binance/refusal.ts'
import type { FetchTrades, RestOutcome, RestTrade } from '../../src/foundation/binance/trade-rest.ts'
import { restOf } from '../../src/foundation/market/event.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import { type LifeClock, ROUNDING_MS } from '../support/life-clock.ts'
import { type Market, priceOf, quantityOf, type TrueSequence } from './market.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'

/** Behaviour of REST during a fault. */
export type RestFault =
  | 'wait 429'
  | 'wait 418'
  | 'firewall 403'
  | 'error 500'
  | 'refused 451'
  | 'page 404'
  | 'maintenance 503'
  | 'other unit'
  | 'empty'
  | 'short'
  | 'clamp'

/** Ids that REST never shows. */
export interface RestHole {
  readonly sequence: TrueSequence
  readonly from: number
  readonly to: number
}

/** Status and `Retry-After` in seconds of each refusal. */
const REFUSALS: Readonly<Partial<Record<RestFault, readonly [status: number, retryAfter: string | null]>>> = {
  'wait 429': [429, '20'],
  'wait 418': [418, '120'],
  'firewall 403': [403, null],
  'error 500': [500, null],
  'refused 451': [451, null],
  'page 404': [404, null],
  'maintenance 503': [503, null],
}

/**
 * The exchange's REST interface over the true events, with faults. It records requests that break
 * its rules.
 */
export class SimulatedRest {
  readonly complaints: string[] = []
  readonly holes: RestHole[] = []
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #market: Market
  readonly #weightPerMinute: number
  #fault: { readonly kind: RestFault; readonly untilMs: number } | null = null
  #symbolsFault: { readonly kind: 'error' | 'short'; readonly untilMs: number } | null = null
  requests = 0

  constructor(market: Market, weightPerMinute: number, clock: VirtualClock, random: Random) {
    this.#market = market
    this.#weightPerMinute = weightPerMinute
    this.#clock = clock
    this.#random = random
  }

  misbehave(kind: RestFault, forMs: number): void {
    this.#fault = { kind, untilMs: this.#clock.monotonicMs() + forMs }
  }

  heal(): void {
    this.#fault = null
    this.#symbolsFault = null
  }

  /** Answers `exchangeInfo` with an error, or without some symbols. */
  misname(kind: 'error' | 'short', forMs: number): void {
    this.#symbolsFault = { kind, untilMs: this.#clock.monotonicMs() + forMs }
  }

  /** The answer to `exchangeInfo`. */
  symbols(): Map<string, string> {
    const { statuses } = this.#market
    const fault = this.#symbolsFault
    if (this.#clock.monotonicMs() >= (fault?.untilMs ?? 0)) return statuses
    if (fault?.kind === 'error') throw new Error('exchangeInfo is not JSON')
    return new Map([...statuses].filter(() => this.#random.chance(0.5)))
  }

  /** Permanently hides this many ids, from the next one on. */
  hide(symbol: string, type: 'trade' | 'aggTrade', ids: number): void {
    const sequence = this.#market.current(symbol, type)
    const from = sequence.firstId + sequence.timesMs.length
    this.holes.push({ sequence, from, to: from + ids - 1 })
  }

  /** REST as seen by one process. */
  fetchTrades(life: LifeClock): FetchTrades {
    const spent: Array<{ readonly atMs: number; readonly weight: number }> = []
    let bannedUntilMs = 0
    return (request) => {
      const nowMs = this.#clock.monotonicMs()
      this.requests++
      spent.push({ atMs: nowMs, weight: restOf(request.type).weight })
      while (nowMs - (spent[0]?.atMs ?? nowMs) >= 60_000 - ROUNDING_MS) spent.shift()
      if (spent.reduce((sum, { weight }) => sum + weight, 0) > this.#weightPerMinute)
        this.complaints.push('more weight per minute than REST_WEIGHT_PER_MINUTE')
      if (nowMs + ROUNDING_MS < bannedUntilMs) this.complaints.push('a request before the end of Retry-After')
      return new Promise((resolve) => {
        life.schedule(this.#random.between(30, 500), () => {
          const outcome = this.#answer(request)
          if (outcome.kind === 'refused')
            bannedUntilMs = this.#clock.monotonicMs() + (outcome.refusal.retryAfterMs ?? 0)
          resolve(outcome)
        })
      })
    }
  }

  #answer({ type, symbol, fromId, limit }: Parameters<FetchTrades>[0]): RestOutcome {
    const nowMs = this.#clock.monotonicMs()
    const kind = this.#fault !== null && this.#fault.untilMs > nowMs ? this.#fault.kind : null
    const refused = kind === null ? undefined : REFUSALS[kind]
    if (refused !== undefined) return { kind: 'refused', refusal: refusalOf(...refused, '', 0) }
    if (kind === 'other unit') return { kind: 'failed', reason: 'REST gives times in microseconds' }
    if (!this.#market.statuses.has(symbol))
      return { kind: 'refused', refusal: refusalOf(400, null, '{"code":-1121,"msg":"Invalid symbol."}', 0) }
    if (kind === 'empty') return { kind: 'rows', rows: [], usedWeight: 0 }
    if (type !== 'trade' && type !== 'aggTrade') return { kind: 'rows', rows: [], usedWeight: 0 }
    const sequence = this.#market.current(symbol, type)
    if (fromId === null) return { kind: 'rows', rows: this.#latest(sequence, limit), usedWeight: 0 }
    const from = fromId
    const oldest = kind === 'clamp' ? Math.max(from, sequence.firstId + sequence.timesMs.length - 50) : from
    const rows = this.#rows(sequence, oldest, kind === 'short' ? Math.min(limit, 3) : limit)
    return { kind: 'rows', rows, usedWeight: 0 }
  }

  #latest(sequence: TrueSequence, limit: number): RestTrade[] {
    const end = sequence.firstId + sequence.timesMs.length
    // Hidden ids, and those not yet in its database, are at the end.
    return this.#rows(sequence, Math.max(sequence.firstId, end - 500), 500).slice(-limit)
  }

  /** The rows in its lagging database. */
  #rows(sequence: TrueSequence, from: number, limit: number): RestTrade[] {
    const { firstId, timesMs, firstTrades } = sequence
    const visibleMs = Math.floor(this.#clock.wallMicros() / 1000) - this.#random.between(0, 3000)
    const rows: RestTrade[] = []
    for (let id = Math.max(from, firstId); rows.length < limit; id++) {
      const timeMs = timesMs[id - firstId]
      if (timeMs === undefined || timeMs > visibleMs) break
      if (this.holes.some((hole) => hole.sequence === sequence && hole.from <= id && id <= hole.to)) continue
      const first = firstTrades[id - firstId]
      const lastTrade = (firstTrades[id - firstId + 1] ?? this.#lastTrade(sequence) + 1) - 1
      rows.push({
        id,
        price: priceOf(id),
        quantity: quantityOf(id),
        timeUs: timeMs * 1000,
        isBuyerMaker: true,
        isBestMatch: true,
        trades: first === undefined ? null : { from: first, to: lastTrade },
      })
    }
    return rows
  }

  #lastTrade({ symbol, epoch }: TrueSequence): number {
    const trades = this.#market.sequences.find(
      (one) => one.symbol === symbol && one.type === 'trade' && one.epoch === epoch,
    )
    return trades === undefined ? 0 : trades.firstId + trades.timesMs.length - 1
  }
}
