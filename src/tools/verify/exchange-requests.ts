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

/** Asks the exchange's REST, and asks nothing more after a refusal that stops REST, as a ban does. */
export class ExchangeRequests {
  readonly #rest: ExchangeRest
  #refused: RestOutcome | null = null

  constructor(rest: ExchangeRest) {
    this.#rest = rest
  }

  get signal(): AbortSignal {
    return this.#rest.signal
  }

  async ask(request: TradeRequest): Promise<RestOutcome> {
    if (this.#refused !== null) return this.#refused
    const { fetch, budget, signal } = this.#rest
    for (;;) {
      signal.throwIfAborted()
      const waitMs = budget.take(restOf(request.type).weight, performance.now())
      if (waitMs === 0) break
      await sleep(waitMs, signal)
    }
    const answer = await fetch(request, signal)
    if (typeof answer.usedWeight === 'number') budget.used(answer.usedWeight, performance.now())
    if (stopsAll(answer)) this.#refused = answer
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
