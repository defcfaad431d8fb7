import { Consumer, type GroupAssignment } from '@platformatic/kafka'
import { describeError } from '../errors.ts'
import { clientOptions } from '../kafka/client.ts'
import { describeKafkaError } from '../kafka/refusal.ts'
import type { Logger } from '../telemetry/log.ts'
import { type BackoffPolicy, delayFor, sleep } from '../timing/backoff.ts'
import type { ConsumerConfig } from './config.ts'

export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

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

/** How often the committed offsets that wait are sent to the broker, at most. */
const COMMIT_INTERVAL_MS = 500

/** How long a stop waits for the last commit and for leaving the group. */
const FAREWELL_MS = 3000

/**
 * Membership in the consumer group, on a client that does nothing else. It rejoins by itself, for ever.
 *
 * Commits go only to the generation in which the partitions are ours: none is sent between the notice of a
 * rebalance and the join that ends it (one sent then would hang behind our own JoinGroup), and the client's
 * retries are off, since with them a stale commit rejoins and then succeeds under a generation that may have
 * given the partition to another.
 */
export class GroupMembership {
  readonly #config: ConsumerConfig
  readonly #topics: readonly string[]
  readonly #events: MembershipEvents
  readonly #log: Logger
  readonly #stopping = new AbortController()
  #client: Consumer<Buffer, Buffer, Buffer, Buffer> | null = null
  #running: Promise<void> | null = null
  #stable = false
  #assigned: ReadonlySet<string> = new Set()
  readonly #uncommitted = new Map<
    string,
    { topic: string; partition: number; offset: bigint; leaderEpoch: number }
  >()
  #committing: Promise<void> | null = null
  #commitTimer: NodeJS.Timeout | null = null
  #generation: number | null = null
  #ended: PromiseWithResolvers<unknown> | null = null

