import { describeKafkaError, describePartitionError } from '../foundation/kafka/broker-errors.ts'
import type { FetchedPartition } from '../foundation/kafka/codec/fetch-api.ts'
import type { RecordFetcher } from '../foundation/kafka/kafka-port.ts'
import type { Position, TopicPartition } from '../foundation/kafka/partition.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import { type BackoffPolicy, delayFor, sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { type Clock, type Wake, wallMs } from '../foundation/runtime/clock.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { BatchBuilder } from './batch-builder.ts'
import type { BatchWriterPeers } from './batch-writer.ts'
import { PartitionBackoff } from './partition-backoff.ts'

export interface KafkaConsumerPorts {
  readonly clock: Clock
  /** In [0, 1). */
  readonly random: () => number
  /** Opens a new client; called again after the previous one failed. */
  readonly openFetcher: () => RecordFetcher
  readonly log: Logger
}

export interface KafkaConsumerOptions {
  readonly fetchMaxWaitMs: number
  readonly backoff: BackoffPolicy
}

export interface KafkaConsumerEvents {
  /** The brokers answered with the current ids and partition counts of the topics. */
  onConnected(topics: ReadonlyMap<string, TopicMetadata>): void
  /** A partition lost its tail. Read the positions again, this one at most `position`. */
  onTruncated(position: Position): Promise<void>
  /** A retry cannot help: a message has a newer schema, or there is a defect. */
  onFatal(error: unknown): void
}

/** Interval of metadata requests, which find new partitions. */
const REFRESH_EVERY_MS = 15_000

/** Some hundred messages. A broker that has fewer waits for `fetchMaxWaitMs`. */
const MIN_BYTES = 32 << 10

/**
 * Limit of an answer, compressed: some 4,000 messages. Storing them takes several times as long as
 * the next fetch, so more would only take memory.
 */
const MAX_BYTES = 256 << 10
const PARTITION_MAX_BYTES = 64 << 10

/**
 * Fetches where the batch builder has positions and room, with one request per broker at a time. A
 * failed request replaces the client; the batch builder keeps the positions, so nothing is lost or
 * skipped. An unreadable partition delays no other: it is retried later, with fresh topic metadata.
 */
export class KafkaConsumer {
  readonly #options: KafkaConsumerOptions
  readonly #batchBuilder: BatchBuilder
  readonly #events: KafkaConsumerEvents
  readonly #ports: KafkaConsumerPorts
  readonly #stopping = new AbortController()
  readonly #filled: Wake
  readonly #wake: Wake
  /** From the first partition that could not be read. */
  #backedOff: PartitionBackoff | null = null
  #isRetrying = false
  #running: Promise<void> | null = null
  #fetcher: RecordFetcher | null = null
  #reconnectWanted = false
  /** Why the last client failed, until one fetches again. */
  failure: string | null = null

  /**
   * @param filled it rings when the batch builder has more
   * @param room rings when the batch builder has new positions or room
   */
  constructor(
    options: KafkaConsumerOptions,
    { batchBuilder, filled, room }: Pick<BatchWriterPeers, 'batchBuilder' | 'filled' | 'room'>,
    events: KafkaConsumerEvents,
    ports: KafkaConsumerPorts,
  ) {
    this.#options = options
    this.#batchBuilder = batchBuilder
    this.#events = events
    this.#ports = ports
    this.#filled = filled
    this.#wake = room
  }

