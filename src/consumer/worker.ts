import { describeError, TapelineError } from '../errors.ts'
import type { Position } from '../kafka/partition-fetcher.ts'
import type { TopicMetadata } from '../kafka/topic-metadata.ts'
import type { Database } from '../store/database.ts'
import type { Logger } from '../telemetry/log.ts'
import { delayFor, sleep, unlessAborted } from '../timing/backoff.ts'
import { Wake } from '../timing/wake.ts'
import type { Batch } from './batch.ts'
import { OffsetsMovedError, type Written, writeBatch } from './batch-writer.ts'
import type { ConsumerConfig } from './config.ts'
import { DeadLetterProducer } from './dead-letter-producer.ts'
import type { TopicKind } from './decode.ts'
import { failureKind } from './failures.ts'
import { type Assignment, GroupMembership } from './group-membership.ts'
import { Intake } from './intake.ts'
import { KafkaConsumer } from './kafka-consumer.ts'
import { keyOf, type PositionSources, readPositions, takeBack } from './positions.ts'

export interface WorkerEvents {
  /** A batch is committed. */
  onStored(batch: Batch, written: Written): void
  /** Writing failed and is tried again. */
  onRetry(): void
  /** Going on would lose or corrupt something; nothing uncommitted is lost. Called once. */
  onFatal(error: unknown): void
}

/** Sealed batches that may wait while one is being written. */
const MAX_SEALED = 4

/**
 * The consumer at work: the group tells which partitions are ours, the database where they are to be read from,
 * Kafka gives the messages, the intake gathers them into batches, and one loop writes batch after batch: dead
 * letters acknowledged, rows and offsets committed, then the group's offsets.
 */
export class Worker {
  readonly intake: Intake
  readonly #config: ConsumerConfig
  readonly #database: Database
  readonly #events: WorkerEvents
  readonly #log: Logger
  readonly #kinds: ReadonlyMap<string, TopicKind>
  readonly #membership: GroupMembership
  readonly #kafka: KafkaConsumer
  readonly #deadLetters: DeadLetterProducer
  readonly #stopping = new AbortController()
  readonly #giveUp = new AbortController()
  readonly #positionsWanted = new Wake()
  readonly #batchSealed = new Wake()
  #assignment: Assignment | null = null
  #positioned: Assignment | null = null
  #topics: ReadonlyMap<string, TopicMetadata> | null = null
  #draining = false
  #flushTimer: NodeJS.Timeout | null = null
  #loops: Promise<unknown> | null = null
  #writingSinceMs: number | null = null
  /** The error of the last attempt to write, until one succeeds. */
  writeFailure: string | null = null

