import { describeKafkaError } from '../foundation/kafka/broker-errors.ts'
import { keyOf, type TopicPartition } from '../foundation/kafka/partition.ts'
import { type BackoffPolicy, delayFor, sleep } from '../foundation/runtime/backoff.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { GroupClient, OffsetToCommit } from './group-client.ts'

export interface Assignment {
  readonly generation: number
  readonly partitions: readonly TopicPartition[]
}

export interface MembershipEvents {
  /** A generation has begun with exactly these partitions. */
  onAssigned(assignment: Assignment): void
  /** The membership is lost and a rejoin follows. Other members may own the partitions now. */
  onLost(): void
}

/** Counts since start. */
export interface GroupCounts {
  /** Generations that this consumer has been a member of. */
  readonly joins: number
  /** Lost memberships and failed joins. */
  readonly losses: number
  readonly commits: number
  readonly failedCommits: number
}

export interface MembershipPorts {
  readonly clock: Clock
  /** In [0, 1). */
  readonly random: () => number
  readonly openClient: () => GroupClient
  readonly log: Logger
}

/** Minimum interval between commits to the group. */
const COMMIT_INTERVAL_MS = 500

/** Time that a stop waits for the last commit and the leave together. */
const FAREWELL_MS = 1500

/**
 * Keeps this consumer a member of the group. Rejoins automatically, without limit.
 *
 * Commits go only to the generation that assigned the partitions: none is sent between the start of
 * a rebalance and the join that ends it, where a commit would wait for our JoinGroup. A refused
 * commit is sent again for the partitions that are still ours. No data depends on it, since the
 * database holds the authoritative offsets.
 */
export class GroupMembership {
  readonly #ports: MembershipPorts
  readonly #events: MembershipEvents
  readonly #backoff: BackoffPolicy
  readonly #stopping = new AbortController()
  #client: GroupClient | null = null
  #running: Promise<void> | null = null
  #stable = false
  #assigned: ReadonlySet<string> = new Set()
  #uncommitted = new Map<string, OffsetToCommit>()
  #committing: Promise<void> | null = null
  #cancelCommit: (() => void) | null = null
  #generation: number | null = null
  /**
   * Why this process is not a member of the group, from the first failed attempt; null while it is
   * a member.
   */
  failure: string | null = null
  #ended: PromiseWithResolvers<unknown> | null = null
  readonly counts = { joins: 0, losses: 0, commits: 0, failedCommits: 0 }

  /** @param backoff delays between joins */
  constructor(ports: MembershipPorts, events: MembershipEvents, backoff: BackoffPolicy) {
    this.#ports = ports
    this.#events = events
    this.#backoff = backoff
  }

