import { ruleOf } from '../../foundation/binance/refusal.ts'
import {
  REST_LIMIT,
  type RestOutcome,
  type RestTrade,
  type TradeRequest,
} from '../../foundation/binance/trade-rest.ts'
import { restOf, streamName, TRADE_TYPES, type TradeType } from '../../foundation/market/event.ts'
import { delayFor, sleep } from '../../foundation/runtime/backoff.ts'
import { Wake } from '../../foundation/runtime/clock.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { Continuity, StreamEvent } from '../continuity/continuity.ts'
import type { RetryTiming } from './backfill-attempt.ts'
import type { RestCaller } from './rest-caller.ts'
import { StoppableLoop } from './stoppable-loop.ts'

/** A stream without a frame for so long after its connection opened is checked over REST. */
const PATIENCE_MS = 15_000

/** After so many answers that the symbol is unknown, its check is dropped. */
const MAX_REJECTIONS = 3

export interface SilenceCheckOptions extends RetryTiming {
  readonly rest: RestCaller
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
  readonly #loop: StoppableLoop
  readonly #pending = new Map<string, Silent>()
  /** Consecutive failed requests for a latest aggTrade. */
  #failures = 0
  /** Why the last request of each kind failed, as {@link Silent.only}; each reason is logged once. */
  readonly #problems = new Map<TradeType | null, string>()

  constructor(
    options: SilenceCheckOptions,
    continuity: Pick<Continuity<StreamEvent>, 'lastIdOf' | 'expect'>,
    log: Logger,
  ) {
    this.#options = options
    this.#continuity = continuity
    this.#log = log
    this.#wake = new Wake(options.clock)
    this.#loop = new StoppableLoop(this.#wake, () => this.#turn())
  }

  /** Symbols that are still expected. */
  get pending(): number {
    return this.#pending.size
  }

  start(): void {
    this.#loop.start()
  }

  /** Stops without waiting for the exchange: a running request is aborted. */
  stop(): Promise<void> {
    return this.#loop.stop()
  }

  /**
   * Expects these streams on a connection that has just opened. One that was expected already gets
   * a new deadline instead of a second check, so reconnects cause no requests.
   */
  watch(symbols: Iterable<string>, streams: ReadonlySet<string>): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const symbol of symbols) {
      for (const type of TRADE_TYPES) {
        const stream = streamName(symbol, type)
        if (!streams.has(stream) || this.#continuity.lastIdOf(stream) === null) continue
        const only = restOf(type).hasLatest ? null : type
        const silent = this.#pending.get(keyOf({ symbol, only })) ?? {
          ...{ symbol, only, streams: new Map<string, number>(), dueMs: 0, rejections: 0, failures: 0 },
        }
        silent.streams.set(stream, nowMs)
        this.#put(silent, nowMs + PATIENCE_MS)
      }
    }
    this.#wake.ring()
  }

  async #turn(): Promise<void> {
    const nowMs = this.#options.clock.monotonicMs()
    const silent = this.#nextDue(nowMs)
    if (silent !== undefined) return this.#ask(silent)
    const firstDueMs = Math.min(...[...this.#pending.values()].map(({ dueMs }) => dueMs))
    await this.#wake.wait(this.#pending.size === 0 ? undefined : Math.max(1, firstDueMs - nowMs))
  }

  /** Returns the next due symbol, nearly always the first, and forgets those that have delivered. */
  #nextDue(nowMs: number): Silent | undefined {
    for (const [key, silent] of this.#pending) {
      if (silent.dueMs > nowMs) continue
      this.#forgetHeard(silent)
      if (silent.streams.size > 0) return silent
      this.#pending.delete(key)
    }
    return undefined
  }

  #forgetHeard({ streams }: Silent): void {
    for (const [stream, sinceMs] of streams)
      if (this.#options.hasDeliveredSince(stream, sinceMs)) streams.delete(stream)
  }

  async #ask(silent: Silent): Promise<void> {
    const { dueMs, symbol, only } = silent
    // The latest aggTrade answers for all types that have a latest; of the others, the next ids are requested.
    const request: TradeRequest =
      only === null
        ? { type: 'aggTrade', symbol, fromId: null, limit: 1 }
        : { type: only, symbol, fromId: this.#lastIdOf(streamName(symbol, only)) + 1, limit: REST_LIMIT }
    const answer = await this.#options.rest.ask(request, 'urgent', this.#loop.signal)
    // A stream that has delivered meanwhile reveals its own gap, perhaps with restarted ids.
    this.#forgetHeard(silent)
    if (answer.kind !== 'rows') return this.#notAnswered(silent, answer)
    const latest = answer.rows.at(-1)
    if (latest !== undefined) this.#expect(silent, request, latest)
    // A symbol that has traded always has a latest aggTrade: the REST database lags.
    else if (only === null && [...silent.streams.keys()].some((stream) => this.#lastIdOf(stream) >= 0))
      return this.#later(silent, 'the answer is empty')
    this.#problems.delete(only)
    if (only === null) this.#failures = 0
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

  #lastIdOf(stream: string): number {
    return this.#continuity.lastIdOf(stream) ?? -1
  }

  async #notAnswered(silent: Silent, answer: Exclude<RestOutcome, { readonly kind: 'rows' }>): Promise<void> {
    if (answer.kind === 'failed') return this.#later(silent, answer.reason)
    const { reason } = answer.refusal
    const { isFinal, stops } = ruleOf(answer.refusal)
    // A refusal that stops all of REST is logged elsewhere, once.
    if (!isFinal) return this.#later(silent, stops === 'request' ? reason : null)
    silent.rejections++
    if (silent.rejections < MAX_REJECTIONS)
      return this.#put(silent, this.#options.clock.monotonicMs() + PATIENCE_MS)
    this.#log.warn({ symbol: silent.symbol }, `Dropped the check of a silent symbol: ${reason}`)
    this.#pending.delete(keyOf(silent))
  }

  async #later(silent: Silent, reason: string | null): Promise<void> {
    const { clock, backoff, random } = this.#options
    const { symbol, only } = silent
    if (reason !== null && reason !== this.#problems.get(only)) {
      const what = only === null ? reason : `${only}: ${reason}`
      this.#log.warn({ symbol }, `Checking a silent symbol failed, retrying: ${what}`)
      this.#problems.set(only, reason)
    }
    const failures = only === null ? ++this.#failures : ++silent.failures
    const waitMs = delayFor(failures, backoff, random())
    this.#put(silent, clock.monotonicMs() + waitMs)
    // Without a latest, all checks wait: backfill needs its turns, and a failing REST interface needs rest.
    if (only === null) await sleep(waitMs, this.#loop.signal, clock)
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
