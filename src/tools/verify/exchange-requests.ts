import { ruleOf } from '../../foundation/binance/refusal.ts'
import type { FetchTrades, RestOutcome, TradeRequest } from '../../foundation/binance/trade-rest.ts'
import type { WeightBudget } from '../../foundation/binance/weight-budget.ts'
import { restOf } from '../../foundation/market/event.ts'
import { sleep } from '../../foundation/runtime/backoff.ts'

export interface ExchangeRest {
  readonly fetch: FetchTrades
  readonly budget: WeightBudget
  readonly signal: AbortSignal
}

export type Ask = (request: TradeRequest) => Promise<RestOutcome>

/** Asks the exchange's REST, and asks nothing more after a refusal that stops REST, as a ban does. */
export function withinBudget({ fetch, budget, signal }: ExchangeRest): Ask {
  let refused: RestOutcome | null = null
  return async (request) => {
    if (refused !== null) return refused
    for (;;) {
      signal.throwIfAborted()
      const waitMs = budget.take(restOf(request.type).weight, performance.now())
      if (waitMs === 0) break
      await sleep(waitMs, signal)
    }
    const answer = await fetch(request, signal)
    if (typeof answer.usedWeight === 'number') budget.used(answer.usedWeight, performance.now())
    if (stopsAll(answer)) refused = answer
    return answer
  }
}

/** Requests during a ban prolong it, and it may last for days. */
function stopsAll(answer: RestOutcome): boolean {
  if (answer.kind !== 'refused') return false
  return ruleOf(answer.refusal).stops !== 'request' || answer.refusal.retryAfterMs !== null
}

/** Why an answer lacks the row that was asked for. */
export function whyNot(answer: RestOutcome): string {
  switch (answer.kind) {
    case 'rows':
      return answer.rows[0] === undefined ? 'no row' : `the answer begins with ${answer.rows[0].id}`
    case 'refused':
      return answer.refusal.reason
    case 'failed':
      return answer.reason
  }
}
