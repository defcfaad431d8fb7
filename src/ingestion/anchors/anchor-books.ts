import { DEPTH_WEIGHTS } from '../../foundation/binance/depth-rest.ts'
import { streamName } from '../../foundation/market/event.ts'
import { delayFor } from '../../foundation/runtime/backoff.ts'
import type { BookStatus } from '../../foundation/telemetry/status.ts'
import type { RetryTiming } from '../backfill/backfill-attempt.ts'
import { type Anchor, type Chain, NEEDS, type Need, needOf } from './anchor-need.ts'
import type { BestPrices } from './price-sample.ts'

/** Levels of a first snapshot: it costs a tenth of a full one, so that all symbols soon have a book. */
const FIRST_LEVELS = 500

/** Symbols that `/status` names. */
const SHOWN_SYMBOLS = 20

/** The last snapshot of an order book, and the requests for the next. */
export interface BookState {
  anchor: Anchor | null
  /** Since the anchor. */
  prices: BestPrices | null
  /** Consecutive requests without a usable snapshot. */
  failures: number
  retryAtMs: number
  /** Why the last request brought nothing; empty if it did. */
  problem: string
}

/** The recorded order books now. */
export interface BookSource {
  /** Returns the symbols whose order book is delivered now. */
  symbols(): Iterable<string>
  chainOf(stream: string): Chain
  /** Returns the updates of the last minute. */
  activityOf(stream: string): number
  /** Whether Kafka takes the partition of a symbol. */
  isTaken(symbol: string): boolean
}

interface Candidate {
  readonly symbol: string
  readonly need: Need
  /** Larger is sooner among equal needs. */
  readonly weight: number
}

/** Knows the last snapshot of each order book, and which book needs the next one. Specification: A1, A2. */
export class AnchorBooks {
  readonly #source: BookSource
  readonly #timing: RetryTiming
  readonly #maxAgeMs: number
  readonly #states = new Map<string, BookState>()
  /** Levels of a full snapshot; lowered when Kafka finds one too large. */
  levels: number

  constructor(source: BookSource, timing: RetryTiming, maxAgeMs: number, levels: number) {
    this.#source = source
    this.#timing = timing
    this.#maxAgeMs = maxAgeMs
    this.levels = levels
  }

  get firstLevels(): number {
    return Math.min(FIRST_LEVELS, this.levels)
  }

  get count(): number {
    return [...this.#source.symbols()].length
  }

  /** Returns the symbols that have a snapshot. */
  get anchored(): string[] {
    return [...this.#states].flatMap(([symbol, { anchor }]) => (anchor === null ? [] : [symbol]))
  }

  /** Returns the most urgent symbol that may be requested now, and how many levels it needs. */
  next(): { readonly symbol: string; readonly need: Need; readonly limit: number } | null {
    const nowMs = this.#timing.clock.monotonicMs()
    let next: Candidate | null = null
    for (const symbol of this.#source.symbols()) {
      const { anchor, retryAtMs } = this.of(symbol)
      const need = retryAtMs > nowMs ? null : this.#needOf(symbol, nowMs)
      if (need === null || !this.#source.isTaken(symbol)) continue
      const weight =
        need === 'age' ? nowMs - (anchor?.atMs ?? 0) : this.#source.activityOf(streamName(symbol, 'depth'))
      const candidate = { symbol, need, weight }
      if (next === null || isSooner(candidate, next)) next = candidate
    }
    if (next === null) return null
    const { symbol, need } = next
    return { symbol, need, limit: need === 'missing' ? this.firstLevels : this.levels }
  }

  of(symbol: string): BookState {
    const known = this.#states.get(symbol)
    if (known !== undefined) return known
    const state = { anchor: null, prices: null, failures: 0, retryAtMs: 0, problem: '' }
    this.#states.set(symbol, state)
    return state
  }

  chainOf(symbol: string): Chain {
    return this.#source.chainOf(streamName(symbol, 'depth'))
  }

  /** Notes the snapshot that was sent to Kafka last. */
  anchor(symbol: string, anchor: Anchor): void {
    const state = this.of(symbol)
    state.anchor = anchor
    state.prices = null
    state.failures = 0
    state.problem = ''
  }

  /** Postpones the next request for a symbol. @param leastMs the wait at least */
  postpone(symbol: string, problem: string, leastMs = 0): void {
    const { clock, random, backoff } = this.#timing
    const state = this.of(symbol)
    state.failures++
    state.problem = problem
    state.retryAtMs = clock.monotonicMs() + delayFor(state.failures, backoff, random(), leastMs)
  }

  /** Whether the last request for any symbol has met this problem. */
  hasProblem(reason: string): boolean {
    for (const { problem } of this.#states.values()) if (problem === reason) return true
    return false
  }

  status(): BookStatus {
    const nowMs = this.#timing.clock.monotonicMs()
    const needs = Object.fromEntries(NEEDS.map((need): [Need, number] => [need, 0]))
    const without: string[] = []
    let [symbols, oldestAnchorAgeMs] = [0, 0]
    for (const symbol of this.#source.symbols()) {
      symbols++
      const need = this.#needOf(symbol, nowMs)
      if (need !== null) needs[need] = (needs[need] ?? 0) + 1
      if (need === 'missing') without.push(symbol)
      else oldestAnchorAgeMs = Math.max(oldestAnchorAgeMs, nowMs - (this.of(symbol).anchor?.atMs ?? nowMs))
    }
    const withoutAnchor = without
      .slice(0, SHOWN_SYMBOLS)
      .map((symbol) => ({ symbol, problem: this.of(symbol).problem || null }))
    return { symbols, needs, oldestAnchorAgeMs: Math.round(oldestAnchorAgeMs), withoutAnchor }
  }

  #needOf(symbol: string, nowMs: number): Need | null {
    const { anchor, prices } = this.of(symbol)
    return needOf(anchor, this.chainOf(symbol), prices, {
      levels: this.levels,
      maxAgeMs: this.#maxAgeMs,
      nowMs,
    })
  }
}

function isSooner(one: Candidate, other: Candidate): boolean {
  const ranks = NEEDS.indexOf(one.need) - NEEDS.indexOf(other.need)
  return ranks === 0 ? one.weight > other.weight : ranks < 0
}

/** Returns the most levels that fit; the fewest that REST has if none do. */
export function levelsWithin(fits: (one: (typeof DEPTH_WEIGHTS)[number]) => boolean): number {
  return (DEPTH_WEIGHTS.findLast(fits) ?? DEPTH_WEIGHTS[0]).limit
}

/** Returns the weight of a request for so many levels. */
export function weightOf(levels: number): number {
  return DEPTH_WEIGHTS.find(({ limit }) => limit === levels)?.weight ?? 0
}
