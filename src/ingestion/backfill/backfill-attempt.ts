import { type BackoffPolicy, delayFor } from '../../foundation/runtime/backoff.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import type { IngestionStatus } from '../../foundation/telemetry/status.ts'

/** Number of equal answers before an answer is believed. */
const EQUAL_ANSWERS = 3

/**
 * Minimum time over which equal answers must arrive. The exchange answers from a database that may
 * lag its streams by minutes. An answer that skips the requested ids (`jump`), or a 4xx, comes from
 * no lag, but a fault may last a while.
 */
const SPREAD_MS = { empty: 5 * 60_000, jump: 2 * 60_000, rejected: 2 * 60_000 } as const

/** A pause between equal answers that exceeds the backoff by more than this restarts the count, */
const PAUSE_MS = 60_000
/** at most so many times: even a slow exchange must lead to a decision. */
const MAX_RESTARTS = 3

export type Negative = keyof typeof SPREAD_MS

/** The problem of the last request for a gap, as in `/status`. */
export type GapProblem = Pick<IngestionStatus['openGaps'][number], 'problem' | 'isFailing' | 'fix'>

/** What decides when a request is retried. */
export interface RetryTiming {
  readonly clock: Clock
  readonly random: () => number
  readonly backoff: BackoffPolicy
}

interface Run {
  readonly kind: Negative
  readonly answer: string
  sinceMs: number
  lastMs: number
  times: number
  restarts: number
}

/** Records the attempts for one gap since the last trades, and when to retry. Specification: B2, B3, B7. */
export class BackfillAttempt {
  readonly #timing: RetryTiming
  /** On the monotonic clock. */
  retryAtMs = 0
  /** Consecutive requests without trades. */
  failures = 0
  /** Why the last request brought no trades; empty before the first. */
  problem = ''
  /** What a person can do about it; empty if waiting is enough. */
  fix = ''
  /** Whether the last request failed or was refused, rather than answered without the trades. */
  isFailing = false
  /** Equal answers in a row, without anything between them. */
  #run: Run | null = null

  constructor(timing: RetryTiming) {
    this.#timing = timing
  }

  /** Backs off after no answer, or one that says nothing about the ids. */
  failed(maxMs = this.#timing.backoff.maxMs): void {
    this.#run = null
    this.#postpone(maxMs)
  }

  /** Records an answer without the ids. @returns whether to believe it: often and for long enough */
  negative(kind: Negative, answer: string): boolean {
    const nowMs = this.#timing.clock.monotonicMs()
    const run = this.#continued(kind, answer, nowMs)
    run.lastMs = nowMs
    run.times++
    this.#run = run
    if (run.times >= EQUAL_ANSWERS && nowMs - run.sinceMs >= SPREAD_MS[kind]) return true
    this.#postpone(this.#timing.backoff.maxMs)
    return false
  }

  #continued(kind: Negative, answer: string, nowMs: number): Run {
    const run = this.#run
    if (run === null || run.kind !== kind || run.answer !== answer)
      return { kind, answer, sinceMs: nowMs, lastMs: nowMs, times: 0, restarts: 0 }
    const pauseMs = this.#timing.backoff.maxMs + PAUSE_MS
    if (nowMs - run.lastMs <= pauseMs || run.restarts >= MAX_RESTARTS) return run
    return { ...run, sinceMs: nowMs, times: 0, restarts: run.restarts + 1 }
  }

  #postpone(maxMs: number): void {
    const { clock, random, backoff } = this.#timing
    this.failures++
    this.retryAtMs = clock.monotonicMs() + delayFor(this.failures, { ...backoff, maxMs }, random())
  }
}
