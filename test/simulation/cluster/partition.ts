import { ProducerStates } from './producer-states.ts'
import { compact, ReplicaLog, readBatch, type StoredBatch } from './replica-log.ts'

/** Positions in the head of a batch. */
const PRODUCER_ID_AT = 43
const FIRST_SEQUENCE_AT = 53

/** The controller's view of a partition. Brokers learn it a moment later. */
export interface Leadership {
  /** Node id; −1 without a leader. */
  readonly leader: number
  readonly epoch: number
}

export const ERROR = {
  NONE: 0,
  OFFSET_OUT_OF_RANGE: 1,
  UNKNOWN_TOPIC_OR_PARTITION: 3,
  NOT_LEADER_OR_FOLLOWER: 6,
  REQUEST_TIMED_OUT: 7,
  MESSAGE_TOO_LARGE: 10,
  NOT_ENOUGH_REPLICAS: 19,
  TOPIC_AUTHORIZATION_FAILED: 29,
  INVALID_TIMESTAMP: 32,
  KAFKA_STORAGE_ERROR: 56,
  UNKNOWN_PRODUCER_ID: 59,
  FENCED_LEADER_EPOCH: 74,
  UNKNOWN_LEADER_EPOCH: 75,
  UNKNOWN_TOPIC_ID: 100,
} as const

export interface PartitionEvents {
  /** All in-sync replicas have it. */
  onCommitted(partition: Partition, batch: StoredBatch): void
  onDropped(partition: Partition, batch: StoredBatch): void
}

/** A Produce that waits for the replicas. */
interface Waiting {
  readonly offset: number
  readonly settle: (errorCode: number) => void
}

/** One partition over its replicas: leader epochs, in-sync replicas, high watermark, producers. */
export class Partition {
  readonly topic: string
  readonly index: number
  readonly minInSync: number
  readonly isCompacted: boolean
  readonly logs = new Map<number, ReplicaLog>()
  readonly inSync: Set<number>
  /** Batches lost in unclean elections. */
  readonly truncated = new Set<StoredBatch>()
  /** In the order of preference. */
  replicas: readonly number[]
  leadership: Leadership
  /** By the appending node: an isolated old leader may have some too. */
  readonly #producers = new Map<number, { readonly epoch: number; readonly states: ProducerStates }>()
  readonly #waiting = new Map<number, Waiting[]>()
  readonly #events: PartitionEvents

  constructor(
    topic: string,
    index: number,
    replicas: readonly number[],
    options: { readonly minInSync: number; readonly isCompacted: boolean },
    events: PartitionEvents,
  ) {
    this.topic = topic
    this.index = index
    this.minInSync = options.minInSync
    this.isCompacted = options.isCompacted
    this.replicas = replicas
    this.inSync = new Set(replicas)
    this.leadership = { leader: replicas[0] ?? -1, epoch: 0 }
    this.#events = events
    for (const node of replicas) this.logs.set(node, new ReplicaLog())
  }

  get name(): string {
    return `${this.topic}/${this.index}`
  }

  /** The leader according to the controller. */
  get leaderLog(): ReplicaLog | undefined {
    return this.logs.get(this.leadership.leader)
  }

  /** Appends as the broker that believes to lead in this epoch. @returns the batch, or an error code */
  append(node: number, epoch: number, bytes: Buffer, incarnation: number): StoredBatch | number {
    const log = this.logs.get(node)
    if (log === undefined) return ERROR.NOT_LEADER_OR_FOLLOWER
    const content = readBatch(bytes, log.end, epoch)
    const producerId = Number(bytes.readBigInt64BE(PRODUCER_ID_AT))
    const sequence = bytes.readInt32BE(FIRST_SEQUENCE_AT)
    const count = content.messages.length
    const states = this.#statesOf(node, epoch, log)
    const known = states.check(producerId, sequence, count)
    if (known !== null) return known
    const batch: StoredBatch = {
      baseOffset: log.end,
      leaderEpoch: epoch,
      count,
      producerId,
      sequence,
      incarnation,
      content,
      isCommitted: false,
      acknowledgedAtMs: Number.POSITIVE_INFINITY,
      excuses: new Set(),
    }
    log.batches.push(batch)
    states.add(batch)
    if (this.isCompacted) for (const { key } of content.messages) compact(log, key)
    return batch
  }

  /** The leader forgets its producers. Their stored batches may be duplicated. */
  forgetProducers(): void {
    const { leader, epoch } = this.leadership
    this.#producers.set(leader, { epoch, states: new ProducerStates() })
    for (const batch of this.leaderLog?.batches.slice(-200) ?? []) batch.excuses.add('forgotten')
  }

