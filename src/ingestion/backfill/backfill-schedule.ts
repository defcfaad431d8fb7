import TinyQueue from 'tinyqueue'
import type { IdGap, TradeGap } from '../continuity/gap-rows.ts'
import { BackfillAttempt, type GapProblem, type RetryTiming } from './backfill-attempt.ts'

export interface GapTask {
  readonly gap: TradeGap
  /** Replaced by a new one when trades arrive. */
  attempt: BackfillAttempt
}

/**
 * Decides which due gap is next: the one with the fewest consecutive failures, so that failing gaps
 * leave the others their turns; of equal ones the smallest. Thousands may be open, so `take` and
 * `putBack` do not scan them all.
 */
export class BackfillSchedule {
  readonly #isOpen: (gap: IdGap) => boolean
  readonly #timing: RetryTiming
  readonly #tasks = new Map<string, GapTask>()
  readonly #due = new TinyQueue<GapTask>([], inTurn)
  readonly #later = new TinyQueue<GapTask>(
    [],
    (one, other) => one.attempt.retryAtMs - other.attempt.retryAtMs,
  )

  constructor(isOpen: (gap: IdGap) => boolean, timing: RetryTiming) {
    this.#isOpen = isOpen
    this.#timing = timing
  }

  /** Adds an open gap; a known gap keeps its attempts. */
  add(gap: TradeGap): void {
    const known = this.#tasks.get(gap.gap_id)?.gap
    if (known !== undefined && isSame(known, gap)) return
    const task = { gap, attempt: new BackfillAttempt(this.#timing) }
    this.#tasks.set(gap.gap_id, task)
    this.#due.push(task)
  }

  /** Takes the next due task, which the caller puts back afterwards; null when none is due. */
  take(): GapTask | null {
    const nowMs = this.#timing.clock.monotonicMs()
    for (let task = this.#later.peek(); task !== undefined && task.attempt.retryAtMs <= nowMs; ) {
      this.#later.pop()
      this.#due.push(task)
      task = this.#later.peek()
    }
    for (let task = this.#due.pop(); task !== undefined; task = this.#due.pop()) {
      if (this.isCurrent(task)) return task
      this.#forget(task)
    }
    return null
  }

  /** Puts a taken task back; drops it with its attempts if its gap is closed. */
  putBack(task: GapTask): void {
    if (!this.isCurrent(task)) this.#forget(task)
    else if (task.attempt.retryAtMs <= this.#timing.clock.monotonicMs()) this.#due.push(task)
    else this.#later.push(task)
  }

  /** Whether this very gap is open. During any wait it may close, and another open under its id. */
  isCurrent(task: GapTask): boolean {
    return this.#tasks.get(task.gap.gap_id) === task && this.#isOpen(task.gap)
  }

  /** When the next task is due; null when nothing waits for a time. */
  get nextDueMs(): number | null {
    return this.#later.peek()?.attempt.retryAtMs ?? null
  }

  /** Whether an open gap has met this problem. Scans all gaps if none has. */
  hasProblem(problem: string): boolean {
    for (const { attempt } of this.#tasks.values()) if (attempt.problem === problem) return true
    return false
  }

  /** Returns what prevents filling a gap; nulls if nothing has yet. */
  problemOf({ gap_id }: IdGap): GapProblem {
    const { problem, isFailing, fix } = this.#tasks.get(gap_id)?.attempt ?? {}
    return { problem: problem || null, isFailing: isFailing ?? false, fix: fix || null }
  }

  #forget(task: GapTask): void {
    const { gap_id } = task.gap
    if (this.#tasks.get(gap_id) === task) this.#tasks.delete(gap_id)
  }
}

function inTurn(one: GapTask, other: GapTask): number {
  return one.attempt.failures - other.attempt.failures || size(one.gap) - size(other.gap)
}

function size({ from_id, to_id }: IdGap): number {
  return to_id - from_id + 1
}

function isSame(one: IdGap, other: IdGap): boolean {
  return one.from_id === other.from_id && one.to_id === other.to_id && one.detected_at === other.detected_at
}
