import type { RecordFetcher } from '../foundation/kafka/kafka-port.ts'
import type { TopicKind } from '../foundation/kafka/message-decoder.ts'
import { keyOf, type Position, type TopicPartition } from '../foundation/kafka/partition.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import { delayFor, sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { type Clock, Wake } from '../foundation/runtime/clock.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import { failureKind } from '../foundation/store/failures.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { Batch } from './batch.ts'
import { BatchBuilder } from './batch-builder.ts'
import { BatchWriter, type BatchWriterPorts } from './batch-writer.ts'
import type { ConsumerConfig } from './config.ts'
import type { ConsumerStore, Written } from './consumer-store.ts'
import type { GroupClient } from './group-client.ts'
import { type Assignment, type GroupCounts, GroupMembership } from './group-membership.ts'
import { KafkaConsumer } from './kafka-consumer.ts'
import { type PositionInputs, readPositions } from './positions.ts'

/** Called without `this`. */
export interface WorkerEvents {
  /** A batch is committed, `tookMs` milliseconds after it was taken. */
  readonly onStored: (batch: Batch, written: Written, tookMs: number) => void
  /** Messages were lost before those of a stored batch. */
  readonly onLost: () => void
  /** Writing failed and will be retried. */
  readonly onRetry: () => void
  /** Continuing would lose or corrupt data. Nothing uncommitted is lost. */
  onFatal(error: unknown): void
}

/** All external effects: those of the machine, or of a simulation. */
export interface WorkerPorts {
  readonly clock: Clock
  /** In [0, 1). */
  readonly random: () => number
  readonly store: ConsumerStore
  readonly openFetcher: () => RecordFetcher
  readonly openGroupClient: (topics: readonly string[]) => GroupClient
  readonly sendLetters: BatchWriterPorts['sendLetters']
  readonly checkSource: BatchWriterPorts['checkSource']
  readonly log: Logger
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
  readonly #events: WorkerEvents
  readonly #membership: GroupMembership
  readonly #kafka: KafkaConsumer
  readonly #writer: BatchWriter
  readonly #sources: PositionInputs
  readonly #stopping = new AbortController()
  readonly #positionsWanted = new Wake()
  #assignment: Assignment | null = null
  #positioned: Assignment | null = null
  #topics: ReadonlyMap<string, TopicMetadata> | null = null
  readonly #filled: Wake
  readonly #room: Wake
  #loops: Promise<unknown> | null = null
  /** Times that a partition lost messages that were read. */
  truncations = 0