  /** Which partitions cannot be read, and why; null when none. */
  get backedOff(): string | null {
    return this.#backedOff?.description ?? null
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Reconnects with a new client and reads the topic metadata again. */
  reconnect(): void {
    this.#reconnectWanted = true
    this.#wake.ring()
  }

  /** The oldest and next offset of every partition. @throws while no broker answers */
  async offsetRanges(): ReturnType<RecordFetcher['offsetRanges']> {
    if (this.#fetcher === null) throw new Error('No broker has answered yet')
    return this.#fetcher.offsetRanges()
  }

  /** Takes in nothing from this call on. Resolves when the client is closed. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#wake.ring()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    for (let failures = 0; !signal.aborted; ) {
      const fetcher = this.#ports.openFetcher()
      try {
        const topics = await unlessAborted(fetcher.connect(), signal)
        this.#fetcher = fetcher
        this.#events.onConnected(topics)
        await this.#fetchUntilStopped(fetcher, () => {
          failures = 0
          this.failure = null
        })
      } catch (error) {
        if (isFatal(error)) {
          this.#events.onFatal(error)
          return
        }
        this.failure = describeKafkaError(error)
        if (!signal.aborted)
          this.#ports.log.warn({ err: error }, `Fetching failed, retrying: ${this.failure}`)
        failures++
      } finally {
        this.#fetcher = null
        await fetcher.close().catch((error: unknown) => {
          this.#ports.log.debug({ err: error }, `Closing the fetch client failed: ${describeError(error)}`)
        })
      }
      const { clock, random } = this.#ports
      await sleep(delayFor(failures, this.#options.backoff, random()), signal, clock).catch(() => {})
    }
  }

  async #fetchUntilStopped(fetcher: RecordFetcher, onSuccess: () => void): Promise<void> {
    const inFlight = new Map<number, Promise<void>>()
    let failure: { error: unknown } | null = null
    this.#reconnectWanted = false
    this.#isRetrying = false
    let cancelRefresh = () => {}
    const refreshLater = () => {
      cancelRefresh = this.#ports.clock.schedule(REFRESH_EVERY_MS, () => {
        void this.#refresh(fetcher)
        refreshLater()
      })
    }
    refreshLater()
    try {
      while (!this.#stopping.signal.aborted && failure === null && !this.#reconnectWanted) {
        this.#retryAiling(fetcher)
        const byLeader = this.#batchBuilder.hasRoom
          ? this.#positionsByLeader(fetcher)
          : new Map<number, Position[]>()
        for (const [node, positions] of byLeader) {
          if (inFlight.has(node)) continue
          const request = this.#fetchOnce(fetcher, node, positions)
            .then(onSuccess, (error: unknown) => {
              failure ??= { error }
            })
            .finally(() => {
              inFlight.delete(node)
              this.#wake.ring()
            })
          inFlight.set(node, request)
        }
        const dueInMs = this.#isRetrying ? null : this.#backedOff?.dueInMs(this.#nowMs)
        await this.#wake.wait(dueInMs ?? undefined)
      }
    } finally {
      cancelRefresh()
    }
    if (failure !== null) throw (failure as { error: unknown }).error
  }

  get #nowMs(): number {
    return this.#ports.clock.monotonicMs()
  }

  async #refresh(fetcher: RecordFetcher): Promise<void> {
    try {
      this.#events.onConnected(await fetcher.connect())
    } catch (error) {
      this.#ports.log.debug({ err: error }, 'Reading the topic metadata failed')
    }
  }

  /** Looks up the leaders of partitions that are due, then allows fetching them again. */
  #retryAiling(fetcher: RecordFetcher): void {
    const backedOff = this.#backedOff
    backedOff?.keep(this.#batchBuilder.positions())
    if (this.#isRetrying || backedOff?.dueInMs(this.#nowMs) !== 0) return
    this.#isRetrying = true
    void this.#refresh(fetcher).then(() => {
      this.#isRetrying = false
      backedOff.readmit(this.#nowMs)
      this.#wake.ring()
    })
  }

  #cannotRead({ topic, partition }: TopicPartition, error: string): void {
    const reason = describePartitionError(topic, error)
    this.#backedOff ??= new PartitionBackoff(this.#options.backoff)
    if (!this.#backedOff.note({ topic, partition }, reason, this.#nowMs, this.#ports.random())) return
    this.#ports.log.warn(
      { topic, partition },
      `A partition cannot be read, retrying; other partitions are not affected: ${reason}`,
    )
  }

  #positionsByLeader(fetcher: RecordFetcher): Map<number, Position[]> {
    const byLeader = new Map<number, Position[]>()
    for (const position of this.#batchBuilder.positions()) {
      if (this.#backedOff?.rests(position)) continue
      const leader = fetcher.leaderOf(position.topic, position.partition)
      if (leader === null || leader < 0) this.#cannotRead(position, 'it has no leader')
      else byLeader.set(leader, [...(byLeader.get(leader) ?? []), position])
    }
    return byLeader
  }

  async #fetchOnce(fetcher: RecordFetcher, node: number, positions: readonly Position[]): Promise<void> {
    const limits = {
      maxWaitMs: this.#options.fetchMaxWaitMs,
      minBytes: MIN_BYTES,
      maxBytes: MAX_BYTES,
      partitionMaxBytes: PARTITION_MAX_BYTES,
    }
    const fetched = await fetcher.fetch(node, positions, limits)
    if (this.#stopping.signal.aborted) return
    // Moving a position waits for the broker. Messages that have arrived are taken in first.
    for (const one of fetched) if (one.error === null && one.diverging === null) this.#accept(one, positions)
    this.#filled.ring()
    for (const one of fetched) {
      if (one.error === 'OFFSET_OUT_OF_RANGE') await this.#orLater(one, () => this.#goToOldest(fetcher, one))
      else if (one.error !== null) this.#cannotRead(one, one.error)
      else if (one.diverging !== null) await this.#orLater(one, () => this.#goBack(one, positions))
    }
    this.#filled.ring()
  }

  async #orLater(one: FetchedPartition, move: () => Promise<void>): Promise<void> {
    try {
      await move()
    } catch (error) {
      if (isFatal(error)) throw error
      this.#cannotRead(one, `its position cannot be moved: ${describeKafkaError(error)}`)
    }
  }

