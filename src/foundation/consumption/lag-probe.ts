import type { KafkaConnection } from '../kafka/config.ts'
import { keyOf, type PartitionOrigin, type TopicPartition } from '../kafka/partition.ts'
import { PartitionFetcher } from '../kafka/partition-fetcher.ts'
import { repeat } from '../runtime/backoff.ts'
import { RepeatedProblem } from '../telemetry/repeated-problem.ts'
import type { ServicePorts } from '../telemetry/service.ts'
import type { PartitionStatus } from '../telemetry/status.ts'

/** One request per leader, which is little next to several fetches a second. */
const EVERY_MS = 1000

/** An offset in one incarnation of a topic. */
interface OffsetIn {
  readonly topicId: string
  readonly offset: number
}

interface Known {
  stored: OffsetIn | null
  end: OffsetIn | null
  /** Monotonic time when both were last known, or when the partition became ours. */
  atMs: number
}

/** The input of the probe: our partitions, and the stored offset of each where it is known. */
export interface Progress {
  readonly assigned: readonly TopicPartition[]
  readonly stored: ReadonlyArray<PartitionOrigin & { readonly nextOffset: number }>
}

/**
 * Measures the lag of each partition: the end offset at its leader minus the stored offset. Fetches
 * report the end too, but stop while batches wait for the database, which is when the lag rises.
 * While the database is unavailable, the last known position counts. While a leader is unavailable,
 * its last known end counts, and the age of the lag rises.
 */
export class LagProbe {
  readonly #fetcher: PartitionFetcher
  readonly #ports: ServicePorts
  readonly #problem: RepeatedProblem
  readonly #stopping = new AbortController()
  readonly #progress: () => Progress
  readonly #known = new Map<string, Known>()
  readonly #running: Promise<void>

  /** Begins to measure. @param mayLack those of the topics that need not exist */
  constructor(
    kafka: KafkaConnection,
    clientId: string,
    topics: readonly string[],
    progress: () => Progress,
    ports: ServicePorts,
    mayLack?: ReadonlySet<string>,
  ) {
    this.#fetcher = new PartitionFetcher(kafka, clientId, topics, undefined, mayLack)
    this.#progress = progress
    this.#ports = ports
    this.#problem = new RepeatedProblem(ports.log, 'Measuring the lag')
    this.#running = repeat(() => this.#ask(), this.#stopping.signal, ports.clock)
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#fetcher.close()
    await this.#running
  }

  /** The status of the partitions that are ours. */
  partitions(): PartitionStatus[] {
    this.#follow()
    const nowMs = this.#ports.clock.monotonicMs()
    return this.#progress().assigned.map((one) => {
      const { stored = null, end = null, atMs = nowMs } = this.#known.get(keyOf(one)) ?? {}
      const { topic, partition } = one
      const nextOffset = stored?.offset ?? null
      const lagAgeMs = nowMs - atMs
      // Offsets of a recreated topic are not comparable with those before.
      if (stored === null || stored.topicId !== end?.topicId)
        return { topic, partition, nextOffset, endOffset: end?.offset ?? null, lag: null, lagAgeMs }
      // Messages stored since the leader answered lie past the end it gave.
      const endOffset = Math.max(end.offset, stored.offset)
      return { topic, partition, nextOffset, endOffset, lag: endOffset - stored.offset, lagAgeMs }
    })
  }

  /** Updates the positions, and forgets the partitions that are no longer ours. */
  #follow(): void {
    const { assigned, stored } = this.#progress()
    const ours = new Set(assigned.map(keyOf))
    for (const key of this.#known.keys()) if (!ours.has(key)) this.#known.delete(key)
    const nowMs = this.#ports.clock.monotonicMs()
    for (const key of ours)
      if (!this.#known.has(key)) this.#known.set(key, { stored: null, end: null, atMs: nowMs })
    for (const one of stored) {
      const known = this.#known.get(keyOf(one))
      if (known !== undefined) known.stored = { topicId: one.topicId, offset: one.nextOffset }
    }
  }

  async #ask(): Promise<number> {
    const askedMs = this.#ports.clock.monotonicMs()
    try {
      const ends = await this.#fetcher.ends()
      this.#follow()
      for (const one of ends) {
        const known = this.#known.get(keyOf(one))
        if (known === undefined) continue
        known.end = { topicId: one.topicId, offset: one.offset }
        if (known.stored?.topicId === one.topicId) known.atMs = askedMs
      }
      this.#problem.worked()
    } catch (error) {
      if (!this.#stopping.signal.aborted) this.#problem.failed(error)
    }
    return EVERY_MS
  }
}
