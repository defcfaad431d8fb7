import { type BackoffPolicy, delayFor } from '../../foundation/runtime/backoff.ts'
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

interface Run {
  readonly kind: Negative
  readonly answer: string
  sinceMs: number
  lastMs: number
  times: number
  restarts: number
}

/** Records the attempts for one gap and when to retry. Specification: B2, B3, B7. */
export class BackfillAttempt {
  /** On the monotonic clock. */
  retryAtMs = 0
  /** Consecutive requests without trades. */
  failures = 0
  /** Why the last request brought no trades; empty after one that did. */
  problem = ''
  /** What a person can do about it; empty if waiting is enough. */
  fix = ''
  /** Whether the last request failed or was refused, rather than answered without the trades. */
  isFailing = false
  /** Equal answers in a row, without anything between them. */
  #run: Run | null = null

  /** Resets the failures: trades arrived. */
  succeeded(): void {
    this.failures = 0
    this.problem = ''
    this.fix = ''
    this.isFailing = false
    this.#run = null
    this.retryAtMs = 0
  }

  /** Backs off after no answer, or one that says nothing about the ids. */
  failed(nowMs: number, policy: BackoffPolicy, random: number): void {
    this.interrupted()
    this.#postpone(nowMs, policy, random)
  }

  /** Discards the run of equal answers, because something else came between them. */
  interrupted(): void {
    this.#run = null
  }

  /**
   * Records an answer without the requested ids.
   *
   * @returns true if the answer is to be believed: it came often enough, over long enough, with
   *   nothing else in between
   */
  negative(kind: Negative, answer: string, nowMs: number, policy: BackoffPolicy, random: number): boolean {
    const run = this.#continued(kind, answer, nowMs, policy)
    run.lastMs = nowMs
    run.times++
    this.#run = run
    if (run.times >= EQUAL_ANSWERS && nowMs - run.sinceMs >= SPREAD_MS[kind]) return true
    this.#postpone(nowMs, policy, random)
    return false
  }

  #continued(kind: Negative, answer: string, nowMs: number, { maxMs }: BackoffPolicy): Run {
    const run = this.#run
    if (run === null || run.kind !== kind || run.answer !== answer)
      return { kind, answer, sinceMs: nowMs, lastMs: nowMs, times: 0, restarts: 0 }
    if (nowMs - run.lastMs <= maxMs + PAUSE_MS || run.restarts >= MAX_RESTARTS) return run
    return { ...run, sinceMs: nowMs, times: 0, restarts: run.restarts + 1 }
  }

  #postpone(nowMs: number, policy: BackoffPolicy, random: number): void {
    this.failures++
    this.retryAtMs = nowMs + delayFor(this.failures, policy, random)
  }
}
