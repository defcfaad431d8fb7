import { keyOf, type TopicPartition } from '../kafka/partition.ts'
import { type BackoffPolicy, delayFor } from '../runtime/backoff.ts'

interface BackedOffPartition extends TopicPartition {
  readonly reason: string
  readonly failures: number
  /** On the monotonic clock; null while a retry is under way. */
  readonly retryAtMs: number | null
}

/**
 * Backs off from single partitions that cannot be read: without a leader, or refused by the broker.
 * Each is retried after a delay. Other partitions are not affected. Uses no clock: the time is an
 * argument.
 */
export class PartitionBackoff {
  readonly #backoff: BackoffPolicy
  readonly #all = new Map<string, BackedOffPartition>()

  constructor(backoff: BackoffPolicy) {
    this.#backoff = backoff
  }

  /** What cannot be read and why, in one line; null when everything can be read. */
  get description(): string | null {
    const [first] = this.#all.values()
    if (first === undefined) return null
    const more = this.#all.size === 1 ? '' : `, and ${this.#all.size - 1} more`
    return `partition ${first.partition} of ${first.topic} cannot be read: ${first.reason}${more}`
  }

  /**
   * Records that a partition could not be read, and backs off.
   *
   * @param random in [0, 1)
   * @returns whether this is news: it could be read before, or the reason has changed
   */
  note({ topic, partition }: TopicPartition, reason: string, nowMs: number, random: number): boolean {
    const key = keyOf({ topic, partition })
    const before = this.#all.get(key)
    const failures = (before?.failures ?? 0) + 1
    const retryAtMs = nowMs + delayFor(failures, this.#backoff, random)
    this.#all.set(key, { topic, partition, reason, failures, retryAtMs })
    return before?.reason !== reason
  }

  /** Records that a partition was read. @returns whether this is news */
  recovered(one: TopicPartition): boolean {
    return this.#all.delete(keyOf(one))
  }

  /** Whether the partition must not be read yet. */
  rests(one: TopicPartition): boolean {
    return (this.#all.get(keyOf(one))?.retryAtMs ?? null) !== null
  }

  /** Milliseconds until the next retry is due, 0 when one is; null when no partition waits. */
  dueInMs(nowMs: number): number | null {
    const times = [...this.#all.values()].flatMap(({ retryAtMs }) => retryAtMs ?? [])
    return times.length === 0 ? null : Math.max(0, Math.min(...times) - nowMs)
  }

  /** Allows a retry of the partitions that are due. */
  readmit(nowMs: number): void {
    for (const [key, one] of this.#all) {
      if (one.retryAtMs !== null && one.retryAtMs <= nowMs) this.#all.set(key, { ...one, retryAtMs: null })
    }
  }

  /** Forgets partitions that are not in `ours`. */
  keep(ours: readonly TopicPartition[]): void {
    if (this.#all.size === 0) return
    const kept = new Set(ours.map(keyOf))
    for (const key of this.#all.keys()) if (!kept.has(key)) this.#all.delete(key)
  }
}
