import { ruleOf } from '../../foundation/binance/refusal.ts'
import {
  REST_LIMIT,
  type RestOutcome,
  type RestTrade,
  type TradeRequest,
} from '../../foundation/binance/trade-rest.ts'
import { restOf, streamName, TRADE_TYPES } from '../../foundation/market/event.ts'
import { type BackoffPolicy, delayFor, sleep } from '../../foundation/runtime/backoff.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import { Wake } from '../../foundation/runtime/wake.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { Continuity, StreamEvent } from '../continuity/continuity.ts'
import type { RestCaller } from './rest-caller.ts'

/** A stream without a frame for so long after its connection opened is checked over REST. */
const PATIENCE_MS = 15_000

/** After so many answers that the symbol is unknown, its check is dropped. */
const MAX_REJECTIONS = 3

export interface SilenceCheckOptions {
  readonly rest: RestCaller
  readonly clock: Clock
  /** A number in [0, 1). */
  readonly random: () => number
  readonly backoff: BackoffPolicy
  /** Whether a stream has delivered since a time on the monotonic clock. */
  readonly hasDeliveredSince: (stream: string, sinceMs: number) => boolean
}

/** A symbol that has been silent since a connection opened. */
interface Silent {
  readonly symbol: string
  /** Its streams, and since when each is expected. */
  readonly streams: Map<string, number>
  dueMs: number
  rejections: number
}

/**
 * After a start or reconnect, the first frame of a stream reveals its gap; a silent symbol reveals
 * none. This check asks REST about those: the latest aggTrade is cheap, and its `l` also gives the
 * last trade id. For a type without a latest, it requests what follows the last id.
 * Specification: C3.
 */
export class SilenceCheck {
  readonly #options: SilenceCheckOptions
  readonly #continuity: Pick<Continuity<StreamEvent>, 'lastIdOf' | 'expect'>
  readonly #log: Logger
  readonly #wake: Wake
  readonly #stopping = new AbortController()
  readonly #pending = new Map<string, Silent>()
  /** Consecutive failed requests. */
  #failures = 0
  /** Why the last request failed; each reason is logged once. */
  #problem: string | null = null
  #running: Promise<void> | null = null

  constructor(
    options: SilenceCheckOptions,
    continuity: Pick<Continuity<StreamEvent>, 'lastIdOf' | 'expect'>,
    log: Logger,
  ) {
    this.#options = options
    this.#continuity = continuity
    this.#log = log
    this.#wake = new Wake(options.clock)
  }

