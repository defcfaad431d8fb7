import type { FetchLoopPorts } from '../foundation/consumption/fetch-loop.ts'
import type { GroupClient } from '../foundation/consumption/group-client.ts'
import type { GroupMembership } from '../foundation/consumption/group-membership.ts'
import type { ReadPosition } from '../foundation/consumption/message-buffer.ts'
import { type PartitionReader, type Topics, topicKinds } from '../foundation/consumption/partition-reader.ts'
import { keyOf, type PartitionOrigin, type TopicPartition } from '../foundation/kafka/partition.ts'
import { Wake } from '../foundation/runtime/clock.ts'
import { isTapelineError } from '../foundation/runtime/errors.ts'
import { failureKind } from '../foundation/store/failures.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import { BatchBuilder } from './batch-builder.ts'
import { BatchWriter, type BatchWriterPorts } from './batch-writer.ts'
import type { ConsumerConfig } from './config.ts'
import type { ConsumerStore } from './consumer-store.ts'
import { kafkaConsumer } from './kafka-consumer.ts'
import { readPositions } from './positions.ts'

/** All external effects: those of the machine, or of a simulation. */
export interface WorkerPorts
  extends ServicePorts,
    Pick<BatchWriterPorts, 'counts' | 'sendLetters' | 'checkSource' | 'onLost'>,
    Pick<FetchLoopPorts, 'openFetcher'> {
  readonly store: ConsumerStore
  readonly openGroupClient: (topics: readonly string[]) => GroupClient
  /** Topics that do not exist yet; see {@link kafkaConsumer}. */
  readonly lackingTopics: Set<string>
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

/**
 * Bytes of a batch. It limits those with order books: the other messages of the largest batch take 4 MB.
 */
const BATCH_MAX_BYTES = 8 << 20

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
  readonly #reader: PartitionReader
  readonly #writer: BatchWriter
  readonly #filled: Wake
  readonly #room: Wake
  #isStopping = false
  #loops: Promise<unknown> | null = null
  #truncations = 0

  constructor(config: WorkerConfig, ports: WorkerPorts) {
    this.#config = config
    this.#ports = ports
    const { topics, batchSize, flushIntervalMs, backoff } = config
    const kindOf = topicKinds(topics)
    const limits = { maxSealed: MAX_SEALED, maxBytes: MAX_HELD_BYTES, batchMaxBytes: BATCH_MAX_BYTES }
    const batchBuilder = new BatchBuilder({ kindOf, batchSize, flushIntervalMs, ...limits })
    this.batchBuilder = batchBuilder
    this.#filled = new Wake(ports.clock)
    this.#room = new Wake(ports.clock)
    const shared = { ...ports, filled: this.#filled, room: this.#room }
    this.#reader = kafkaConsumer(
      config,
      {
        ...shared,
        buffer: batchBuilder,
        readPositions: (partitions, found) => this.#readPositions(partitions, found),
        isRetryable: (error) => !isTapelineError(error) && failureKind(error) === 'retry',
        onRecreated: () => this.#onRecreated(),
        onTruncated: (position) => this.#onTruncated(position),
      },
      ports.lackingTopics,
    )
    this.#writer = new BatchWriter(
      {
        ...shared,
        batchBuilder,
        onRecreated: (batch) => {
          // Another consumer noticed it first.
          if (!batchBuilder.isReading(batch)) return
          this.#reader.reconnect()
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
    const { obstacle, fetchProblem, kafka } = this.#reader
    if (obstacle !== null) return obstacle
    if (waiting !== null && waiting.ms > WRITING_LIMIT_MS) {
      const what =
        waiting.for === 'Kafka' ? 'Kafka has not taken dead letters' : 'the database has not taken a batch'
      const why = failure === null ? '' : `: ${failure}`
      return `${what} for ${Math.round(waiting.ms / 1000)} s${why}`
    }
    return fetchProblem ?? kafka.backedOff ?? (failure === null ? null : `the last flush failed: ${failure}`)
  }

  /** Our partitions, including those whose positions cannot be read now. */
  get assigned(): readonly TopicPartition[] {
    return this.#reader.assigned ?? this.batchBuilder.progress()
  }

  get groupCounts(): GroupMembership['counts'] {
    return this.#reader.membership.counts
  }

  get generation(): number | null {
    return this.#reader.membership.generation
  }

  /** Times that a partition lost messages that were read. */
  get truncations(): number {
    return this.#truncations
  }

  start(): void {
    this.#loops ??= Promise.all([this.#reader.start(), this.#writer.run()]).catch((error: unknown) => {
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
    this.#isStopping = true
    const giveUp = () => this.#writer.giveUp(signal.reason)
    signal.addEventListener('abort', giveUp, { once: true })
    if (signal.aborted) giveUp()
    const fetchingEnded = this.#reader.stopFetching()
    this.#writer.drain()
    await this.#loops
    const left = this.batchBuilder.pending
    const committed = await this.#reader.membership.stop()
    await fetchingEnded
    return { left, committed }
  }

  /** Stores the messages of the old topic first, since no other copy is left. */
  #onRecreated(): void {
    this.#forgetPositions('A topic was recreated: storing what was read of it, then', false)
  }

  async #onTruncated({ topic, topicId, partition, offset, leaderEpoch = -1 }: ReadPosition): Promise<void> {
    if (this.#isStopping) return
    this.#truncations++
    await this.#ports.store.takeBack({ topic, topicId, partition, nextOffset: offset, leaderEpoch })
    this.#forgetPositions('A partition lost its tail:', true)
  }

  async #readPositions(partitions: readonly PartitionOrigin[], topics: Topics): Promise<() => void> {
    const { membership, kafka } = this.#reader
    const positions = await readPositions({ ...this.#ports, config: this.#config, membership, kafka }, topics)
    const losses = await this.#ports.store.readLosses()
    const ours = new Set(partitions.map(keyOf))
    const found = positions.filter((position) => ours.has(keyOf(position)))
    // The brokers have not reported the offsets of all partitions: these positions are not applied.
    if (found.length < ours.size) this.#reader.reconnect()
    return () => this.batchBuilder.assign(found, losses)
  }

  /** @param discards whether to read what is not stored again, instead of storing it */
  #forgetPositions(why: string, discards: boolean): void {
    this.#ports.log.warn(
      { messages: this.batchBuilder.pending },
      `${why} reading the positions again from the database`,
    )
    this.batchBuilder.forgetPositions(discards)
    this.#filled.ring()
    this.#reader.reposition()
  }
}