  #statesOf(node: number, epoch: number, log: ReplicaLog): ProducerStates {
    const known = this.#producers.get(node)
    if (known?.epoch === epoch) return known.states
    const states = new ProducerStates(log.batches)
    this.#producers.set(node, { epoch, states })
    return states
  }

  /**
   * @param settle called with 0 once all in-sync replicas have it, or with an error. @returns a
   * function that stops waiting
   */
  whenCommitted(node: number, { baseOffset, count }: StoredBatch, settle: Waiting['settle']): () => void {
    const offset = baseOffset + count
    const log = this.logs.get(node)
    if (log !== undefined && log.highWatermark >= offset) {
      settle(ERROR.NONE)
      return () => {}
    }
    const waiting = { offset, settle }
    const all = this.#waiting.get(node)
    if (all === undefined) this.#waiting.set(node, [waiting])
    else all.push(waiting)
    return () => {
      const left = (this.#waiting.get(node) ?? []).filter((one) => one !== waiting)
      this.#waiting.set(node, left)
    }
  }

  /** Lets the followers that reach the leader fetch from it. */
  replicate(followers: Iterable<number>): void {
    const leader = this.leaderLog
    if (leader === undefined) return
    for (const node of followers) {
      if (node === this.leadership.leader) continue
      const dropped = this.logs.get(node)?.catchUp(leader) ?? []
      for (const batch of dropped) this.#events.onDropped(this, batch)
    }
  }

  /** Advances the high watermark to the offset that all in-sync replicas have. */
  commit(): void {
    const { leader: node } = this.leadership
    const log = this.leaderLog
    if (log === undefined || this.inSync.size < this.minInSync) return
    const reached = Math.min(...[...this.inSync].map((one) => this.logs.get(one)?.end ?? 0))
    if (reached > log.highWatermark) {
      log.highWatermark = reached
      this.#noteCommitted(log)
    }
    const waiting = this.#waiting.get(node) ?? []
    if (waiting.length === 0) return
    this.#waiting.set(
      node,
      waiting.filter(({ offset }) => offset > log.highWatermark),
    )
    for (const { offset, settle } of waiting) if (offset <= log.highWatermark) settle(ERROR.NONE)
  }

  #noteCommitted(log: ReplicaLog): void {
    let at = log.indexOf(log.highWatermark - 1)
    while (at > 0 && log.batches[at - 1]?.isCommitted === false) at--
    for (; at < log.batches.length; at++) {
      const batch = log.batches[at]
      if (batch === undefined || batch.baseOffset + batch.count > log.highWatermark) return
      if (batch.isCommitted) continue
      batch.isCommitted = true
      this.#events.onCommitted(this, batch)
    }
  }

  /** The controller's choice; the new leader continues with the log that it has. */
  lead(leader: number): void {
    if (leader === this.leadership.leader) return
    this.leadership = { leader, epoch: this.leadership.epoch + 1 }
    const log = this.leaderLog
    if (log !== undefined) log.electedAt = log.end
  }

  /** Adds an empty replica. */
  add(node: number): void {
    this.logs.set(node, new ReplicaLog())
    this.inSync.add(node)
  }

  /** Deletes its log. */
  remove(node: number): void {
    this.logs.delete(node)
    this.inSync.delete(node)
    this.resign(node)
  }

  /** A broker learns that it no longer leads. */
  resign(node: number): void {
    const waiting = this.#waiting.get(node) ?? []
    this.#waiting.delete(node)
    for (const { settle } of waiting) settle(ERROR.NOT_LEADER_OR_FOLLOWER)
  }

  /** Elects a replica without the newest batches (`unclean.leader.election.enable`). @returns if it could */
  electUnclean(node: number, lacking: number): boolean {
    const log = this.logs.get(node)
    if (log === undefined || node === this.leadership.leader) return false
    for (const batch of log.batches.splice(Math.max(0, log.batches.length - lacking))) this.#truncate(batch)
    log.highWatermark = Math.min(log.highWatermark, log.end)
    this.inSync.clear()
    this.inSync.add(node)
    this.lead(node)
    // Batches that only the old leader had are lost.
    for (const other of this.logs.values()) {
      for (const batch of other.batches.slice(log.batches.length)) this.#truncate(batch)
    }
    return true
  }

  #truncate(batch: StoredBatch): void {
    batch.excuses.add('truncated')
    this.truncated.add(batch)
  }
}
