import type { ExchangeGate } from '../../foundation/binance/exchange-gate.ts'
import type { FetchTrades, RestOutcome, TradeRequest } from '../../foundation/binance/trade-rest.ts'
import type { WeightBudget } from '../../foundation/binance/weight-budget.ts'
import { restOf } from '../../foundation/market/event.ts'
import { sleep, unlessAborted } from '../../foundation/runtime/backoff.ts'
import { type Clock, Wake } from '../../foundation/runtime/clock.ts'
import { Tally } from '../../foundation/telemetry/tally.ts'

/** Statuses that are counted separately. */
const STOPPING: ReadonlySet<number> = new Set([403, 418, 429, 451])

interface Call {
  readonly request: TradeRequest
  readonly signal: AbortSignal
  readonly answer: PromiseWithResolvers<RestOutcome>
}

/** Priority of a request: urgent ones go first, and should be rare and cheap. */
export type Urgency = 'urgent' | 'patient'

/** Requests trades one at a time, within the weight, none while refused. Specification: B5 to B7. */
export class RestCaller {
  readonly #fetch: FetchTrades
  readonly #budget: WeightBudget
  readonly #clock: Clock
  readonly #gate: Pick<ExchangeGate, 'leftMs' | 'refused' | 'served'>
  readonly #wake: Wake
  readonly #waiting: Readonly<Record<Urgency, Call[]>> = { urgent: [], patient: [] }
  #isWorking = false
  readonly #answers = new Tally()

  constructor(
    fetch: FetchTrades,
    budget: WeightBudget,
    gate: Pick<ExchangeGate, 'leftMs' | 'refused' | 'served'>,
    clock: Clock,
  ) {
    this.#fetch = fetch
    this.#budget = budget
    this.#clock = clock
    this.#gate = gate
    this.#wake = new Wake(clock)
  }

  metricValues() {
    const nowMs = this.#clock.monotonicMs()
    return {
      /** By `ok`, an HTTP status that stops requests, `rejected` (another 4xx) or `failed`. */
      answers: this.#answers.of('rest'),
      /** Requests waiting for their turn. */
      waiting: this.#waiting.urgent.length + this.#waiting.patient.length,
      weightSpent: this.#budget.spent,
      weightPerMinute: this.#budget.perMinute,
      /** Weight used by the whole IP, as reported within the last minute; null without a report. */
      ipWeight: this.#budget.ipWeight(nowMs),
      /** Remaining time without requests, in milliseconds. */
      waitLeftMs: Math.max(this.#budget.waitLeftMs(nowMs), this.#gate.leftMs('rest')),
    }
  }

  /** Queues a request. @throws the signal's reason as soon as it aborts, at any stage of the request */
  async ask(request: TradeRequest, urgency: Urgency, signal: AbortSignal): Promise<RestOutcome> {
    signal.throwIfAborted()
    const call: Call = { request, signal, answer: Promise.withResolvers() }
    this.#waiting[urgency].push(call)
    const ring = () => this.#wake.ring()
    signal.addEventListener('abort', ring, { once: true })
    if (this.#isWorking) ring()
    else void this.#work()
    try {
      return await unlessAborted(call.answer.promise, signal)
    } finally {
      signal.removeEventListener('abort', ring)
    }
  }

  /** Waits until a request made elsewhere is allowed, and counts its weight. */
  async spend(weight: number, signal: AbortSignal): Promise<void> {
    for (let waitMs = this.#waitMs(weight); waitMs > 0; waitMs = this.#waitMs(weight))
      await sleep(waitMs, signal, this.#clock)
  }

  /** Serves the queue until it is empty. Never rejects: an error goes to the caller of {@link ask}. */
  async #work(): Promise<void> {
    this.#isWorking = true
    for (let calls = this.#next(); calls?.[0] !== undefined; calls = this.#next()) {
      const [call] = calls
      const waitMs = this.#waitMs(restOf(call.request.type).weight)
      if (waitMs > 0) {
        await this.#wake.wait(waitMs)
        continue
      }
      calls.shift()
      try {
        const outcome = await unlessAborted(this.#fetch(call.request, call.signal), call.signal)
        this.#note(outcome)
        call.answer.resolve(outcome)
      } catch (error) {
        call.answer.reject(error)
      }
    }
    this.#isWorking = false
  }

  /** Returns the queue that begins with the next request. Drops aborted ones, already rejected. */
  #next(): Call[] | undefined {
    return [this.#waiting.urgent, this.#waiting.patient].find((calls) => {
      while (calls[0]?.signal.aborted) calls.shift()
      return calls.length > 0
    })
  }

  /** Returns how long to wait for a request of this weight; 0 if it is allowed now, and counted. */
  #waitMs(weight: number): number {
    return this.#gate.leftMs('rest') || this.#budget.take(weight, this.#clock.monotonicMs())
  }

  #note(outcome: RestOutcome): void {
    const nowMs = this.#clock.monotonicMs()
    this.#answers.add('rest', answerOf(outcome))
    if (typeof outcome.usedWeight === 'number') this.#budget.used(outcome.usedWeight, nowMs)
    if (outcome.kind === 'rows') this.#gate.served('rest')
    else if (outcome.kind === 'refused') this.#gate.refused('rest', outcome.refusal)
  }
}

/** Returns the label under which an answer is counted. */
function answerOf(outcome: RestOutcome): string {
  switch (outcome.kind) {
    case 'rows':
      return 'ok'
    case 'refused': {
      const { status } = outcome.refusal
      if (STOPPING.has(status)) return String(status)
      return status >= 500 ? 'failed' : 'rejected'
    }
    case 'failed':
      return 'failed'
  }
}
