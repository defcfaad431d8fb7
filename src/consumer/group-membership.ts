import { describeKafkaError } from '../foundation/kafka/broker-errors.ts'
import { type BackoffPolicy, delayFor } from '../foundation/runtime/backoff.ts'
import { type Clock, sleepOn } from '../foundation/runtime/clock.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { GroupClient, OffsetToCommit } from './group-client.ts'
import { keyOf, type TopicPartition } from './partition.ts'

export interface Assignment {
  readonly generation: number
  readonly partitions: readonly TopicPartition[]
}

export interface MembershipEvents {
  /** A generation has begun: these partitions are ours, no others. */
  onAssigned(assignment: Assignment): void
  /** The membership is gone and being sought anew; partitions may be somebody else's now. */
  onLost(): void
}

/** Counts since the start. */
export interface GroupCounts {
  /** Generations that this consumer has been a member of. */
  readonly joins: number
  /** Times that it was thrown out or could not join. */
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

/** How often the committed offsets that wait are sent to the broker, at most. */
const COMMIT_INTERVAL_MS = 500

/** How long a stop waits for the last commit and for leaving the group, together. */
const FAREWELL_MS = 1500

/**
 * Membership in the consumer group. It rejoins by itself, for ever.
 *
 * Commits go only to the generation in which the partitions are ours: none is sent between the notice of a
 * rebalance and the join that ends it (one sent then would hang behind our own JoinGroup). One that is refused is
 * sent again as far as the partitions are still ours: nothing depends on it, since the database holds the offsets that
 * count.
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
  /** Why this process is not a member of the group, from the first failed attempt on; null while it is. */
  failure: string | null = null
  #ended: PromiseWithResolvers<unknown> | null = null
  readonly counts = { joins: 0, losses: 0, commits: 0, failedCommits: 0 }

  /** @param backoff between joins */
  constructor(ports: MembershipPorts, events: MembershipEvents, backoff: BackoffPolicy) {
    this.#ports = ports
    this.#events = events
    this.#backoff = backoff
  }

  /** Of the group, while a member; null otherwise. */
  get generation(): number | null {
    return this.#stable ? this.#generation : null
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /**
   * Offsets that are stored. Those of partitions that are ours are committed soon, a few times a second; the
   * others are left alone, as their owner commits them.
   */
  commitSoon(offsets: readonly OffsetToCommit[]): void {
    for (const { topic, partition, nextOffset } of offsets) {
      this.#uncommitted.set(keyOf({ topic, partition }), { topic, partition, nextOffset })
    }
    this.#scheduleCommit()
  }

  /** Commits start positions of partitions that may belong to other members too; errors are the caller's. */
  async commitStart(offsets: readonly OffsetToCommit[]): Promise<void> {
    await this.#requireClient().commit(offsets)
  }

  /** Whether the group has committed anything in these partitions. */
  async hasCommits(partitions: ReadonlyMap<string, number>): Promise<boolean> {
    return this.#requireClient().hasCommits(partitions)
  }

  /** Joins the group anew, for instance because a topic has more partitions than it had. */
  rejoin(reason: string): void {
    this.#ended?.resolve(new Error(reason))
  }

  /**
   * Commits what is stored, leaves the group and closes the client; a broker that does not answer gets 1.5 s.
   *
   * @returns false when stored offsets could not be committed: Kafka is away
   */
  async stop(): Promise<boolean> {
    this.#stopping.abort()
    this.#cancelCommit?.()
    // A broker that is away must not hold up the stop: the database knows the offsets, and a session ends by itself.
    const late = this.#sleep(FAREWELL_MS)
    let committed = false
    const farewell = async () => {
      await this.#committing
      await this.#commit()
      // While the group is being divided anew nothing may be committed; that is no outage.
      const rebalancing = this.#client !== null && this.#generation !== null && !this.#stable
      committed = this.#uncommitted.size === 0 || rebalancing
      await this.#closeClient()
    }
    await Promise.race([farewell(), late])
    await Promise.race([this.#running, late])
    return committed
  }

  #sleep(ms: number): Promise<void> {
    return sleepOn(this.#ports.clock, ms, new AbortController().signal)
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
        log.warn({ err: lost }, `Group membership lost, joining again: ${describeError(lost)}`)
      } catch (error) {
        if (signal.aborted) return
        this.failure = describeKafkaError(error)
        log.warn({ err: error }, `Cannot join the group: ${this.failure}`)
      }
      this.#lose()
      failures++
      await this.#closeClient()
      await sleepOn(clock, delayFor(failures, this.#backoff, random()), signal).catch(() => {})
    }
  }

  /** Resolves with the error that ended the membership; rejects when it never began. */
  async #join(onJoined: () => void): Promise<unknown> {
    const client = this.#ports.openClient()
    this.#client = client
    const ended = Promise.withResolvers<unknown>()
    this.#ended = ended
    // A late event of a client that has been replaced says nothing of this one.
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

  /** What was stored of partitions that are not ours now is their owner's to commit. */
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
      // What has been stored since counts.
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
