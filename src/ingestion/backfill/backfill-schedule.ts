import type { IdGap } from '../continuity/gap-rows.ts'
import { BackfillAttempt, type GapProblem } from './backfill-attempt.ts'
import { Heap } from './heap.ts'

/** A gap that is being looked for. */
export interface GapTask {
  readonly gap: IdGap
  readonly attempt: BackfillAttempt
}

/**
 * Which gap is next, of those that are due: the one with the fewest failures in a row, so that gaps that keep failing leave
 * the others their turns; of these the smallest. Thousands may be open, so `take` and `putBack` do not look at all.
 */
export class BackfillSchedule {
  readonly #isOpen: (gap: IdGap) => boolean
  readonly #tasks = new Map<string, GapTask>()
  readonly #due = new Heap<GapTask>(isBefore)
  readonly #later = new Heap<GapTask>((one, other) => one.attempt.retryAtMs < other.attempt.retryAtMs)

  constructor(isOpen: (gap: IdGap) => boolean) {
    this.#isOpen = isOpen
  }

  /** Notes an open gap; one that is known already keeps its trial. */
  add(gap: IdGap): void {
    const known = this.#tasks.get(gap.gap_id)?.gap
    if (known !== undefined && isSame(known, gap)) return
    const task = { gap, attempt: new BackfillAttempt() }
    this.#tasks.set(gap.gap_id, task)
    this.#due.push(task)
  }

  /** Takes the next out, to be put back when it is still open; null when none is due. */
  take(nowMs: number): GapTask | null {
    for (let task = this.#later.first; task !== undefined && task.attempt.retryAtMs <= nowMs; ) {
      this.#later.pop()
      this.#due.push(task)
      task = this.#later.first
    }
    for (let task = this.#due.pop(); task !== undefined; task = this.#due.pop()) {
      if (this.isCurrent(task)) return task
      this.#forget(task)
    }
    return null
  }

  /** Puts a task back that was taken; with a gap that is closed its trial goes. */
  putBack(task: GapTask, nowMs: number): void {
    if (!this.isCurrent(task)) this.#forget(task)
    else if (task.attempt.retryAtMs <= nowMs) this.#due.push(task)
    else this.#later.push(task)
  }

  /** The ledger still holds this very gap: it may be closed, and another opened under its id, during any wait. */
  isCurrent(task: GapTask): boolean {
    return this.#tasks.get(task.gap.gap_id) === task && this.#isOpen(task.gap)
  }

  /** When the next is due; null when nothing waits for a time. */
  get nextDueMs(): number | null {
    return this.#later.first?.attempt.retryAtMs ?? null
  }

  /** Whether an open gap has met this problem. Looks at all gaps where none has. */
  hasProblem(problem: string): boolean {
    for (const { attempt } of this.#tasks.values()) if (attempt.problem === problem) return true
    return false
  }

  /** What keeps a gap from being filled; null where nothing has yet. */
  problemOf({ gap_id }: IdGap): GapProblem {
    const attempt = this.#tasks.get(gap_id)?.attempt
    return {
      problem: attempt?.problem || null,
      isFailing: attempt?.isFailing ?? false,
      fix: attempt?.fix || null,
    }
  }

  #forget(task: GapTask): void {
    const { gap_id } = task.gap
    if (this.#tasks.get(gap_id) === task) this.#tasks.delete(gap_id)
  }
}

function isBefore(one: GapTask, other: GapTask): boolean {
  const more = one.attempt.failures - other.attempt.failures
  return more === 0 ? size(one.gap) < size(other.gap) : more < 0
}

function size({ from_id, to_id }: IdGap): number {
  return to_id - from_id + 1
}

function isSame(one: IdGap, other: IdGap): boolean {
  return one.from_id === other.from_id && one.to_id === other.to_id && one.detected_at === other.detected_at
}
