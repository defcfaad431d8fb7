import { sleep } from '../src/foundation/runtime/backoff.ts'
import type { PartitionState } from '../test/support/kafka-cluster.ts'
import { waitFor } from '../test/support/wait-for.ts'
import { describePartitions } from './kafka-admin.ts'
import type { SupervisedPart } from './part.ts'

const IN_SYNC_LIMIT_MS = 120_000
const POLL_MS = 250
/** What a broker that has come back needs before its leaders and replicas are final. */
const SETTLE_MS = 500

/** All brokers, and the order in which they are disturbed: one after the other, from a state in which nothing is missing. */
export class Brokers {
  readonly parts: readonly SupervisedPart[]
  readonly #addresses: readonly string[]
  readonly #topics: readonly string[]
  #turn: Promise<unknown> = Promise.resolve()
  /** No broker is restarted in a rolling restart after that; of `performance.now()`. */
  untilMs = Number.POSITIVE_INFINITY

  /** @param topics whose replicas must be in sync before the next fault */
  constructor(parts: readonly SupervisedPart[], addresses: readonly string[], topics: readonly string[]) {
    this.parts = parts
    this.#addresses = addresses
    this.#topics = topics
  }

  /** Leaves out those that are down or stand still. */
  get addresses(): readonly string[] {
    const up = this.#addresses.filter((_, index) => this.parts[index]?.state === 'up')
    return up.length > 0 ? up : this.#addresses
  }

  partitions(): Promise<PartitionState[]> {
    return describePartitions(this.addresses, this.#topics)
  }

  /**
   * Does `work` when all before it is over and every replica is in sync. A single broker has no replicas to wait for.
   *
   * @returns what it answers
   * @throws when replicas do not come in sync
   */
  inTurn<Result>(work: () => Promise<Result>, signal: AbortSignal): Promise<Result> {
    const working = this.#turn.then(async () => {
      await this.inSync(signal)
      signal.throwIfAborted()
      return await work()
    })
    this.#turn = working.catch(() => undefined) // The caller gets the error.
    return working
  }

  /** Resolves when every partition has all of its replicas. */
  async inSync(signal: AbortSignal): Promise<void> {
    if (this.parts.length === 1) return
    await waitFor(
      async () => {
        signal.throwIfAborted()
        const partitions = await this.partitions()
        return partitions.every(({ replicas, inSync }) => inSync.length === replicas.length)
      },
      { timeoutMs: IN_SYNC_LIMIT_MS, what: 'all replicas to be in sync', everyMs: POLL_MS },
    )
    await sleep(SETTLE_MS, signal)
  }

  /** Resolves when these partitions have exactly these replicas. */
  async assigned(
    wanted: ReadonlyArray<{ topic: string; partition: number; replicas: readonly number[] }>,
    signal: AbortSignal,
  ): Promise<void> {
    await waitFor(
      async () => {
        signal.throwIfAborted()
        const partitions = await this.partitions()
        return wanted.every((one) => {
          const now = partitions.find(
            ({ topic, partition }) => topic === one.topic && partition === one.partition,
          )
          return (
            now !== undefined &&
            now.replicas.join() === one.replicas.join() &&
            now.inSync.length === now.replicas.length
          )
        })
      },
      { timeoutMs: IN_SYNC_LIMIT_MS, what: 'partitions to be reassigned', everyMs: POLL_MS },
    )
  }
}
