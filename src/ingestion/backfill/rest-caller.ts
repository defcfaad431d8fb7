import {
  type FetchTrades,
  REST_WEIGHT,
  type RestOutcome,
  type TradeRequest,
} from '../../foundation/binance/trade-rest.ts'
import type { WeightBudget } from '../../foundation/binance/weight-budget.ts'
import { unlessAborted } from '../../foundation/runtime/backoff.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import { Wake } from '../../foundation/runtime/wake.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'

/** After a 451: a region is not moved by asking often, and a 451 may have been a mistake of the network's. */
const REFUSED_WAIT_MS = 10 * 60_000
/** So many 451 in a row, 10 minutes apart, are believed. */
const REFUSALS = 3

interface Call {
  readonly request: TradeRequest
  readonly signal: AbortSignal
  readonly answer: PromiseWithResolvers<RestOutcome>
}

/** What was asked of REST and what it answered; counts since the start. */
export interface RestMetricValues {
  /** By `ok`, an HTTP status, `rejected` or `failed`. */
  readonly answers: Readonly<Record<string, number>>
  /** Requests that wait for their turn. */
  readonly waiting: number
  readonly weightSpent: number
  readonly weightPerMinute: number
  /** What the exchange said, within the last minute, that the whole IP has used; null when it has not. */
  readonly ipWeight: number | null
  /** How long it still forbids to ask. */
  readonly waitLeftMs: number
}

/** Who asks: what is urgent comes before all that waits, and should be rare and cheap. */
export type Urgency = 'urgent' | 'patient'

/**
 * The one who asks the exchange for trades: one request at a time for the whole process, within the weight budget,
 * and not while the exchange has told us to wait, whoever it told. Specification: B5 to B7.
 */
export class RestCaller {
  readonly #fetch: FetchTrades
  readonly #budget: WeightBudget
  readonly #clock: Clock
  readonly #log: Logger
  readonly #wake: Wake
  readonly #waiting: Readonly<Record<Urgency, Call[]>> = { urgent: [], patient: [] }
  #isWorking = false
  /** 451 in a row. */
  #refusals = 0
  #refusedUntilMs = 0
  /** Answers by what they said. */
  readonly #answers: Record<string, number> = {}

  constructor(fetch: FetchTrades, budget: WeightBudget, clock: Clock, log: Logger) {
    this.#fetch = fetch
    this.#budget = budget
    this.#clock = clock
    this.#log = log
    this.#wake = new Wake(clock)
  }

  /** The region is refused, time and again: asking is pointless until it is tried once more, ten minutes after the last. */
  get isRefused(): boolean {
    return this.#refusals >= REFUSALS && this.#clock.monotonicMs() < this.#refusedUntilMs
  }

  metricValues(): RestMetricValues {
    const nowMs = this.#clock.monotonicMs()
    return {
      answers: { ...this.#answers },
      waiting: this.#waiting.urgent.length + this.#waiting.patient.length,
      weightSpent: this.#budget.spent,
      weightPerMinute: this.#budget.perMinute,
      ipWeight: this.#budget.ipWeight(nowMs),
      waitLeftMs: this.#budget.waitLeftMs(nowMs),
    }
  }

  /**
   * Asks when it is its turn. A `refused` may be the answer to another's request that was made meanwhile.
   *
   * @throws the signal's reason, as soon as it aborts: at whatever point the request was
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

  /** Never rejects: what goes wrong goes to the one who asked. Ends when nobody waits. */
  async #work(): Promise<void> {
    this.#isWorking = true
    for (let call = this.#first(); call !== undefined; call = this.#first()) {
      const waitMs = this.#budget.take(REST_WEIGHT[call.request.type], this.#clock.monotonicMs())
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

  /** The next to be asked; the aborted have their answer already and are dropped. */
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
    if (outcome.kind === 'wait') {
      const { status, waitMs } = outcome
      this.#log.warn({ status, waitMs }, 'The exchange tells us to wait with REST requests')
      this.#budget.wait(waitMs, nowMs)
    }
    if (outcome.kind === 'refused') this.#noteRefusal(nowMs)
    else if (outcome.kind === 'rows' || outcome.kind === 'rejected') this.#noteService()
  }

  #noteRefusal(nowMs: number): void {
    if (this.#refusals === 0) {
      this.#log.error(
        { fix: 'Set BINANCE_REST_URL to the host for this region.' },
        'The exchange refuses this region (HTTP 451): gaps cannot be filled; asked again every 10 minutes',
      )
    }
    this.#refusals++
    this.#refusedUntilMs = nowMs + REFUSED_WAIT_MS
    this.#budget.wait(REFUSED_WAIT_MS, nowMs)
    // Or who waits behind the one that is to try again would never learn of it.
    for (const calls of [this.#waiting.urgent, this.#waiting.patient]) {
      for (const { answer } of calls.splice(0)) answer.resolve({ kind: 'refused' })
    }
  }

  #noteService(): void {
    if (this.#refusals > 0) this.#log.info('The exchange serves this region again')
    this.#refusals = 0
  }
}

/** One of the few words that an answer is counted under. */
function answerOf(outcome: RestOutcome): string {
  switch (outcome.kind) {
    case 'rows':
      return 'ok'
    case 'wait':
      return String(outcome.status)
    case 'refused':
      return '451'
    case 'rejected':
    case 'failed':
      return outcome.kind
  }
}