  /** The generation of the group while a member; otherwise null. */
  get generation(): number | null {
    return this.#stable ? this.#generation : null
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /**
   * Takes offsets that are stored. Commits those of our partitions soon, at most twice a second.
   * Ignores the others, which their owner commits.
   */
  commitSoon(offsets: readonly OffsetToCommit[]): void {
    for (const { topic, partition, nextOffset } of offsets) {
      this.#uncommitted.set(keyOf({ topic, partition }), { topic, partition, nextOffset })
    }
    this.#scheduleCommit()
  }

  /**
   * Commits start positions of all partitions, including those of other members. The caller handles
   * errors.
   */
  async commitStart(offsets: readonly OffsetToCommit[]): Promise<void> {
    await this.#requireClient().commit(offsets)
  }

  /** Whether the group has committed any offset in these partitions. */
  async hasCommits(partitions: ReadonlyMap<string, number>): Promise<boolean> {
    return this.#requireClient().hasCommits(partitions)
  }

  /** Leaves and rejoins the group, for instance because a topic has more partitions than before. */
  rejoin(reason: string): void {
    this.#ended?.resolve(new Error(reason))
  }

  /**
   * Commits stored offsets, leaves the group and closes the client. Waits at most 1.5 s for the
   * broker.
   *
   * @returns false when stored offsets could not be committed because Kafka is unavailable
   */
  async stop(): Promise<boolean> {
    this.#stopping.abort()
    this.#cancelCommit?.()
    // An unavailable broker must not delay the stop: the database has the offsets, and the session
    // expires.
    const late = sleep(FAREWELL_MS, undefined, this.#ports.clock)
    let committed = false
    const farewell = async () => {
      await this.#committing
      await this.#commit()
      // Commits are not allowed during a rebalance, which is not an outage.
      const rebalancing = this.#client !== null && this.#generation !== null && !this.#stable
      committed = this.#uncommitted.size === 0 || rebalancing
      await this.#closeClient()
    }
    await Promise.race([farewell(), late])
    await Promise.race([this.#running, late])
    return committed
  }

  #requireClient(): GroupClient {
    if (this.#client === null) throw new Error('The group membership has just been lost')
    return this.#client
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    const { clock, random, log } = this.#ports
    for (let failures = 0; !signal.aborted; ) {
      try {
        const lost = await this.#join(() => {
          failures = 0
        })
        if (signal.aborted) return
        this.failure = describeKafkaError(lost)
        log.warn({ err: lost }, `Group membership lost, rejoining: ${describeError(lost)}`)
      } catch (error) {
        if (signal.aborted) return
        this.failure = describeKafkaError(error)
        log.warn({ err: error }, `Cannot join the group: ${this.failure}`)
      }
      this.#lose()
      failures++
      await this.#closeClient()
      await sleep(delayFor(failures, this.#backoff, random()), signal, clock).catch(() => {})
    }
  }

  /** Resolves with the error that ended the membership; rejects when it never began. */
  async #join(onJoined: () => void): Promise<unknown> {
    const client = this.#ports.openClient()
    this.#client = client
    const ended = Promise.withResolvers<unknown>()
    this.#ended = ended
    // Late events of a replaced client are ignored.
    const isCurrent = () => this.#client === client
    await client.join({
      onEnded: (error) => ended.resolve(error),
      onRebalance: () => {
        if (isCurrent()) this.#stable = false
      },
      onJoined: (generation, partitions) => {
        if (!isCurrent()) return
        onJoined()
        this.#become(generation, partitions)
      },
    })
    return ended.promise
  }

  #become(generation: number, partitions: readonly TopicPartition[]): void {
    this.counts.joins++
    this.#assigned = new Set(partitions.map(keyOf))
    this.#generation = generation
    this.#dropForeign()
    this.#stable = true
    this.failure = null
    if (this.#uncommitted.size > 0) this.#scheduleCommit()
    this.#events.onAssigned({ generation, partitions })
  }

  #lose(): void {
    this.counts.losses++
    this.#stable = false
    this.#assigned = new Set()
    this.#events.onLost()
  }

  /** Drops stored offsets of partitions that are not ours now; their owner commits them. */
  #dropForeign(): void {
    for (const key of [...this.#uncommitted.keys()])
      if (!this.#assigned.has(key)) this.#uncommitted.delete(key)
  }

  #scheduleCommit(): void {
    if (this.#cancelCommit !== null || this.#stopping.signal.aborted) return
    this.#cancelCommit = this.#ports.clock.schedule(COMMIT_INTERVAL_MS, () => {
      this.#cancelCommit = null
      if (this.#committing !== null) {
        this.#scheduleCommit()
        return
      }
      this.#committing = this.#commit().finally(() => {
        this.#committing = null
      })
    })
  }

  async #commit(): Promise<void> {
    if (!this.#stable || this.#client === null) return
    this.#dropForeign()
    const offsets = this.#uncommitted
    if (offsets.size === 0) return
    this.#uncommitted = new Map()
    try {
      await this.#client.commit([...offsets.values()])
      this.counts.commits++
    } catch (error) {
      this.counts.failedCommits++
      // Offsets stored since then take precedence.
      this.#uncommitted = new Map([...offsets, ...this.#uncommitted])
      this.#scheduleCommit()
      this.#ports.log.debug(
        { err: error },
        `Offsets were not committed to the group: ${describeError(error)}`,
      )
    }
  }

  async #closeClient(): Promise<void> {
    const client = this.#client
    this.#client = null
    try {
      await client?.close()
    } catch (error) {
      this.#ports.log.debug({ err: error }, `Leaving the group failed: ${describeError(error)}`)
    }
  }
}
