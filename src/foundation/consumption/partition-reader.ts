import type { FetchLimits } from '../kafka/broker-requests.ts'
import type { TopicNames } from '../kafka/config.ts'
import type { RecordFetcher } from '../kafka/kafka-port.ts'
import type { TopicKind } from '../kafka/message-decoder.ts'
import type { PartitionOrigin, TopicPartition } from '../kafka/partition.ts'
import type { TopicMetadata } from '../kafka/topic-metadata.ts'
import { type BackoffPolicy, delayFor, sleep, unlessAborted } from '../runtime/backoff.ts'
import { Wake } from '../runtime/clock.ts'
import { describeError } from '../runtime/errors.ts'
import { FetchLoop, type FetchWakes } from './fetch-loop.ts'
import type { GroupClient, OffsetToCommit } from './group-client.ts'
import { type Assignment, GroupMembership } from './group-membership.ts'
import type { MessageBuffer, ReadPosition } from './message-buffer.ts'

/** The topics that become rows, with what is in them. Only ingestion reads the checkpoints. */
export function topicKinds({
  trades,
  bookTicker,
  depth,
  gaps,
  deadLetters,
}: TopicNames): Map<string, TopicKind> {
  return new Map([
    [trades, 'trades'],
    [bookTicker, 'bookTicker'],
    [depth, 'depth'],
    [gaps, 'gaps'],
    [deadLetters, 'deadLetters'],
  ])
}

export interface ReaderOptions {
  readonly topics: readonly string[]
  /** Those of them that do not exist yet. Each is removed, and read, once it exists. */
  readonly lacking?: Set<string>
  readonly limits: FetchLimits
  readonly backoff: BackoffPolicy
  readonly sessionTimeoutMs: number
}

/** Ids and partition counts by topic. */
export type Topics = ReadonlyMap<string, TopicMetadata>

export interface ReaderPorts extends FetchWakes {
  readonly buffer: MessageBuffer & { progress(): readonly OffsetToCommit[] }
  /** Opens a new client; called again after the previous one failed. */
  readonly openFetcher: () => RecordFetcher
  readonly openGroupClient: (topics: readonly string[]) => GroupClient
  /**
   * Reads where these partitions continue.
   *
   * @returns a call that gives the buffer exactly these partitions
   */
  readonly readPositions: (partitions: readonly PartitionOrigin[], topics: Topics) => Promise<() => void>
  /** Whether reading positions may succeed later. */
  readonly isRetryable: (error: unknown) => boolean
  /** A topic has another id than before. The buffer must not read on under the old one. */
  readonly onRecreated: (topic: string, topicId: string) => void
  /** A partition lost its tail. */
  readonly onTruncated: (position: ReadPosition) => Promise<void>
  /** Continuing would lose or corrupt data. */
  readonly onFatal: (error: unknown) => void
}

/**
 * Reads the partitions that the group assigns into a buffer: the group gives partitions, their owner
 * gives positions, Kafka gives messages.
 */
export class PartitionReader {
  readonly membership: GroupMembership
  readonly kafka: FetchLoop
  readonly #lacking: Set<string>
  readonly #backoff: BackoffPolicy
  readonly #ports: ReaderPorts
  readonly #stopping = new AbortController()
  readonly #positionsWanted = new Wake()
  #assignment: Assignment | null = null
  #positioned: Assignment | null = null
  /** Null until the brokers answer, also again after {@link reconnect}. */
  #topics: Topics | null = null
  /** The last answer, with which the next one is compared. */
  #known: Topics | null = null
  /** Counts what makes positions invalid that are being read. */
  #revision = 0
  #failure: string | null = null

