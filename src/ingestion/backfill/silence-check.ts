import { ruleOf } from '../../foundation/binance/refusal.ts'
import {
  REST_LIMIT,
  type RestOutcome,
  type RestTrade,
  type TradeRequest,
} from '../../foundation/binance/trade-rest.ts'
import { restOf, streamName, TRADE_TYPES, type TradeType } from '../../foundation/market/event.ts'
import { type BackoffPolicy, delayFor, sleep } from '../../foundation/runtime/backoff.ts'
import { type Clock, Wake } from '../../foundation/runtime/clock.ts'
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

/** A symbol that has been silent since a connection opened, with the types that one request checks. */
interface Silent {
  readonly symbol: string
  /** A type of which REST has no latest; null for all types that have one. */
  readonly only: TradeType | null
  /** Its streams, and since when each is expected. */
  readonly streams: Map<string, number>
  dueMs: number
  rejections: number
  /** Consecutive failed requests for `only`. */
  failures: number
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
  /** The same for each type without a latest. */
  readonly #otherProblems = new Map<TradeType, string>()
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
      const known = TRADE_TYPES.filter((type) => {
        const stream = streamName(symbol, type)
        return streams.has(stream) && this.#continuity.lastIdOf(stream) !== null
      })
      const [others, latest] = [false, true].map((has) =>
        known.filter((type) => restOf(type).hasLatest === has),
      )
      if (latest !== undefined && latest.length > 0) this.#watch(symbol, null, latest, nowMs)
      for (const type of others ?? []) this.#watch(symbol, type, [type], nowMs)
    }
    this.#wake.ring()
  }

  #watch(symbol: string, only: TradeType | null, types: readonly TradeType[], nowMs: number): void {
    const silent = this.#pending.get(keyOf({ symbol, only })) ?? {
      ...{ symbol, only, streams: new Map<string, number>(), dueMs: 0, rejections: 0, failures: 0 },
    }
    for (const type of types) silent.streams.set(streamName(symbol, type), nowMs)
    this.#put(silent, nowMs + PATIENCE_MS)
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
    for (const [key, silent] of this.#pending) {
      if (silent.dueMs > nowMs) continue
      this.#forgetHeard(silent)
      if (silent.streams.size > 0) return silent
      this.#pending.delete(key)
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
    const { dueMs, symbol, only } = silent
    // The latest aggTrade answers for all types that have a latest; of the others, the next ids are requested.
    const last = only === null ? null : (this.#continuity.lastIdOf(streamName(symbol, only)) ?? -1)
    const request: TradeRequest =
      only === null || last === null
        ? { type: 'aggTrade', symbol, fromId: null, limit: 1 }
        : { type: only, symbol, fromId: last + 1, limit: REST_LIMIT }
    const answer = await this.#options.rest.ask(request, 'urgent', signal)
    // A stream that has delivered meanwhile reveals its own gap, perhaps with restarted ids.
    this.#forgetHeard(silent)
    if (answer.kind !== 'rows') return this.#notAnswered(silent, answer, signal)
    const latest = answer.rows.at(-1)
    if (latest !== undefined) this.#expect(silent, request, latest)
    // A symbol that has traded always has a latest aggTrade: the REST database lags.
    else if (only === null && this.#hasTraded(silent))
      return this.#later(silent, 'the answer is empty', signal)
    if (only === null) {
      this.#failures = 0
      this.#problem = null
    } else {
      this.#otherProblems.delete(only)
    }
    // A connection that opened meanwhile needs its own check.
    if (silent.dueMs === dueMs) this.#pending.delete(keyOf(silent))
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
    this.#pending.delete(keyOf(silent))
  }

  /** Delays all checks: backfill needs its turns, and a failing REST interface needs rest. */
  async #later(silent: Silent, reason: string | null, signal: AbortSignal): Promise<void> {
    const { clock, backoff, random } = this.#options
    if (silent.only !== null) {
      // Other symbols and types do not wait for this one.
      silent.failures++
      if (reason !== null && reason !== this.#otherProblems.get(silent.only)) {
        this.#log.warn(
          { symbol: silent.symbol },
          `Checking a silent symbol failed, retrying: ${silent.only}: ${reason}`,
        )
        this.#otherProblems.set(silent.only, reason)
      }
      return this.#put(silent, clock.monotonicMs() + delayFor(silent.failures, backoff, random()))
    }
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
    this.#pending.delete(keyOf(silent))
    this.#pending.set(keyOf(silent), silent)
  }
}

function keyOf({ symbol, only }: Pick<Silent, 'symbol' | 'only'>): string {
  return only === null ? symbol : streamName(symbol, only)
}