  constructor(config: WorkerConfig, ports: WorkerPorts, events: WorkerEvents) {
    this.#config = config
    this.#ports = ports
    this.#events = events
    const { topics, batchSize, flushIntervalMs, fetchMaxWaitMs, backoff, sessionTimeoutMs } = config
    const kindOf = new Map<string, TopicKind>([
      [topics.trades, 'trades'],
      [topics.bookTicker, 'bookTicker'],
      [topics.gaps, 'gaps'],
      [topics.deadLetters, 'deadLetters'],
    ])
    this.batchBuilder = new BatchBuilder({
      kindOf,
      batchSize,
      flushIntervalMs,
      maxSealed: MAX_SEALED,
      maxBytes: MAX_HELD_BYTES,
    })
    this.#membership = new GroupMembership(
      { ...ports, openClient: () => ports.openGroupClient([...kindOf.keys()]) },
      {
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
    const peers = {
      batchBuilder: this.batchBuilder,
      filled: this.#filled,
      room: this.#room,
      commitSoon: this.#membership.commitSoon.bind(this.#membership),
    }
    this.#kafka = new KafkaConsumer(
      { fetchMaxWaitMs, backoff },
      peers,
      {
        onConnected: (found) => this.#onTopics(found),
        onTruncated: (position) => this.#onTruncated(position),
        onFatal: (error) => events.onFatal(error),
      },
      ports,
    )
    this.#writer = new BatchWriter(
      peers,
      ports,
      {
        onStored: events.onStored,
        onLost: events.onLost,
        onRetry: events.onRetry,
        onRecreated: (batch) => {
          // Another consumer noticed it first.
          if (![...batch.steps.values()].some((step) => this.batchBuilder.isReading(step))) return
          this.#topics = null
          this.#kafka.reconnect()
          this.#onRecreated()
        },
        onMoved: (why) => this.#forgetPositions(why),
      },
      backoff,
    )
    this.#sources = { ...ports, config, membership: this.#membership, kafka: this.#kafka }
  }

  /** What the current batch waits for, and how long; null when there is no batch. */
  get waiting(): BatchWriter['waiting'] {
    return this.#writer.waiting
  }

  /** The error of the last attempt to write; null after a success. */
  get writeFailure(): string | null {
    return this.#writer.failure
  }

  /** Why fetching fails now; null when it works. */
  get fetchFailure(): string | null {
    return this.#kafka.failure
  }

  /** Which partitions cannot be read now, and why; null when all of ours can. */
  get backedOff(): string | null {
    return this.#kafka.backedOff
  }

  /**
   * Why this process is not a member of the group; null while it is, and before a first failure.
   */
  get groupFailure(): string | null {
    return this.#membership.failure
  }

  /** Our partitions, including those whose positions cannot be read now. */
  get assigned(): readonly TopicPartition[] {
    return this.#assignment?.partitions ?? this.batchBuilder.progress()
  }

  get groupCounts(): GroupCounts {
    return this.#membership.counts
  }

  get generation(): number | null {
    return this.#membership.generation
  }

  /** Whether the current assignment has its positions. */
  get isPositioned(): boolean {
    return this.#positioned !== null && this.#positioned === this.#assignment
  }

  start(): void {
    this.#membership.start()
    this.#kafka.start()
    this.#loops ??= Promise.all([this.#positionLoop(), this.#writer.run()]).catch((error: unknown) => {
      this.#events.onFatal(error)
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
    this.#ports.log.warn(
      { messages: this.batchBuilder.pending },
      'A topic was recreated: storing what was read of it, then reading the positions again from the database',
    )
    this.batchBuilder.forgetPositions()
    this.#filled.ring()
    this.#positioned = null
    this.#positionsWanted.ring()
  }

  async #onTruncated({ topic, partition, offset, leaderEpoch = -1 }: Position): Promise<void> {
    const topicId = this.#topics?.get(topic)?.id
    if (topicId === undefined || this.#stopping.signal.aborted) return
    this.truncations++
    await this.#ports.store.takeBack({ topic, topicId, partition, nextOffset: offset, leaderEpoch })
    this.#forgetPositions('A partition lost its tail')
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
    const positions = await readPositions(this.#sources, topics)
    const losses = await this.#ports.store.readLosses()
    if (this.#stopping.signal.aborted) return false
    // The generation or the incarnation of a topic may have changed meanwhile.
    if (assignment !== this.#assignment || topics !== this.#topics) return true
    const ours = new Set(assignment.partitions.map(keyOf))
    const found = positions.filter((position) => ours.has(keyOf(position)))
    if (found.length < ours.size) {
      // We have partitions that did not exist when the brokers last answered.
      this.#topics = null
      this.#kafka.reconnect()
      return true
    }
    this.batchBuilder.assign(found, losses)
    this.#positioned = assignment
    // Another owner may have stored offsets that it could not commit.
    const stored = this.batchBuilder.progress()
    this.#membership.commitSoon(stored.map((one) => ({ ...one, nextOffset: one.stored })))
    const { generation, partitions } = assignment
    this.#ports.log.info({ generation, partitions: partitions.length }, 'Partitions assigned')
    this.#room.ring()
    return true
  }

  /** Discards everything that is not stored and reads the positions again. */
  #forgetPositions(why: string): void {
    this.#ports.log.warn(
      { messages: this.batchBuilder.pending },
      `${why}: reading the positions again from the database`,
    )
    this.batchBuilder.discardAll()
    this.#positioned = null
    this.#positionsWanted.ring()
  }
}
