import { sleep } from '../src/foundation/runtime/backoff.ts'
import type { PartitionState } from '../test/support/kafka-cluster.ts'
import { until } from '../test/support/wait-for.ts'
import { describePartitions } from './kafka-admin.ts'
import type { SupervisedPart } from './part.ts'

const IN_SYNC_LIMIT_MS = 120_000
const POLL_MS = 250
/** Time after a broker's return until its leaders and replicas are final. */
const SETTLE_MS = 500

/** All brokers. Faults strike them one after the other, each when all replicas are in sync. */
export class Brokers {
  readonly parts: readonly SupervisedPart[]
  readonly #addresses: readonly string[]
  readonly #topics: readonly string[]
  #turn: Promise<unknown> = Promise.resolve()
  /** No rolling restart stops a broker after this time of `performance.now()`. */
  untilMs = Number.POSITIVE_INFINITY

  /** @param topics whose replicas must be in sync before the next fault */
  constructor(parts: readonly SupervisedPart[], addresses: readonly string[], topics: readonly string[]) {
    this.parts = parts
    this.#addresses = addresses
    this.#topics = topics
  }

  /** Addresses of the brokers that run; all of them if none does. */
  get addresses(): readonly string[] {
    const up = this.#addresses.filter((_, index) => this.parts[index]?.state === 'up')
    return up.length > 0 ? up : this.#addresses
  }

  partitions(): Promise<PartitionState[]> {
    return describePartitions(this.addresses, this.#topics)
  }

  /**
   * Runs `work` after all earlier work, once every replica is in sync. A single broker has no
   * replicas to wait for.
   *
   * @returns the result of `work`
   * @throws when the replicas do not get in sync
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

  /** Resolves when all replicas of every partition are in sync. */
  async inSync(signal: AbortSignal): Promise<void> {
    if (this.parts.length === 1) return
    await until(
      'all replicas to be in sync',
      async () => {
        signal.throwIfAborted()
        const partitions = await this.partitions()
        return partitions.every(({ replicas, inSync }) => inSync.length === replicas.length)
      },
      IN_SYNC_LIMIT_MS,
      POLL_MS,
    )
    await sleep(SETTLE_MS, signal)
  }

  /** Resolves when these partitions have exactly these replicas, in sync. */
  async assigned(
    wanted: ReadonlyArray<{ topic: string; partition: number; replicas: readonly number[] }>,
    signal: AbortSignal,
  ): Promise<void> {
    await until(
      'partitions to be reassigned',
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
      IN_SYNC_LIMIT_MS,
      POLL_MS,
    )
  }
}