  /** Symbols that are still expected. */
  get pending(): number {
    return this.#pending.size
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /**
   * Expects these streams on a connection that has just opened. A stream that was expected already
   * gets a new deadline instead of a second check, so reconnects cause neither requests nor a
   * backlog.
   */
  watch(symbols: Iterable<string>, streams: ReadonlySet<string>): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const symbol of symbols) {
      const known = TRADE_TYPES.map((type) => streamName(symbol, type)).filter(
        (stream) => streams.has(stream) && this.#continuity.lastIdOf(stream) !== null,
      )
      if (known.length === 0) continue
      const before = this.#pending.get(symbol)
      const silent = before ?? { symbol, streams: new Map<string, number>(), dueMs: 0, rejections: 0 }
      for (const stream of known) silent.streams.set(stream, nowMs)
      this.#put(silent, nowMs + PATIENCE_MS)
    }
    this.#wake.ring()
  }

  /** Stops without waiting for the exchange: a running request is aborted. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    this.#wake.ring()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      const nowMs = this.#options.clock.monotonicMs()
      const silent = this.#nextDue(nowMs)
      try {
        if (silent !== undefined) await this.#ask(silent, signal)
        else if (this.#pending.size === 0) await this.#wake.wait()
        else await this.#wake.wait(Math.max(1, this.#firstDueMs() - nowMs))
      } catch (error) {
        if (!signal.aborted) throw error
      }
    }
  }

  /**
   * Returns the next due symbol and forgets those that have delivered. The first is nearly always
   * due first.
   */
  #nextDue(nowMs: number): Silent | undefined {
    for (const [symbol, silent] of this.#pending) {
      if (silent.dueMs > nowMs) continue
      this.#forgetHeard(silent)
      if (silent.streams.size > 0) return silent
      this.#pending.delete(symbol)
    }
    return undefined
  }

  #firstDueMs(): number {
    let first = Number.POSITIVE_INFINITY
    for (const { dueMs } of this.#pending.values()) first = Math.min(first, dueMs)
    return first
  }

  #forgetHeard({ streams }: Silent): void {
    for (const [stream, sinceMs] of streams)
      if (this.#options.hasDeliveredSince(stream, sinceMs)) streams.delete(stream)
  }

  async #ask(silent: Silent, signal: AbortSignal): Promise<void> {
    const { dueMs } = silent
    for (const request of this.#requests(silent)) {
      const answer = await this.#options.rest.ask(request, 'urgent', signal)
      // A stream that has delivered meanwhile reveals its own gap, perhaps with restarted ids.
      this.#forgetHeard(silent)
      if (answer.kind !== 'rows') return this.#notAnswered(silent, answer, signal)
      const latest = answer.rows.at(-1)
      if (latest !== undefined) this.#expect(silent, request, latest)
      // A symbol that has traded always has a latest aggTrade: the REST database lags.
      else if (request.fromId === null && this.#hasTraded(silent))
        return this.#later(silent, 'the answer is empty', signal)
    }
    this.#failures = 0
    this.#problem = null
    // A connection that opened meanwhile needs its own check.
    if (silent.dueMs === dueMs) this.#pending.delete(silent.symbol)
  }

  /** The latest aggTrade for all types that have a latest; the next ids of each other type. */
  #requests({ symbol, streams }: Silent): TradeRequest[] {
    const types = TRADE_TYPES.filter((type) => streams.has(streamName(symbol, type)))
    const latest: TradeRequest = { type: 'aggTrade', symbol, fromId: null, limit: 1 }
    return [
      ...(types.some((type) => restOf(type).hasLatest) ? [latest] : []),
      ...types
        .filter((type) => !restOf(type).hasLatest)
        .map((type) => {
          const last = this.#continuity.lastIdOf(streamName(symbol, type)) ?? -1
          return { type, symbol, fromId: last + 1, limit: REST_LIMIT }
        }),
    ]
  }

  #expect({ symbol, streams }: Silent, { type: asked, fromId }: TradeRequest, latest: RestTrade): void {
    for (const type of TRADE_TYPES) {
      const stream = streamName(symbol, type)
      const isAnswered = fromId === null ? restOf(type).hasLatest : type === asked
      const id = type === asked ? latest.id : latest.trades?.to
      if (isAnswered && streams.has(stream) && id !== undefined && id >= 0)
        this.#continuity.expect(stream, id, Math.floor(latest.timeUs / 1000))
    }
  }

  #hasTraded({ streams }: Silent): boolean {
    return [...streams.keys()].some((stream) => (this.#continuity.lastIdOf(stream) ?? -1) >= 0)
  }

  async #notAnswered(
    silent: Silent,
    answer: Exclude<RestOutcome, { readonly kind: 'rows' }>,
    signal: AbortSignal,
  ): Promise<void> {
    if (answer.kind === 'failed') return this.#later(silent, answer.reason, signal)
    const { reason } = answer.refusal
    const { isFinal, stops } = ruleOf(answer.refusal)
    // A refusal that stops all of REST is logged elsewhere, once.
    if (!isFinal) return this.#later(silent, stops === 'request' ? reason : null, signal)
    silent.rejections++
    if (silent.rejections < MAX_REJECTIONS)
      return this.#put(silent, this.#options.clock.monotonicMs() + PATIENCE_MS)
    this.#log.warn({ symbol: silent.symbol }, `Dropped the check of a silent symbol: ${reason}`)
    this.#pending.delete(silent.symbol)
  }

  /** Delays all checks: backfill needs its turns, and a failing REST interface needs rest. */
  async #later(silent: Silent, reason: string | null, signal: AbortSignal): Promise<void> {
    const { clock, backoff, random } = this.#options
    if (reason !== null && reason !== this.#problem)
      this.#log.warn({ symbol: silent.symbol }, `Checking a silent symbol failed, retrying: ${reason}`)
    this.#problem = reason ?? this.#problem
    this.#failures++
    const waitMs = delayFor(this.#failures, backoff, random())
    this.#put(silent, clock.monotonicMs() + waitMs)
    await sleep(waitMs, signal, clock)
  }

  /** Appends it, so that the first is due first. */
  #put(silent: Silent, dueMs: number): void {
    silent.dueMs = Math.max(silent.dueMs, dueMs)
    this.#pending.delete(silent.symbol)
    this.#pending.set(silent.symbol, silent)
  }
}
