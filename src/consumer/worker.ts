import type { FetchLoop, FetchLoopPorts } from '../foundation/consumption/fetch-loop.ts'
import type { GroupClient } from '../foundation/consumption/group-client.ts'
import { type Assignment, GroupMembership } from '../foundation/consumption/group-membership.ts'
import { keyOf, type Position, type TopicPartition } from '../foundation/kafka/partition.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import { delayFor, sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { Wake } from '../foundation/runtime/clock.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import { failureKind } from '../foundation/store/failures.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import { BatchBuilder } from './batch-builder.ts'
import { BatchWriter, type BatchWriterPorts } from './batch-writer.ts'
import type { ConsumerConfig } from './config.ts'
import type { ConsumerStore } from './consumer-store.ts'
import { kafkaConsumer, topicKinds } from './kafka-consumer.ts'
import { readPositions } from './positions.ts'

/** All external effects: those of the machine, or of a simulation. */
export interface WorkerPorts
  extends ServicePorts,
    Pick<BatchWriterPorts, 'counts' | 'sendLetters' | 'checkSource' | 'onLost'>,
    Pick<FetchLoopPorts, 'openFetcher'> {
  readonly store: ConsumerStore
  readonly openGroupClient: (topics: readonly string[]) => GroupClient
  /** Continuing would lose or corrupt data. Nothing uncommitted is lost. */
  readonly onFatal: (error: unknown) => void
}

export type WorkerConfig = Pick<
  ConsumerConfig,
  | 'topics'
  | 'batchSize'
  | 'flushIntervalMs'
  | 'fetchMaxWaitMs'
  | 'backoff'
  | 'autoOffsetReset'
  | 'sessionTimeoutMs'
>

/** Sealed batches that may wait while one is being written. */
const MAX_SEALED = 2

/** A batch takes milliseconds. A database that takes longer than this is considered unhealthy. */
const WRITING_LIMIT_MS = 10_000

/** Bytes held before fetching pauses. Fetches in flight are still taken in. */
const MAX_HELD_BYTES = 32 << 20

/**
 * Runs the consumer: the group assigns partitions, the database gives their positions, Kafka gives
 * messages, the batch builder gathers them, and the writer stores one batch after another. Does no
 * I/O except through its ports.
 */
export class Worker {
  readonly batchBuilder: BatchBuilder
  readonly #config: WorkerConfig
  readonly #ports: WorkerPorts
  readonly #membership: GroupMembership
  readonly #kafka: FetchLoop
  readonly #writer: BatchWriter
  readonly #stopping = new AbortController()
  readonly #positionsWanted = new Wake()
  #assignment: Assignment | null = null
  #positioned: Assignment | null = null
  #topics: ReadonlyMap<string, TopicMetadata> | null = null
  readonly #filled: Wake
  readonly #room: Wake
  #loops: Promise<unknown> | null = null
  #truncations = 0

