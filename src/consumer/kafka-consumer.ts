import { describeKafkaError, describePartitionError } from '../foundation/kafka/broker-errors.ts'
import type { RecordFetcher } from '../foundation/kafka/kafka-port.ts'
import type { FetchedPartition } from '../foundation/kafka/partition-fetcher.ts'
import type { Position } from '../foundation/kafka/position.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import { type BackoffPolicy, delayFor, unlessAborted } from '../foundation/runtime/backoff.ts'
import { type Clock, sleepOn } from '../foundation/runtime/clock.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import { Wake } from '../foundation/runtime/wake.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { BatchBuilder } from './batch-builder.ts'
import type { TopicPartition } from './partition.ts'
import { PartitionBackoff } from './partition-backoff.ts'

export interface KafkaConsumerPorts {
  readonly clock: Clock
  /** In [0, 1). */
  readonly random: () => number
  /** A new client; asked for again when the one before failed. */
  readonly openFetcher: () => RecordFetcher
  readonly log: Logger
}

export interface KafkaConsumerOptions {
  readonly fetchMaxWaitMs: number
  readonly backoff: BackoffPolicy
}

export interface KafkaConsumerEvents {
  /** The brokers answered; ids and counts of the topics as they are now. */
  onConnected(topics: ReadonlyMap<string, TopicMetadata>): void
  /** A partition has lost messages that were read. Positions are to be read again, this one not above `position`. */
  onTruncated(position: Position): Promise<void>
  /** Something was taken in. */
  onAccepted(): void
  /** Fetching cannot go on and waiting does not mend it: a message of a newer schema, or a defect. */
  onFatal(error: unknown): void
}

/** How often the brokers are asked whether topics have got more partitions. */
const REFRESH_EVERY_MS = 15_000

/** Enough for some hundred messages: a broker that has less waits for `fetchMaxWaitMs`. */
const MIN_BYTES = 32 << 10

/**
 * Of an answer, compressed: some 4,000 messages, which take the database several times as long as the next fetch. More
 * would only be held in memory.
 */
const MAX_BYTES = 256 << 10
const PARTITION_MAX_BYTES = 64 << 10

/**
 * Fetches what the batch builder has positions and room for, one request to each broker at a time, and hands it over.
 * When a request fails the client is made anew; positions are the batch builder's, so nothing is lost or skipped. A partition
 * that cannot be read holds up no other: it is tried again after a while, with the topics asked for anew.
 */
export class KafkaConsumer {
  readonly #options: KafkaConsumerOptions
  readonly #batchBuilder: BatchBuilder
  readonly #events: KafkaConsumerEvents
  readonly #ports: KafkaConsumerPorts
  readonly #stopping = new AbortController()
  readonly #wake: Wake
  readonly #backedOff: PartitionBackoff
  #isRetrying = false
  #running: Promise<void> | null = null
  #fetcher: RecordFetcher | null = null
  #reconnectWanted = false
  /** Why the last client failed, until one fetches again. */
  failure: string | null = null

  constructor(
    options: KafkaConsumerOptions,
    batchBuilder: BatchBuilder,
    events: KafkaConsumerEvents,
    ports: KafkaConsumerPorts,
  ) {
    this.#options = options
    this.#batchBuilder = batchBuilder
    this.#events = events
    this.#ports = ports
    this.#wake = new Wake(ports.clock)
    this.#backedOff = new PartitionBackoff(options.backoff)
  }