  constructor(config: ConsumerConfig, topics: readonly string[], events: MembershipEvents, log: Logger) {
    this.#config = config
    this.#topics = topics
    this.#events = events
    this.#log = log
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
  commitSoon(offsets: ReadonlyArray<TopicPartition & { readonly nextOffset: number }>): void {
    for (const { topic, partition, nextOffset } of offsets) {
      this.#uncommitted.set(`${topic}:${partition}`, {
        topic,
        partition,
        offset: BigInt(nextOffset),
        leaderEpoch: -1,
      })
    }
    this.#commitTimer ??= setTimeout(() => {
      this.#commitTimer = null
      this.#committing ??= this.#commit().finally(() => {
        this.#committing = null
      })
    }, COMMIT_INTERVAL_MS)
  }

  /** Commits start positions of partitions that may belong to other members too; errors are the caller's. */
  async commitStart(offsets: ReadonlyArray<TopicPartition & { readonly nextOffset: number }>): Promise<void> {
    await this.#requireClient().commit({
      offsets: offsets.map(({ topic, partition, nextOffset }) => ({
        topic,
        partition,
        offset: BigInt(nextOffset),
        leaderEpoch: -1,
      })),
    })
  }

  /** Whether the group has committed anything in these partitions. */
  async hasCommits(partitions: ReadonlyMap<string, number>): Promise<boolean> {
    const topics = [...partitions].map(([topic, count]) => ({ topic, partitions: [...Array(count).keys()] }))
    const committed = await this.#requireClient().listCommittedOffsets({ topics })
    return [...committed.values()].flat().some((offset) => offset !== undefined && offset >= 0n)
  }

  /** Joins the group anew, for instance because a topic has more partitions than it had. */
  rejoin(reason: string): void {
    this.#ended?.resolve(new Error(reason))
  }

  /** Commits what is stored, leaves the group and closes the client. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    if (this.#commitTimer !== null) clearTimeout(this.#commitTimer)
    // A broker that is away must not hold up the stop: the database knows the offsets, and a session ends by itself.
    const farewell = async () => {
      await this.#committing
      await this.#commit()
      await this.#closeClient()
    }
    await Promise.race([farewell(), sleep(FAREWELL_MS)])
    await Promise.race([this.#running, sleep(FAREWELL_MS)])
  }

  #requireClient(): Consumer<Buffer, Buffer, Buffer, Buffer> {
    if (this.#client === null) throw new Error('The group membership has just been lost')
    return this.#client
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    for (let failures = 0; !signal.aborted; ) {
      try {
        const lost = await this.#join(() => {
          failures = 0
        })
        if (signal.aborted) return
        this.#log.warn({ err: lost }, `Group membership lost, joining again: ${describeError(lost)}`)
      } catch (error) {
        if (signal.aborted) return
        this.#log.warn(
          { err: error },
          `Cannot join group ${this.#config.groupId}: ${describeKafkaError(error)}`,
        )
      }
      this.#lose()
      failures++
      await this.#closeClient()
      const wait = delayFor(failures, this.#backoff(), Math.random())
      await sleep(wait, signal).catch(() => {})
    }
  }

  /** Resolves with the error that ended the membership; rejects when it never began. */
  async #join(onJoined: () => void): Promise<unknown> {
    const config = this.#config
    const client = new Consumer({
      ...clientOptions(config.kafka, 'tapeline-consumer'),
      groupId: config.groupId,
      groupProtocol: 'classic',
      sessionTimeout: config.sessionTimeoutMs,
      heartbeatInterval: config.heartbeatIntervalMs,
      rebalanceTimeout: config.rebalanceTimeoutMs,
      heartbeatStallTimeout: config.sessionTimeoutMs,
      autocommit: false,
      retries: 0,
    })
    this.#client = client
    const ended = Promise.withResolvers<unknown>()
    this.#ended = ended
    // A late event of a client that has been replaced says nothing of this one.
    const isCurrent = () => this.#client === client
    client.on('error', (error: unknown) => ended.resolve(error))
    client.on('consumer:heartbeat:stalled', ({ lastError }) => {
      ended.resolve(lastError ?? new Error('No heartbeat was answered for a session timeout'))
    })
    client.on('client:close', () => ended.resolve(new Error('The client was closed')))
    client.on('consumer:group:rebalance', () => {
      if (isCurrent()) this.#stable = false
    })
    client.on('consumer:group:join', ({ generationId, assignments }) => {
      if (!isCurrent()) return
      onJoined()
      this.#become(generationId ?? -1, assignments ?? [])
    })
    for (const topic of this.#topics) client.topics.track(topic)
    await client.joinGroup({})
    return ended.promise
  }

  #become(generation: number, assignments: readonly GroupAssignment[]): void {
    const partitions = assignments.flatMap(({ topic, partitions }) =>
      partitions.map((partition) => ({ topic, partition })),
    )
    this.#assigned = new Set(partitions.map(({ topic, partition }) => `${topic}:${partition}`))
    this.#generation = generation
    // What was stored of partitions that are not ours now is their owner's to commit.
    for (const key of [...this.#uncommitted.keys()])
      if (!this.#assigned.has(key)) this.#uncommitted.delete(key)
    this.#stable = true
    this.#events.onAssigned({ generation, partitions })
  }

  #lose(): void {
    this.#stable = false
    this.#assigned = new Set()
    this.#events.onLost()
  }

  async #commit(): Promise<void> {
    if (!this.#stable || this.#client === null) return
    const offsets = [...this.#uncommitted].filter(([key]) => this.#assigned.has(key))
    this.#uncommitted.clear()
    if (offsets.length === 0) return
    try {
      await this.#client.commit({ offsets: offsets.map(([, offset]) => offset) })
    } catch (error) {
      // The database holds the offsets that count; those of the group follow with the next batch.
      this.#log.debug({ err: error }, `Offsets were not committed to the group: ${describeError(error)}`)
    }
  }

  async #closeClient(): Promise<void> {
    const client = this.#client
    this.#client = null
    try {
      await client?.close(true)
    } catch (error) {
      this.#log.debug({ err: error }, `Leaving the group failed: ${describeError(error)}`)
    }
  }

  #backoff(): BackoffPolicy {
    return {
      ...this.#config.backoff,
      maxMs: Math.min(this.#config.backoff.maxMs, this.#config.sessionTimeoutMs),
    }
  }
}
