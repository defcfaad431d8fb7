import type { BookOutcome, FetchBook, RestBook } from '../../foundation/binance/depth-rest.ts'
import { type Refusal, ruleOf } from '../../foundation/binance/refusal.ts'
import { receiptSuffix } from '../../foundation/binance/stream-frame.ts'
import { WeightBudget } from '../../foundation/binance/weight-budget.ts'
import { Wake } from '../../foundation/runtime/clock.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import { plural } from '../../foundation/telemetry/plural.ts'
import type { BookStatus } from '../../foundation/telemetry/status.ts'
import { Tally } from '../../foundation/telemetry/tally.ts'
import type { RetryTiming } from '../backfill/backfill-attempt.ts'
import type { RestCaller } from '../backfill/rest-caller.ts'
import { StoppableLoop } from '../backfill/stoppable-loop.ts'
import type { DiscardCause, OutgoingMessage, Place } from '../messages/message.ts'
import type { ReceiptStamp } from '../messages/receipt-clock.ts'
import { AnchorBooks, type BookSource, levelsWithin, weightOf } from './anchor-books.ts'
import { anchorOf, joins, type Need } from './anchor-need.ts'
import type { PriceSample } from './price-sample.ts'

/** How often it looks for a symbol that needs a snapshot. */
const LOOK_EVERY_MS = 1000

/** How often it collects the prices of all symbols, and for how long. */
const PRICES_EVERY_MS = 10_000
const PRICES_WITHIN_MS = 2000

/** The wait after an answer that is older than the snapshot to replace: the book is known meanwhile. */
const REPLACED_MS = 60_000

/** The wait before the next request for a symbol that REST does not know. */
const UNKNOWN_MS = 600_000

const HOUR_MS = 3_600_000

/** What snapshots need from the rest of ingestion. */
export interface AnchorPorts extends BookSource {
  placeOf(symbol: string, epoch: number): Place
  stamp(): ReceiptStamp
  send(message: OutgoingMessage): void
  /** Resolves when the queue has room; rejects on abort. */
  whenRoom(signal: AbortSignal): Promise<void>
}

export interface AnchorsOptions extends RetryTiming {
  readonly rest: Pick<RestCaller, 'call'>
  readonly fetch: FetchBook
  readonly prices: PriceSample
  /** Weight of all requests; snapshots use at most half. */
  readonly weightPerMinute: number
  readonly maxAgeMs: number
}

/**
 * Requests snapshots of order books over REST and sends them to Kafka, so that books can be built from the
 * updates. Keeps no book. Specification: A1 to A7.
 */
export class Anchors {
  readonly #options: AnchorsOptions
  readonly #ports: AnchorPorts
  readonly #log: Logger
  readonly #books: AnchorBooks
  readonly #budget: WeightBudget
  readonly #wake: Wake
  readonly #loop: StoppableLoop
  #collectedAtMs = Number.NEGATIVE_INFINITY
  #isAnnounced = false
  /** Snapshots sent, by number of levels requested. */
  readonly sent = new Tally()
  /** Answers that were older than the first update after a hole, or than the snapshot to replace. */
  stale = 0

  constructor(options: AnchorsOptions, ports: AnchorPorts, log: Logger) {
    this.#options = options
    this.#ports = ports
    this.#log = log
    const half = Math.floor(options.weightPerMinute / 2)
    const levels = levelsWithin(({ weight }) => weight <= half)
    this.#books = new AnchorBooks(ports, options, options.maxAgeMs, levels)
    this.#budget = new WeightBudget(half)
    this.#wake = new Wake(options.clock)
    this.#loop = new StoppableLoop(this.#wake, () => this.#turn())
  }

  start(): void {
    this.#loop.start()
  }

  /** Stops without waiting for the exchange: a running request is aborted. */
  stop(): Promise<void> {
    return this.#loop.stop()
  }

  status(): BookStatus {
    return this.#books.status()
  }