  constructor(config: WorkerConfig, ports: WorkerPorts) {
    this.#config = config
    this.#ports = ports
    const { topics, batchSize, flushIntervalMs, fetchMaxWaitMs, backoff, sessionTimeoutMs } = config
    const kindOf = topicKinds(topics)
    const limits = { maxSealed: MAX_SEALED, maxBytes: MAX_HELD_BYTES }
    const batchBuilder = new BatchBuilder({ kindOf, batchSize, flushIntervalMs, ...limits })
    this.batchBuilder = batchBuilder
    this.#membership = new GroupMembership(
      {
        ...ports,
        openClient: () => ports.openGroupClient([...kindOf.keys()]),
        storedOffsets: () => batchBuilder.progress(),
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
    this.#filled = new Wake(ports.clock)
    this.#room = new Wake(ports.clock)
    const shared = { ...ports, batchBuilder, filled: this.#filled, room: this.#room }
    this.#kafka = kafkaConsumer({ fetchMaxWaitMs, backoff }, batchBuilder, {
      ...shared,
      onConnected: (found) => this.#onTopics(found),
      onTruncated: (position) => this.#onTruncated(position),
    })
    this.#writer = new BatchWriter(
      {
        ...shared,
        onRecreated: (batch) => {
          // Another consumer noticed it first.
          if (!batchBuilder.isReading(batch)) return
          this.#reconnect()
          this.#onRecreated()
        },
        onMoved: (why) => this.#forgetPositions(`${why}:`, true),
      },
      backoff,
    )
  }

  /** Why messages are not stored now; null when they are. */
  get problem(): string | null {
    const { failure, waiting } = this.#writer
    const { failure: fetchFailure, backedOff } = this.#kafka
    const noFetch = fetchFailure === null ? null : `nothing can be fetched: ${fetchFailure}`
    if (this.#membership.failure !== null)
      return `the consumer group cannot be joined: ${this.#membership.failure}`
    if (this.#positioned === null || this.#positioned !== this.#assignment)
      return noFetch ?? 'no partitions are assigned yet'
    if (waiting !== null && waiting.ms > WRITING_LIMIT_MS) {
      const what =
        waiting.for === 'Kafka' ? 'Kafka has not taken dead letters' : 'the database has not taken a batch'
      const why = failure === null ? '' : `: ${failure}`
      return `${what} for ${Math.round(waiting.ms / 1000)} s${why}`
    }
    return noFetch ?? backedOff ?? (failure === null ? null : `the last flush failed: ${failure}`)
  }

  /** Our partitions, including those whose positions cannot be read now. */
  get assigned(): readonly TopicPartition[] {
    return this.#assignment?.partitions ?? this.batchBuilder.progress()
  }

  get groupCounts(): GroupMembership['counts'] {
    return this.#membership.counts
  }

  get generation(): number | null {
    return this.#membership.generation
  }

  /** Times that a partition lost messages that were read. */
  get truncations(): number {
    return this.#truncations
  }

  start(): void {
    this.#membership.start()
    this.#kafka.start()
    this.#loops ??= Promise.all([this.#positionLoop(), this.#writer.run()]).catch((error: unknown) => {
      this.#ports.onFatal(error)
    })
  }

  /**
   * Stops fetching, writes what was taken in, commits and leaves the group. Unanswered requests to
   * Kafka do not delay the writing.
   *
   * @returns `left`: messages not stored before the signal aborted, which the next start reads
   *   again; `committed`: whether the group has the stored offsets
   */
  async stop(signal: AbortSignal): Promise<{ readonly left: number; readonly committed: boolean }> {
    this.#stopping.abort()
    const giveUp = () => this.#writer.giveUp(signal.reason)
    signal.addEventListener('abort', giveUp, { once: true })
    if (signal.aborted) giveUp()
    this.#positionsWanted.ring()
    const fetchingEnded = this.#kafka.stop()
    this.#writer.drain()
    await this.#loops
    const left = this.batchBuilder.pending
    const committed = await this.#membership.stop()
    await fetchingEnded
    return { left, committed }
  }

  #onTopics(found: ReadonlyMap<string, TopicMetadata>): void {
    // Messages taken in are being written now and must not be discarded.
    if (this.#stopping.signal.aborted) return
    const known = this.#topics
    this.#topics = found
    const changed = (differs: (one: TopicMetadata, before: TopicMetadata) => boolean) =>
      [...found].some(([topic, one]) => {
        const before = known?.get(topic)
        return before !== undefined && differs(one, before)
      })
    if (changed((one, before) => one.id !== before.id)) this.#onRecreated()
    if (changed((one, before) => one.partitions !== before.partitions)) {
      this.#membership.rejoin('the number of partitions of a topic has changed')
    }
    this.#positionsWanted.ring()
  }

  /** Stores the messages of the old topic first, since no other copy is left. */
  #onRecreated(): void {
    this.#forgetPositions('A topic was recreated: storing what was read of it, then', false)
  }

  #reconnect(): void {
    this.#topics = null
    this.#kafka.reconnect()
  }

  async #onTruncated({ topic, partition, offset, leaderEpoch = -1 }: Position): Promise<void> {
    const topicId = this.#topics?.get(topic)?.id
    if (topicId === undefined || this.#stopping.signal.aborted) return
    this.#truncations++
    await this.#ports.store.takeBack({ topic, topicId, partition, nextOffset: offset, leaderEpoch })
    this.#forgetPositions('A partition lost its tail:', true)
  }

  async #positionLoop(): Promise<void> {
    const { clock, random, log } = this.#ports
    const { signal } = this.#stopping
    for (let failures = 0; !signal.aborted; ) {
      try {
        if (await unlessAborted(this.#position(), signal)) failures = 0
        else await this.#positionsWanted.wait()
      } catch (error) {
        if (signal.aborted) return
        if (isTapelineError(error) || failureKind(error) !== 'retry') throw error
        failures++
        log.warn({ err: error }, `Reading positions failed, retrying: ${describeError(error)}`)
        await sleep(delayFor(failures, this.#config.backoff, random()), signal, clock).catch(() => {})
      }
    }
  }

  /** @returns false when there is nothing to do until the next wake-up */
  async #position(): Promise<boolean> {
    const assignment = this.#assignment
    const topics = this.#topics
    if (assignment === null || topics === null || assignment === this.#positioned) return false
    const sources = { ...this.#ports, config: this.#config, membership: this.#membership, kafka: this.#kafka }
    const positions = await readPositions(sources, topics)
    const losses = await this.#ports.store.readLosses()
    if (this.#stopping.signal.aborted) return false
    // The generation or the incarnation of a topic may have changed meanwhile.
    if (assignment !== this.#assignment || topics !== this.#topics) return true
    const ours = new Set(assignment.partitions.map(keyOf))
    const found = positions.filter((position) => ours.has(keyOf(position)))
    if (found.length < ours.size) {
      // We have partitions that did not exist when the brokers last answered.
      this.#reconnect()
      return true
    }
    this.batchBuilder.assign(found, losses)
    this.#positioned = assignment
    const { generation, partitions } = assignment
    this.#ports.log.info({ generation, partitions: partitions.length }, 'Partitions assigned')
    this.#room.ring()
    return true
  }

  /** @param discards whether to read what is not stored again, instead of storing it */
  #forgetPositions(why: string, discards: boolean): void {
    this.#ports.log.warn(
      { messages: this.batchBuilder.pending },
      `${why} reading the positions again from the database`,
    )
    this.batchBuilder.forgetPositions(discards)
    this.#filled.ring()
    this.#positioned = null
    this.#positionsWanted.ring()
  }
}
