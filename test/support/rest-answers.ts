import { ExchangeGate } from '../../src/foundation/binance/exchange-gate.ts'
import { refusalOf } from '../../src/foundation/binance/refusal.ts'
import type { FetchTrades, RestOutcome, RestTrade } from '../../src/foundation/binance/trade-rest.ts'
import type { WeightBudget } from '../../src/foundation/binance/weight-budget.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import type { Logger } from '../../src/foundation/telemetry/log.ts'
import { RestCaller } from '../../src/ingestion/backfill/rest-caller.ts'

/** A trade as REST returns it; fields can be replaced. */
export function restTrade(id: number, fields: Partial<RestTrade> = {}): RestTrade {
  const price = { price: '1', quantity: '1', isBuyerMaker: true, isBestMatch: true }
  return { id, ...price, timeUs: 1000, trades: null, ...fields }
}

/** REST answers with the trades `[from, to]`. */
export function restRows(from: number, to: number): RestOutcome {
  const rows = Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => restTrade(from + i))
  return { kind: 'rows', rows, usedWeight: 0 }
}

/** REST answers with an HTTP error. @param retryAfter in seconds */
export function restRefused(status: number, retryAfter: number | null = null, body = ''): RestOutcome {
  const refusal = refusalOf(status, retryAfter === null ? null : String(retryAfter), body, 0)
  return { kind: 'refused', refusal }
}

export function gateOf(clock: Clock, log: Logger, random = 0.5): ExchangeGate {
  return new ExchangeGate(
    clock,
    () => random,
    (level, details, text) => log[level](details, text),
  )
}

export function restCaller(fetch: FetchTrades, budget: WeightBudget, clock: Clock, log: Logger): RestCaller {
  return new RestCaller(fetch, budget, gateOf(clock, log), clock)
}
