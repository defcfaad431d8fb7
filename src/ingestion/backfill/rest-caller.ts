import type { ExchangeGate } from '../../foundation/binance/exchange-gate.ts'
import type { NoAnswer } from '../../foundation/binance/rest-answer.ts'
import type { FetchTrades, RestOutcome, TradeRequest } from '../../foundation/binance/trade-rest.ts'
import type { WeightBudget } from '../../foundation/binance/weight-budget.ts'
import { restOf } from '../../foundation/market/event.ts'
import { sleep, unlessAborted } from '../../foundation/runtime/backoff.ts'
import { type Clock, Wake } from '../../foundation/runtime/clock.ts'
import { Tally } from '../../foundation/telemetry/tally.ts'

/** Statuses that are counted separately. */
const STOPPING: ReadonlySet<number> = new Set([403, 418, 429, 451])

interface Call {
  readonly weight: number
  readonly signal: AbortSignal
  /** Sends the request and settles the caller's promise. Never rejects. */
  readonly send: () => Promise<void>
}

/** Priority of a request: urgent ones go first, and should be rare and cheap; idle ones go last. */
export type Urgency = 'urgent' | 'patient' | 'idle'

/** An answer to a request, or why there is none. */
type Answer = NoAnswer | { readonly kind: 'rows' | 'book'; readonly usedWeight?: number | null }

/** Sends requests one at a time, within the weight, none while refused. Specification: B5 to B7. */
export class RestCaller {
  readonly #fetch: FetchTrades
  readonly #budget: WeightBudget
  readonly #clock: Clock
  readonly #gate: Pick<ExchangeGate, 'leftMs' | 'refused' | 'served'>
  readonly #wake: Wake
  readonly #waiting: Readonly<Record<Urgency, Call[]>> = { urgent: [], patient: [], idle: [] }
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
      waiting: Object.values(this.#waiting).reduce((sum, { length }) => sum + length, 0),
      weightSpent: this.#budget.spent,
      weightPerMinute: this.#budget.perMinute,
      /** Weight used by the whole IP, as reported within the last minute; null without a report. */
      ipWeight: this.#budget.ipWeight(nowMs),
      /** Remaining time without requests, in milliseconds. */
      waitLeftMs: Math.max(this.#budget.waitLeftMs(nowMs), this.#gate.leftMs('rest')),
    }
  }

  /** Queues a request for trades. @throws like {@link call} */
  ask(request: TradeRequest, urgency: Exclude<Urgency, 'idle'>, signal: AbortSignal): Promise<RestOutcome> {
    return this.call(restOf(request.type).weight, () => this.#fetch(request, signal), urgency, signal)
  }

  /** Queues a request. @throws the signal's reason as soon as it aborts, at any stage of the request */
  async call<Outcome extends Answer>(
    weight: number,
    fetch: () => Promise<Outcome>,
    urgency: Urgency,
    signal: AbortSignal,
  ): Promise<Outcome> {
    signal.throwIfAborted()
    const answer = Promise.withResolvers<Outcome>()
    const send = async () => {
      try {
        const outcome = await unlessAborted(fetch(), signal)
        this.#note(outcome)
        answer.resolve(outcome)
      } catch (error) {
        answer.reject(error)
      }
    }
    this.#waiting[urgency].push({ weight, signal, send })
    const ring = () => this.#wake.ring()
    signal.addEventListener('abort', ring, { once: true })
    if (this.#isWorking) ring()
    else void this.#work()
    try {
      return await unlessAborted(answer.promise, signal)
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
      const waitMs = this.#waitMs(call.weight)
      if (waitMs > 0) {
        await this.#wake.wait(waitMs)
        continue
      }
      calls.shift()
      await call.send()
    }
    this.#isWorking = false
  }

  /** Returns the queue that begins with the next request. Drops aborted ones, already rejected. */
  #next(): Call[] | undefined {
    const { urgent, patient, idle } = this.#waiting
    return [urgent, patient, idle].find((calls) => {
      while (calls[0]?.signal.aborted) calls.shift()
      return calls.length > 0
    })
  }

  /** Returns how long to wait for a request of this weight; 0 if it is allowed now, and counted. */
  #waitMs(weight: number): number {
    return this.#gate.leftMs('rest') || this.#budget.take(weight, this.#clock.monotonicMs())
  }

  #note(outcome: Answer): void {
    const nowMs = this.#clock.monotonicMs()
    this.#answers.add('rest', answerOf(outcome))
    if (typeof outcome.usedWeight === 'number') this.#budget.used(outcome.usedWeight, nowMs)
    if (outcome.kind === 'refused') this.#gate.refused('rest', outcome.refusal)
    else if (outcome.kind !== 'failed') this.#gate.served('rest')
  }
}

/** Returns the label under which an answer is counted. */
function answerOf(outcome: Answer): string {
  switch (outcome.kind) {
    case 'rows':
    case 'book':
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
