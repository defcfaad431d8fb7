import { type BackoffPolicy, delayFor } from '../foundation/runtime/backoff.ts'
import { keyOf, type TopicPartition } from './partition.ts'

interface BackedOffPartition extends TopicPartition {
  readonly reason: string
  readonly failures: number
  /** On the monotonic clock; null while it is being tried again. */
  readonly retryAtMs: number | null
}

/**
 * Partitions that cannot be read now, one by one: without a leader, or refused by the one that was asked. They rest
 * for a while and are tried again; the others do not wait for them. No clock of its own.
 */
export class PartitionBackoff {
  readonly #backoff: BackoffPolicy
  readonly #all = new Map<string, BackedOffPartition>()

  constructor(backoff: BackoffPolicy) {
    this.#backoff = backoff
  }

  /** What cannot be read and why, in a line; null when everything can. */
  get description(): string | null {
    const [first] = this.#all.values()
    if (first === undefined) return null
    const more = this.#all.size === 1 ? '' : `, and ${this.#all.size - 1} more`
    return `partition ${first.partition} of ${first.topic} cannot be read: ${first.reason}${more}`
  }

  /**
   * It could not be read, and rests.
   *
   * @param random in [0, 1)
   * @returns whether that is news: it could before, or the reason was another
   */
  note({ topic, partition }: TopicPartition, reason: string, nowMs: number, random: number): boolean {
    const key = keyOf({ topic, partition })
    const before = this.#all.get(key)
    const failures = (before?.failures ?? 0) + 1
    const retryAtMs = nowMs + delayFor(failures, this.#backoff, random)
    this.#all.set(key, { topic, partition, reason, failures, retryAtMs })
    return before?.reason !== reason
  }

  /** It was read. @returns whether that is news */
  recovered(one: TopicPartition): boolean {
    return this.#all.delete(keyOf(one))
  }

  /** Whether it is to be left alone for now. */
  rests(one: TopicPartition): boolean {
    return (this.#all.get(keyOf(one))?.retryAtMs ?? null) !== null
  }

  /** Milliseconds until the next of those that rest is due, 0 when one is; null when none rests. */
  dueInMs(nowMs: number): number | null {
    const times = [...this.#all.values()].flatMap(({ retryAtMs }) => retryAtMs ?? [])
    return times.length === 0 ? null : Math.max(0, Math.min(...times) - nowMs)
  }

  /** Those that are due may be tried again. */
  readmit(nowMs: number): void {
    for (const [key, one] of this.#all) {
      if (one.retryAtMs !== null && one.retryAtMs <= nowMs) this.#all.set(key, { ...one, retryAtMs: null })
    }
  }

  /** Forgets those that are not among `ours` any more. */
  keep(ours: readonly TopicPartition[]): void {
    if (this.#all.size === 0) return
    const kept = new Set(ours.map(keyOf))
    for (const key of this.#all.keys()) if (!kept.has(key)) this.#all.delete(key)
  }
}