  constructor(options: ReaderOptions, ports: ReaderPorts) {
    const { topics, lacking = new Set(), limits, backoff, sessionTimeoutMs } = options
    this.#lacking = lacking
    this.#backoff = backoff
    this.#ports = ports
    this.membership = new GroupMembership(
      {
        ...ports,
        openClient: () => ports.openGroupClient(topics.filter((topic) => !lacking.has(topic))),
        storedOffsets: () => ports.buffer.progress(),
        onAssigned: (assignment) => {
          this.#assignment = assignment
          this.#positionsWanted.ring()
        },
        onLost: () => {
          this.#assignment = null
        },
      },
      { ...backoff, maxMs: Math.min(backoff.maxMs, sessionTimeoutMs) },
    )
    this.kafka = new FetchLoop(
      { limits, backoff },
      { ...ports, onConnected: (found) => this.#onTopics(found) },
    )
  }

  /** Why nothing is read of any partition; null if partitions have positions. */
  get obstacle(): string | null {
    if (this.membership.failure !== null)
      return `the consumer group cannot be joined: ${this.membership.failure}`
    if (this.#positioned !== null && this.#positioned === this.#assignment) return null
    return this.fetchProblem ?? this.#failure ?? 'no partitions are assigned yet'
  }

  /** Why the last fetch failed; null if it did not. */
  get fetchProblem(): string | null {
    return this.kafka.failure === null ? null : `nothing can be fetched: ${this.kafka.failure}`
  }

  /** Our partitions, also those without a position; null while no member. */
  get assigned(): readonly TopicPartition[] | null {
    return this.#assignment?.partitions ?? null
  }

  /** The id of a topic, as the brokers last reported it; null before. */
  topicId(topic: string): string | null {
    return this.#known?.get(topic)?.id ?? null
  }

  /** @returns a promise that rejects when reading positions cannot succeed, and resolves after a stop */
  start(): Promise<void> {
    this.membership.start()
    this.kafka.start()
    return this.#positionLoop()
  }

  /** Reads the positions again of the partitions that the buffer has not. */
  reposition(): void {
    this.#revision++
    this.#positioned = null
    this.#positionsWanted.ring()
  }

  /** Reads the topics again, with a new client. */
  reconnect(): void {
    this.#topics = null
    this.kafka.reconnect()
  }

  /** Takes in nothing from this call on. Resolves when the client is closed. */
  stopFetching(): Promise<void> {
    this.#stopping.abort()
    this.#positionsWanted.ring()
    return this.kafka.stop()
  }

  #onTopics(found: Topics): void {
    // What was taken in is being stored now and must not be discarded.
    if (this.#stopping.signal.aborted) return
    const known = this.#known
    const changed = [...found].flatMap(([topic, { id, partitions }]) => {
      const before = known?.get(topic)
      if (before === undefined || (before.id === id && before.partitions === partitions)) return []
      return [{ topic, id, isRecreated: before.id !== id, isResized: before.partitions !== partitions }]
    })
    // An equal answer does not interrupt the reading of positions.
    if (this.#topics === null || changed.length > 0 || known?.size !== found.size) this.#topics = found
    this.#known = found
    const recreated = changed.filter(({ isRecreated }) => isRecreated)
    for (const { topic, id } of recreated) this.#ports.onRecreated(topic, id)
    if (recreated.length > 0) this.#positioned = null
    const created = [...this.#lacking].filter((topic) => found.has(topic))
    for (const topic of created) this.#lacking.delete(topic)
    if (created.length > 0) this.membership.rejoin(`the topic ${created.join()} was created`)
    else if (changed.some(({ isResized }) => isResized))
      this.membership.rejoin('the number of partitions of a topic has changed')
    this.#positionsWanted.ring()
  }

  async #positionLoop(): Promise<void> {
    const { clock, random, log, isRetryable } = this.#ports
    const { signal } = this.#stopping
    for (let failures = 0; !signal.aborted; ) {
      try {
        if (await unlessAborted(this.#position(), signal)) failures = 0
        else await this.#positionsWanted.wait()
      } catch (error) {
        if (signal.aborted) return
        if (!isRetryable(error)) throw error
        failures++
        this.#failure = `reading positions failed: ${describeError(error)}`
        log.warn({ err: error }, `Reading positions failed, retrying: ${describeError(error)}`)
        await sleep(delayFor(failures, this.#backoff, random()), signal, clock).catch(() => {})
      }
    }
  }

  /** @returns false when there is nothing to do until the next wake-up */
  async #position(): Promise<boolean> {
    const assignment = this.#assignment
    const topics = this.#topics
    const revision = this.#revision
    if (assignment === null || topics === null || assignment === this.#positioned) return false
    const ours = assignment.partitions.flatMap(({ topic, partition }): PartitionOrigin[] => {
      const found = topics.get(topic)
      return found === undefined || partition >= found.partitions
        ? []
        : [{ topic, topicId: found.id, partition }]
    })
    if (ours.length < assignment.partitions.length) {
      // We have partitions that did not exist when the brokers last answered.
      this.reconnect()
      return true
    }
    const apply = await this.#ports.readPositions(ours, topics)
    if (this.#stopping.signal.aborted) return false
    // The generation, the incarnation of a topic or a position may have changed meanwhile.
    if (assignment !== this.#assignment || topics !== this.#topics || revision !== this.#revision) return true
    apply()
    this.#positioned = assignment
    this.#failure = null
    const { generation, partitions } = assignment
    this.#ports.log.info({ generation, partitions: partitions.length }, 'Partitions assigned')
    this.#ports.room.ring()
    return true
  }
}