  #accept(fetched: FetchedPartition, positions: readonly Position[]): void {
    if (this.#backedOff?.recovered(fetched)) {
      const { topic, partition } = fetched
      this.#ports.log.info({ topic, partition }, 'The partition can be read again')
    }
    const hole = this.#batchBuilder.accept(fetched, this.#nowMs, wallMs(this.#ports.clock))
    if (hole === null) return
    // The position may have moved since the request. It is a hole only if the broker was asked for
    // the expected offset.
    const asked = positions.find(
      ({ topic, partition }) => topic === fetched.topic && partition === fetched.partition,
    )
    if (asked?.offset !== hole.from) return
    this.#ports.log.error(hole, 'A partition lacks these offsets; skipping them')
    this.#batchBuilder.skipTo(hole.topic, hole.partition, hole.to, this.#nowMs)
  }

  /** Handles a log that lost its tail, and may have grown past our position since. */
  async #goBack(one: FetchedPartition, positions: readonly Position[]): Promise<void> {
    const { topic, partition, diverging, endOffset } = one
    const expected = this.#positionOf(one)
    const isSame = ({ offset, leaderEpoch }: Position) =>
      offset === expected?.offset && leaderEpoch === expected.leaderEpoch
    // Ignore an answer to a position that has moved since.
    if (diverging === null || expected === undefined) return
    if (!positions.some((asked) => asked.topic === topic && asked.partition === partition && isSame(asked)))
      return
    const { leaderEpoch } = diverging
    await this.#truncated(one, expected, Math.min(expected.offset, diverging.offset), leaderEpoch, endOffset)
  }

  async #goToOldest(fetcher: RecordFetcher, one: FetchedPartition): Promise<void> {
    const { topic, partition } = one
    const expected = this.#positionOf(one)
    const range = (await fetcher.offsetRanges([topic])).find(
      (other) => other.topic === topic && other.partition === partition,
    )
    if (expected === undefined || range === undefined || this.#stopping.signal.aborted) return
    const { offset, leaderEpoch = -1 } = expected
    // With an epoch, a leader refuses an offset in its log only if it has no epoch as high.
    if (offset > range.end || (offset >= range.start && leaderEpoch >= 0)) {
      await this.#truncated(one, expected, range.start, -1, range.end)
      return
    }
    if (offset >= range.start) {
      this.#cannotRead(one, 'OFFSET_OUT_OF_RANGE')
      return
    }
    this.#ports.log.error(
      { topic, partition, from: offset, to: range.start },
      `Offset ${offset} of ${topic}/${partition} has expired, since the outage was longer than the retention; resuming at ${range.start}`,
    )
    this.#batchBuilder.skipTo(topic, partition, range.start, this.#nowMs)
  }

  async #truncated(
    { topic, partition }: TopicPartition,
    { offset: position }: Position,
    offset: number,
    leaderEpoch: number,
    end: number,
  ): Promise<void> {
    this.#ports.log.error(
      { topic, partition, position, end, offset },
      `Partition ${partition} of ${topic} lost messages that were read: the position was ${position}, the log was unchanged ` +
        `up to ${offset} and ends at ${end}. Reading it again from ${offset}`,
    )
    await this.#events.onTruncated({ topic, partition, offset, leaderEpoch })
  }

  #positionOf({ topic, partition }: TopicPartition): Position | undefined {
    return this.#batchBuilder.positions().find((one) => one.topic === topic && one.partition === partition)
  }
}

/** Errors that every retry would meet again. */
function isFatal(error: unknown): boolean {
  return (
    error instanceof Error &&
    (error.name === 'TapelineError' ? Reflect.get(error, 'code') === 'SCHEMA' : error instanceof TypeError)
  )
}