  /** Notes that Kafka did not take a message. Only snapshots count. */
  onDiscarded({ topic, value, snapshotOf: symbol }: OutgoingMessage, cause: DiscardCause): void {
    const state = symbol === undefined ? undefined : this.#books.of(symbol)
    if (symbol === undefined || state === undefined) return
    const limit = state.anchor?.limit ?? this.#books.levels
    state.anchor = null
    this.#books.postpone(symbol, `Kafka did not take it: ${cause}`)
    if (cause !== 'too large') return
    const fewer = levelsWithin((one) => one.limit < limit)
    this.#books.levels = Math.min(this.#books.levels, fewer)
    const fix = `Raise max.message.bytes of ${topic} to at least 1048588, and restart ingestion.`
    const size = `${limit} levels per side, ${Math.ceil(value.length / 1000)} kB`
    this.#log.error(
      { symbol, topic, fix },
      `A snapshot (${size}) is larger than ${topic} accepts; continuing with ${this.#books.levels} levels`,
    )
  }

  async #turn(): Promise<void> {
    const { clock, rest, fetch } = this.#options
    const { signal } = this.#loop
    await this.#ports.whenRoom(signal)
    const nowMs = clock.monotonicMs()
    this.#collectPrices(nowMs)
    this.#announce()
    const next = this.#books.next()
    if (next === null) return this.#wake.wait(LOOK_EVERY_MS)
    const { symbol, need, limit } = next
    const weight = weightOf(limit)
    const waitMs = this.#budget.take(weight, nowMs)
    // Meanwhile another symbol may become more urgent.
    if (waitMs > 0) return this.#wake.wait(Math.min(waitMs, LOOK_EVERY_MS))
    const outcome = await rest.call(weight, () => fetch(symbol, limit, signal), 'idle', signal)
    this.#take(symbol, need, limit, outcome)
  }

  #take(symbol: string, need: Need, limit: number, outcome: BookOutcome): void {
    switch (outcome.kind) {
      case 'book':
        this.#takeBook(symbol, need, limit, outcome.book)
        break
      case 'refused':
        this.#refused(symbol, outcome.refusal)
        break
      case 'failed':
        this.#warn(symbol, outcome.reason, '')
        this.#books.postpone(symbol, outcome.reason)
    }
  }

  #takeBook(symbol: string, need: Need, limit: number, book: RestBook): void {
    const chain = this.#books.chainOf(symbol)
    const { lastUpdateId, bids, asks } = book
    // Readers begin with the newest snapshot, so an older one would replace nothing.
    const replacedId = need === 'missing' ? -1 : (this.#books.of(symbol).anchor?.lastUpdateId ?? -1)
    // REST answers from a database that may lag the streams.
    if (!joins(lastUpdateId, chain)) {
      this.stale++
      this.#books.postpone(
        symbol,
        `REST has update ${lastUpdateId}, the first one recorded is ${chain.joinedFrom}`,
      )
      return
    }
    if (lastUpdateId < replacedId) {
      this.stale++
      const problem = `REST has update ${lastUpdateId}, the snapshot before has ${replacedId}`
      this.#books.postpone(symbol, problem, REPLACED_MS)
      return
    }
    const { ms, us } = this.#ports.stamp()
    const text = JSON.stringify({ e: 'depthSnapshot', s: symbol, lastUpdateId, limit, bids, asks })
    const nowMs = this.#options.clock.monotonicMs()
    this.#books.anchor(symbol, anchorOf(book, limit, chain, nowMs))
    this.sent.add('sent', String(limit))
    this.#ports.send({
      ...this.#ports.placeOf(symbol, chain.epoch),
      value: Buffer.from(text.slice(0, -1) + receiptSuffix(ms, us)),
      timestampMs: ms,
      mark: null,
      snapshotOf: symbol,
      queuedAtMs: nowMs,
    })
  }

  #refused(symbol: string, refusal: Refusal): void {
    const { isFinal, stops, fix } = ruleOf(refusal)
    // A refusal that stops all of REST is logged elsewhere, once.
    if (stops === 'request') this.#warn(symbol, refusal.reason, fix)
    this.#books.postpone(symbol, refusal.reason, isFinal ? UNKNOWN_MS : 0)
  }

  /** Logs a problem once, until no book has it any more. */
  #warn(symbol: string, reason: string, fix: string): void {
    if (this.#books.hasProblem(reason)) return
    const details = { symbol, ...(fix === '' ? {} : { fix }) }
    this.#log.warn(details, `A snapshot of an order book failed, retrying: ${reason}`)
  }

  #collectPrices(nowMs: number): void {
    const { prices } = this.#options
    for (const [symbol, best] of prices.take()) this.#books.of(symbol).prices = best
    if (nowMs - this.#collectedAtMs < PRICES_EVERY_MS) return
    this.#collectedAtMs = nowMs
    prices.begin(this.#books.anchored, nowMs + PRICES_WITHIN_MS)
  }

  /** Says once, when the number of symbols is known, how long they take, and whether the wanted age can be kept. */
  #announce(): void {
    const { count, firstLevels, levels } = this.#books
    if (this.#isAnnounced || count === 0) return
    this.#isAnnounced = true
    const { maxAgeMs, weightPerMinute } = this.#options
    const minutes = (perBook: number) => Math.ceil((count * weightOf(perBook)) / this.#budget.perMinute)
    this.#log.info(
      { books: count, levels: firstLevels, minutes: minutes(firstLevels) },
      'Requesting a first snapshot of each order book; until then its book cannot be built',
    )
    const hours = minutes(levels) / 60
    if (hours * HOUR_MS <= maxAgeMs) return
    const fix =
      'Raise DEPTH_SNAPSHOT_HOURS or REST_WEIGHT_PER_MINUTE, or divide the symbols over shards, each with another address.'
    this.#log.warn(
      { fix },
      `DEPTH_SNAPSHOT_HOURS=${maxAgeMs / HOUR_MS} cannot be kept: ${plural(count, 'snapshot')} of ${levels} levels take ${hours.toFixed(1)} hours with half of REST_WEIGHT_PER_MINUTE=${weightPerMinute}`,
    )
  }
}
