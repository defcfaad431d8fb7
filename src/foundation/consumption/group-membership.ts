import { describeKafkaError } from '../kafka/broker-errors.ts'
import { keyOf, type TopicPartition } from '../kafka/partition.ts'
import { type BackoffPolicy, delayFor, sleep } from '../runtime/backoff.ts'
import { describeError } from '../runtime/errors.ts'
import type { ServicePorts } from '../telemetry/service.ts'
import type { GroupClient, OffsetToCommit } from './group-client.ts'

export interface Assignment {
  readonly generation: number
  readonly partitions: readonly TopicPartition[]
}

export interface MembershipPorts extends ServicePorts {
  readonly openClient: () => GroupClient
  /** The offset below which each partition with a position is stored. */
  readonly storedOffsets: () => readonly OffsetToCommit[]
  /** A generation has begun with exactly these partitions. */
  readonly onAssigned: (assignment: Assignment) => void
  /** The membership is lost and a rejoin follows. Other members may own the partitions now. */
  readonly onLost: () => void
}

/** Interval of commits to the group, while stored offsets move. */
const COMMIT_INTERVAL_MS = 500

/** Time that a stop waits for the last commit and the leave together. */
const FAREWELL_MS = 1500

/**
 * Keeps this consumer a member of the group. Rejoins automatically, without limit.
 *
 * Commits go only to the generation that assigned the partitions: none is sent between the start of
 * a rebalance and the join that ends it, where a commit would wait for our JoinGroup. A refused
 * commit is repeated for the partitions that are still ours. No data depends on it, since the
 * database holds the authoritative offsets.
 */
export class GroupMembership {
  readonly #ports: MembershipPorts
  readonly #backoff: BackoffPolicy
  readonly #stopping = new AbortController()
  #client: GroupClient | null = null
  #running: Promise<void> | null = null
  #stable = false
  /** By `keyOf`; those of the last generation after a loss. */
  #assigned: ReadonlySet<string> = new Set()
  /** What this generation has committed, by `keyOf`. */
  #committed = new Map<string, number>()
  #committing: Promise<void> | null = null
  #cancelCommit = () => {}
  #generation: number | null = null
  #failure: string | null = null
  #ended: PromiseWithResolvers<unknown> | null = null
  readonly #counts = { joins: 0, losses: 0, commits: 0, failedCommits: 0 }

  /** @param backoff delays between joins */
  constructor(ports: MembershipPorts, backoff: BackoffPolicy) {
    this.#ports = ports
    this.#backoff = backoff
  }

  /** The generation of the group while a member; otherwise null. */
  get generation(): number | null {
    return this.#stable ? this.#generation : null
  }

  /** Why this process is not a member, from the first failed attempt; null while it is. */
  get failure(): string | null {
    return this.#failure
  }

  /** Since start: generations joined, lost memberships with failed joins, and commits. */
  get counts(): Readonly<Record<'joins' | 'losses' | 'commits' | 'failedCommits', number>> {
    return this.#counts
  }

  start(): void {
    this.#running ??= this.#run()
    this.#commitLater()
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
    this.#cancelCommit()
    // An unavailable broker must not delay the stop: the database has the offsets, and the session
    // expires.
    const late = sleep(FAREWELL_MS, undefined, this.#ports.clock)
    let committed = false
    const farewell = async () => {
      await this.#committing
      await this.#commit()
      // Commits are not allowed during a rebalance, which is not an outage.
      const rebalancing = this.#client !== null && this.#generation !== null && !this.#stable
      committed = this.#uncommitted().length === 0 || rebalancing
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
        this.#failure = describeKafkaError(lost)
        log.warn({ err: lost }, `Group membership lost, rejoining: ${describeError(lost)}`)
      } catch (error) {
        if (signal.aborted) return
        this.#failure = describeKafkaError(error)
        log.warn({ err: error }, `Cannot join the group: ${this.#failure}`)
      }
      this.#counts.losses++
      this.#stable = false
      this.#ports.onLost()
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
    this.#counts.joins++
    this.#assigned = new Set(partitions.map(keyOf))
    this.#committed = new Map()
    this.#generation = generation
    this.#stable = true
    this.#failure = null
    this.#ports.onAssigned({ generation, partitions })
  }

  #commitLater(): void {
    this.#cancelCommit = this.#ports.clock.schedule(COMMIT_INTERVAL_MS, () => {
      this.#committing = this.#commit().finally(() => {
        this.#committing = null
        if (!this.#stopping.signal.aborted) this.#commitLater()
      })
    })
  }

  /** Stored offsets of our partitions; their owners commit those of the others. */
  #uncommitted(): OffsetToCommit[] {
    const offsets: OffsetToCommit[] = []
    for (const one of this.#ports.storedOffsets()) {
      const key = keyOf(one)
      if (this.#assigned.has(key) && this.#committed.get(key) !== one.nextOffset) offsets.push(one)
    }
    return offsets
  }

  async #commit(): Promise<void> {
    if (!this.#stable || this.#client === null) return
    const offsets = this.#uncommitted()
    if (offsets.length === 0) return
    // A later generation begins with its own map.
    const committed = this.#committed
    try {
      await this.#client.commit(offsets)
      this.#counts.commits++
      for (const one of offsets) committed.set(keyOf(one), one.nextOffset)
    } catch (error) {
      this.#counts.failedCommits++
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
