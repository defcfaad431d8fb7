import { type BackoffPolicy, delayFor } from '../../foundation/runtime/backoff.ts'
import type { IngestionStatus } from '../../foundation/telemetry/status.ts'

/** As often must the exchange answer the same before it is believed. */
const EQUAL_ANSWERS = 3

/**
 * Over how long, at least. The exchange answers from a database that may lag behind its streams by minutes; one that
 * answers from behind what was asked, or with a 4xx, does not lag, but may be out of order for a while.
 */
const SPREAD_MS = { empty: 5 * 60_000, jump: 2 * 60_000, rejected: 2 * 60_000 } as const

/** Equal answers with a longer pause between them, beyond the backoff's, begin to be counted anew… */
const PAUSE_MS = 60_000
/** …so often: where all is slow, something must come to an end too. */
const MAX_RESTARTS = 3

export type Negative = keyof typeof SPREAD_MS

/** What the last request for a gap met, as `/status` has it. */
export type GapProblem = Pick<IngestionStatus['openGaps'][number], 'problem' | 'isFailing' | 'fix'>

interface Run {
  readonly kind: Negative
  readonly answer: string
  sinceMs: number
  lastMs: number
  times: number
  restarts: number
}

/** What was tried for one gap, and when it is tried again. Specification: B2, B3, B7. */
export class BackfillAttempt {
  /** Of the monotonic clock. */
  retryAtMs = 0
  /** Requests in a row that brought no trades. */
  failures = 0
  /** Why the last one brought none; empty after one that did. */
  problem = ''
  /** What a person can do about it; empty if waiting is enough. */
  fix = ''
  /** The request failed or was refused, and was not only answered without the trades. */
  isFailing = false
  /** Equal answers without anything else between them. */
  #run: Run | null = null

  /** Trades came. */
  succeeded(): void {
    this.failures = 0
    this.problem = ''
    this.fix = ''
    this.isFailing = false
    this.#run = null
    this.retryAtMs = 0
  }

  /** No answer, or one that says nothing of the ids. */
  failed(nowMs: number, policy: BackoffPolicy, random: number): void {
    this.interrupted()
    this.#postpone(nowMs, policy, random)
  }

  /** Something came between the answers. */
  interrupted(): void {
    this.#run = null
  }

  /**
   * An answer without what was asked for.
   *
   * @returns true when it is to be believed: it has come often enough, for long enough, and nothing else between
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
