import type { ExchangeGate } from '../../foundation/binance/exchange-gate.ts'
import type { FetchTrades, RestOutcome, TradeRequest } from '../../foundation/binance/trade-rest.ts'
import type { WeightBudget } from '../../foundation/binance/weight-budget.ts'
import { restOf } from '../../foundation/market/event.ts'
import { sleep, unlessAborted } from '../../foundation/runtime/backoff.ts'
import { type Clock, Wake } from '../../foundation/runtime/clock.ts'

/** Statuses that are counted separately. */
const STOPPING: ReadonlySet<number> = new Set([403, 418, 429, 451])

interface Call {
  readonly request: TradeRequest
  readonly signal: AbortSignal
  readonly answer: PromiseWithResolvers<RestOutcome>
}

/** REST requests and answers, counted since the start. */
export interface RestMetricValues {
  /** By `ok`, an HTTP status that stops requests, `rejected` (another 4xx) or `failed`. */
  readonly answers: Readonly<Record<string, number>>
  /** Requests waiting for their turn. */
  readonly waiting: number
  readonly weightSpent: number
  readonly weightPerMinute: number
  /**
   * Weight used by the whole IP, as the exchange reported within the last minute; null without a
   * report.
   */
  readonly ipWeight: number | null
  /** Remaining time without requests, in milliseconds. */
  readonly waitLeftMs: number
}

/** Priority of a request: urgent ones go first, and should be rare and cheap. */
export type Urgency = 'urgent' | 'patient'

/**
 * Requests trades from the exchange: one request at a time for the whole process, within the weight
 * budget, and none while the exchange refuses REST. Specification: B5 to B7.
 */
export class RestCaller {
  readonly #fetch: FetchTrades
  readonly #budget: WeightBudget
  readonly #clock: Clock
  readonly #gate: Pick<ExchangeGate, 'leftMs' | 'refused' | 'served'>
  readonly #wake: Wake
  readonly #waiting: Readonly<Record<Urgency, Call[]>> = { urgent: [], patient: [] }
  #isWorking = false
  /** Answers by kind. */
  readonly #answers: Record<string, number> = {}

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

  metricValues(): RestMetricValues {
    const nowMs = this.#clock.monotonicMs()
    return {
      answers: { ...this.#answers },
      waiting: this.#waiting.urgent.length + this.#waiting.patient.length,
      weightSpent: this.#budget.spent,
      weightPerMinute: this.#budget.perMinute,
      ipWeight: this.#budget.ipWeight(nowMs),
      waitLeftMs: Math.max(this.#budget.waitLeftMs(nowMs), this.#gate.leftMs('rest')),
    }
  }

  /**
   * Queues a request and returns its outcome.
   *
   * @throws the signal's reason as soon as it aborts, at any stage of the request
   */
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
    for (;;) {
      const waitMs = this.#gate.leftMs('rest') || this.#budget.take(weight, this.#clock.monotonicMs())
      if (waitMs === 0) return
      await sleep(waitMs, signal, this.#clock)
    }
  }

  /**
   * Serves the queue until it is empty. Never rejects: an error goes to the caller of {@link ask}.
   */
  async #work(): Promise<void> {
    this.#isWorking = true
    for (let call = this.#first(); call !== undefined; call = this.#first()) {
      const waitMs =
        this.#gate.leftMs('rest') ||
        this.#budget.take(restOf(call.request.type).weight, this.#clock.monotonicMs())
      if (waitMs > 0) {
        await this.#wake.wait(waitMs)
        continue
      }
      this.#remove(call)
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

  /** Returns the next request. Drops aborted ones, whose callers were already rejected. */
  #first(): Call | undefined {
    for (const calls of [this.#waiting.urgent, this.#waiting.patient]) {
      while (calls[0]?.signal.aborted) calls.shift()
      if (calls[0] !== undefined) return calls[0]
    }
    return undefined
  }

  #remove(call: Call): void {
    for (const calls of [this.#waiting.urgent, this.#waiting.patient]) if (calls[0] === call) calls.shift()
  }

  #note(outcome: RestOutcome): void {
    const nowMs = this.#clock.monotonicMs()
    const answer = answerOf(outcome)
    this.#answers[answer] = (this.#answers[answer] ?? 0) + 1
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