  /** Which partitions cannot be read, and why; null when all of ours can. */
  get backedOff(): string | null {
    return this.#backedOff.description
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** To be called when the batch builder has got positions or room. */
  wake(): void {
    this.#wake.ring()
  }

  /** Asks the brokers anew for the topics, on a new client. */
  reconnect(): void {
    this.#reconnectWanted = true
    this.#wake.ring()
  }

  /** The oldest and next offset of every partition. @throws while no broker answers */
  async offsetRanges(): ReturnType<RecordFetcher['offsetRanges']> {
    if (this.#fetcher === null) throw new Error('No broker has answered yet')
    return this.#fetcher.offsetRanges()
  }

  /** Takes nothing in any more, from this call on; resolves when the client is closed. */
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
          this.#ports.log.warn({ err: error }, `Fetching failed, trying again: ${this.failure}`)
        failures++
      } finally {
        this.#fetcher = null
        await fetcher.close().catch((error: unknown) => {
          this.#ports.log.debug({ err: error }, `Closing the fetching client failed: ${describeError(error)}`)
        })
      }
      const { clock, random } = this.#ports
      await sleepOn(clock, delayFor(failures, this.#options.backoff, random()), signal).catch(() => {})
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
        const dueInMs = this.#isRetrying ? null : this.#backedOff.dueInMs(this.#nowMs)
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

  get #wallMs(): number {
    return Math.floor(this.#ports.clock.wallMicros() / 1000)
  }

  async #refresh(fetcher: RecordFetcher): Promise<void> {
    try {
      this.#events.onConnected(await fetcher.connect())
    } catch (error) {
      this.#ports.log.debug({ err: error }, 'The topics cannot be looked at now')
    }
  }

  /** Asks who leads the partitions that are due, and lets them be fetched again. */
  #retryAiling(fetcher: RecordFetcher): void {
    this.#backedOff.keep(this.#batchBuilder.positions())
    if (this.#isRetrying || this.#backedOff.dueInMs(this.#nowMs) !== 0) return
    this.#isRetrying = true
    void this.#refresh(fetcher).then(() => {
      this.#isRetrying = false
      this.#backedOff.readmit(this.#nowMs)
      this.#wake.ring()
    })
  }

  #cannotRead({ topic, partition }: TopicPartition, error: string): void {
    const reason = describePartitionError(topic, error)
    if (!this.#backedOff.note({ topic, partition }, reason, this.#nowMs, this.#ports.random())) return
    this.#ports.log.warn(
      { topic, partition },
      `A partition cannot be read, trying again; the others go on: ${reason}`,
    )
  }

  #positionsByLeader(fetcher: RecordFetcher): Map<number, Position[]> {
    const byLeader = new Map<number, Position[]>()
    for (const position of this.#batchBuilder.positions()) {
      if (this.#backedOff.rests(position)) continue
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
    // What moves a position waits for the broker; what has come does not wait for that.
    for (const one of fetched) if (one.error === null && one.diverging === null) this.#accept(one, positions)
    this.#events.onAccepted()
    for (const one of fetched) {
      if (one.error === 'OFFSET_OUT_OF_RANGE') await this.#orLater(one, () => this.#goToOldest(fetcher, one))
      else if (one.error !== null) this.#cannotRead(one, one.error)
      else if (one.diverging !== null) await this.#orLater(one, () => this.#goBack(one, positions))
    }
    this.#events.onAccepted()
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
    if (this.#backedOff.recovered(fetched)) {
      const { topic, partition } = fetched
      this.#ports.log.info({ topic, partition }, 'The partition can be read again')
    }
    const hole = this.#batchBuilder.accept(fetched, this.#nowMs, this.#wallMs)
    if (hole === null) return
    // An answer to a position that has moved meanwhile begins elsewhere too: only where the broker was asked for
    // the expected offset itself has it really none.
    const asked = positions.find(
      ({ topic, partition }) => topic === fetched.topic && partition === fetched.partition,
    )
    if (asked?.offset !== hole.from) return
    this.#ports.log.error(hole, 'Kafka has a hole in a partition: these offsets do not exist')
    this.#batchBuilder.skipTo(hole.topic, hole.partition, hole.to, this.#nowMs)
  }

  /** The log has others in place of messages that were read: it lost its tail, and may have grown beyond our position since. */
  async #goBack(one: FetchedPartition, positions: readonly Position[]): Promise<void> {
    const { topic, partition, diverging, endOffset } = one
    const expected = this.#positionOf(one)
    const isSame = ({ offset, leaderEpoch }: Position) =>
      offset === expected?.offset && leaderEpoch === expected.leaderEpoch
    // An answer to a position that has moved meanwhile.
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
    // With an epoch a leader answers so within its log only when it knows no epoch as high: that log is another.
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
      'The next offset has left the topic: retention is shorter than the outage was. Going on at the oldest message',
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
      `Partition ${partition} of ${topic} lost messages that were read: the position was ${position}, the log was the same ` +
        `up to ${offset} and ends at ${end}. Reading it again from ${offset}`,
    )
    await this.#events.onTruncated({ topic, partition, offset, leaderEpoch })
  }

  #positionOf({ topic, partition }: TopicPartition): Position | undefined {
    return this.#batchBuilder.positions().find((one) => one.topic === topic && one.partition === partition)
  }
}

/** Errors that come again however often the broker is asked. */
function isFatal(error: unknown): boolean {
  return (
    error instanceof Error &&
    (error.name === 'TapelineError' ? Reflect.get(error, 'code') === 'SCHEMA' : error instanceof TypeError)
  )
}