  /** @param checkSource rejects when the messages come from another source than the database's rows; called before each batch */
  constructor(
    config: ConsumerConfig,
    database: Database,
    checkSource: () => Promise<void>,
    events: WorkerEvents,
    log: Logger,
  ) {
    this.#config = config
    this.#database = database
    this.#checkSource = checkSource
    this.#events = events
    this.#log = log
    this.#kinds = new Map<string, TopicKind>([
      [config.topics.trades, 'trades'],
      [config.topics.bookTicker, 'bookTicker'],
      [config.topics.gaps, 'gaps'],
      [config.topics.deadLetters, 'deadLetters'],
    ])
    const topics = [...this.#kinds.keys()]
    const { batchSize, flushIntervalMs } = config
    this.intake = new Intake({ kindOf: this.#kinds, batchSize, flushIntervalMs, maxSealed: MAX_SEALED })
    this.#deadLetters = new DeadLetterProducer(config, log)
    this.#membership = new GroupMembership(
      config,
      topics,
      {
        onAssigned: (assignment) => {
          this.#assignment = assignment
          this.#positionsWanted.ring()
        },
        onLost: () => {
          this.#assignment = null
        },
      },
      log,
    )
    this.#kafka = new KafkaConsumer(
      { kafka: config.kafka, topics, fetchMaxWaitMs: config.fetchMaxWaitMs, backoff: config.backoff },
      this.intake,
      {
        onConnected: (found) => this.#onTopics(found),
        onTruncated: (position) => this.#onTruncated(position),
        onAccepted: () => this.#afterAccept(),
        onFatal: (error) => events.onFatal(error),
      },
      log,
    )
    this.#sources = { config, database, membership: this.#membership, kafka: this.#kafka, log }
  }

  readonly #checkSource: () => Promise<void>
  readonly #sources: PositionSources

  /** How long the batch that is being written has been trying, in milliseconds; 0 when none is. */
  get writingMs(): number {
    return this.#writingSinceMs === null ? 0 : performance.now() - this.#writingSinceMs
  }

  get generation(): number | null {
    return this.#membership.generation
  }

  /** True once the current assignment has its positions. */
  get isPositioned(): boolean {
    return this.#positioned !== null && this.#positioned === this.#assignment
  }

  start(): void {
    this.#membership.start()
    this.#kafka.start()
    this.#loops ??= Promise.all([this.#positionLoop(), this.#writeLoop()]).catch((error: unknown) => {
      this.#events.onFatal(error)
    })
  }

  /**
   * Stops fetching, writes what was taken in, commits and leaves the group.
   *
   * @returns how many messages could not be stored before the signal aborted; they are read again at the next start
   */
  async stop(signal: AbortSignal): Promise<number> {
    this.#stopping.abort()
    signal.addEventListener('abort', () => this.#giveUp.abort(signal.reason), { once: true })
    if (signal.aborted) this.#giveUp.abort(signal.reason)
    this.#positionsWanted.ring()
    await this.#kafka.stop()
    if (this.#flushTimer !== null) clearTimeout(this.#flushTimer)
    this.intake.flush()
    this.#draining = true
    this.#batchSealed.ring()
    await this.#loops
    const left = this.intake.pending
    await this.#membership.stop()
    await this.#deadLetters.close()
    return left
  }

  #onTopics(found: ReadonlyMap<string, TopicMetadata>): void {
    const known = this.#topics
    this.#topics = found
    const changed = (differs: (one: TopicMetadata, before: TopicMetadata) => boolean) =>
      [...found].some(([topic, one]) => {
        const before = known?.get(topic)
        return before !== undefined && differs(one, before)
      })
    if (changed((one, before) => one.id !== before.id)) this.#forgetPositions('A topic was recreated')
    if (changed((one, before) => one.partitions !== before.partitions)) {
      this.#membership.rejoin('a topic has another number of partitions')
    }
    this.#positionsWanted.ring()
  }

  async #onTruncated({ topic, partition, offset }: Position): Promise<void> {
    const topicId = this.#topics?.get(topic)?.id
    if (topicId === undefined) return
    await takeBack(this.#database, { topic, topicId, partition, nextOffset: offset })
    this.#forgetPositions('A partition has lost its tail')
  }

  #afterAccept(): void {
    this.#batchSealed.ring()
    if (this.#flushTimer !== null) return
    const dueInMs = this.intake.dueInMs(performance.now())
    if (dueInMs === null) return
    this.#flushTimer = setTimeout(() => {
      this.#flushTimer = null
      // The batch that was due may have been full and another begun since.
      if (this.intake.dueInMs(performance.now()) === 0) this.intake.flush()
      this.#afterAccept()
    }, dueInMs)
  }

  async #positionLoop(): Promise<void> {
    for (let failures = 0; !this.#stopping.signal.aborted; ) {
      const assignment = this.#assignment
      const topics = this.#topics
      if (assignment === null || topics === null || assignment === this.#positioned) {
        await this.#positionsWanted.wait()
        continue
      }
      try {
        const positions = await readPositions(this.#sources, topics)
        failures = 0
        // Another generation, or another incarnation of a topic, may have come meanwhile.
        if (assignment !== this.#assignment || topics !== this.#topics) continue
        const ours = new Set(assignment.partitions.map(keyOf))
        const found = positions.filter((position) => ours.has(keyOf(position)))
        if (found.length < ours.size) {
          // There are partitions that we did not know of when the brokers last answered.
          this.#topics = null
          this.#kafka.reconnect()
          continue
        }
        this.intake.assign(found)
        this.#positioned = assignment
        this.#log.info(
          { generation: assignment.generation, partitions: assignment.partitions.length },
          'Partitions assigned',
        )
        this.#kafka.wake()
      } catch (error) {
        if (error instanceof TapelineError || failureKind(error) === 'stop') throw error
        failures++
        this.#log.warn({ err: error }, `Positions cannot be read, trying again: ${describeError(error)}`)
        await sleep(delayFor(failures, this.#config.backoff, Math.random()), this.#stopping.signal).catch(
          () => {},
        )
      }
    }
  }

  async #writeLoop(): Promise<void> {
    for (;;) {
      const batch = this.intake.take()
      if (batch === null) {
        if (this.#draining) return
        await this.#batchSealed.wait()
        continue
      }
      this.#kafka.wake()
      const written = await this.#writeUntilStored(batch)
      if (written === 'given up') return
      if (written === 'moved') continue
      this.intake.stored(batch)
      this.#events.onStored(batch, written)
      this.#membership.commitSoon([...batch.steps.values()])
    }
  }

  async #writeUntilStored(batch: Batch): Promise<Written | 'moved' | 'given up'> {
    let lettersSent = false
    for (let failures = 1; ; failures++) {
      try {
        await this.#checkSource()
        if (!lettersSent) await this.#deadLetters.send(batch.found, this.#giveUp.signal)
        lettersSent = true
        this.#writingSinceMs ??= performance.now()
        const written = await unlessAborted(writeBatch(this.#database, batch), this.#giveUp.signal)
        this.#writingSinceMs = null
        this.writeFailure = null
        return written
      } catch (error) {
        if (this.#giveUp.signal.aborted) return 'given up'
        if (error instanceof OffsetsMovedError) {
          this.intake.abandon(batch)
          this.#writingSinceMs = null
          this.#forgetPositions(error.message)
          return 'moved'
        }
        this.writeFailure = describeError(error)
        if (error instanceof TapelineError || failureKind(error) !== 'retry') throw error
        this.#events.onRetry()
        this.#log.warn(
          { err: error },
          `The database did not take a batch, trying again: ${describeError(error)}`,
        )
        const wait = delayFor(failures, this.#config.backoff, Math.random())
        await sleep(wait, this.#giveUp.signal).catch(() => {})
        if (this.#giveUp.signal.aborted) return 'given up'
      }
    }
  }

  /** Drops everything that is not stored and reads the positions anew. */
  #forgetPositions(why: string): void {
    this.#log.warn({ messages: this.intake.pending }, `${why}: positions are read anew from the database`)
    this.intake.discardAll()
    this.#positioned = null
    this.#positionsWanted.ring()
  }
}
