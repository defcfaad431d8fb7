import { describeKafkaError, describePartitionError } from '../kafka/broker-errors.ts'
import type { FetchLimits } from '../kafka/broker-requests.ts'
import type { FetchedPartition } from '../kafka/codec/fetch-api.ts'
import type { RecordFetcher } from '../kafka/kafka-port.ts'
import { keyOf, type PartitionOrigin, type TopicPartition } from '../kafka/partition.ts'
import type { TopicMetadata } from '../kafka/topic-metadata.ts'
import { type BackoffPolicy, delayFor, sleep, unlessAborted } from '../runtime/backoff.ts'
import { type Wake, wallMs } from '../runtime/clock.ts'
import { describeError, isTapelineError } from '../runtime/errors.ts'
import type { ServicePorts } from '../telemetry/service.ts'
import type { MessageBuffer, ReadPosition } from './message-buffer.ts'
import { PartitionBackoff } from './partition-backoff.ts'

export interface FetchLoopOptions {
  readonly limits: FetchLimits
  readonly backoff: BackoffPolicy
}

/** What fetching shares with the writer, which empties the buffer. */
export interface FetchWakes extends ServicePorts {
  /** Rings when the buffer has more. */
  readonly filled: Wake
  /** Rings when the buffer has new positions or room. */
  readonly room: Wake
}

export interface FetchLoopPorts extends FetchWakes {
  readonly buffer: MessageBuffer
  /** Opens a new client; called again after the previous one failed. */
  readonly openFetcher: () => RecordFetcher
  /** The brokers answered with the current ids and partition counts of the topics. */
  readonly onConnected: (topics: ReadonlyMap<string, TopicMetadata>) => void
  /** A partition lost its tail. Read the positions again, this one at most `position`. */
  readonly onTruncated: (position: ReadPosition) => Promise<void>
  /** A retry cannot help: a message has a newer schema, or there is a defect. */
  readonly onFatal: (error: unknown) => void
}

/** Interval of metadata requests, which find new partitions. */
const REFRESH_EVERY_MS = 15_000

/**
 * Fetches where the buffer has positions and room, with one request per broker at a time. A
 * failed request replaces the client; the buffer keeps the positions, so nothing is lost or
 * skipped. An unreadable partition delays no other: it is retried later, with fresh topic metadata.
 */
export class FetchLoop {
  readonly #options: FetchLoopOptions
  readonly #ports: FetchLoopPorts
  readonly #stopping = new AbortController()
  /** From the first partition that could not be read. */
  #backedOff: PartitionBackoff | null = null
  #isRetrying = false
  #running: Promise<void> | null = null
  #fetcher: RecordFetcher | null = null
  #reconnectWanted = false
  /** Clients that failed since one has fetched. */
  #failures = 0
  /** Which answer last had messages of each partition, by `keyOf`. */
  readonly #servedBy = new Map<string, number>()
  #answers = 0
  #failure: string | null = null

  constructor(options: FetchLoopOptions, ports: FetchLoopPorts) {
    this.#options = options
    this.#ports = ports
  }

  /** Why the last client failed, until one fetches again. */
  get failure(): string | null {
    return this.#failure
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
    this.#ports.room.ring()
  }

  /** The oldest and next offset of every partition. @throws while no broker answers */
  async offsetRanges(): ReturnType<RecordFetcher['offsetRanges']> {
    if (this.#fetcher === null) throw new Error('No broker has answered yet')
    return this.#fetcher.offsetRanges()
  }

  /** Takes in nothing from this call on. Resolves when the client is closed. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#ports.room.ring()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    const { clock, random, log, openFetcher, onConnected, onFatal } = this.#ports
    while (!signal.aborted) {
      const fetcher = openFetcher()
      try {
        const topics = await unlessAborted(fetcher.connect(), signal)
        this.#fetcher = fetcher
        onConnected(topics)
        await this.#fetchUntilStopped(fetcher)
      } catch (error) {
        if (isFatal(error)) {
          onFatal(error)
          return
        }
        this.#failure = describeKafkaError(error)
        if (!signal.aborted) log.warn({ err: error }, `Fetching failed, retrying: ${this.#failure}`)
        this.#failures++
      } finally {
        this.#fetcher = null
        await fetcher.close().catch((error: unknown) => {
          log.debug({ err: error }, `Closing the fetch client failed: ${describeError(error)}`)
        })
      }
      const waitMs = delayFor(this.#failures, this.#options.backoff, random())
      await sleep(waitMs, signal, clock).catch(() => {})
    }
  }

  async #fetchUntilStopped(fetcher: RecordFetcher): Promise<void> {
    const { clock, room, buffer } = this.#ports
    const inFlight = new Set<number>()
    const errors: unknown[] = []
    this.#reconnectWanted = false
    this.#isRetrying = false
    let cancelRefresh = () => {}
    const refreshLater = () => {
      cancelRefresh = clock.schedule(REFRESH_EVERY_MS, () => {
        void this.#refresh(fetcher)
        refreshLater()
      })
    }
    refreshLater()
    try {
      while (!this.#stopping.signal.aborted && errors.length === 0 && !this.#reconnectWanted) {
        this.#retryAiling(fetcher)
        const byLeader = buffer.hasRoom ? this.#positionsByLeader(fetcher) : []
        for (const [node, positions] of byLeader) {
          if (inFlight.has(node)) continue
          inFlight.add(node)
          void this.#fetchOnce(fetcher, node, positions)
            .catch((error: unknown) => errors.push(error))
            .finally(() => {
              inFlight.delete(node)
              room.ring()
            })
        }
        const dueInMs = this.#isRetrying ? null : this.#backedOff?.dueInMs(this.#nowMs)
        await room.wait(dueInMs ?? undefined)
      }
    } finally {
      cancelRefresh()
    }
    if (errors.length > 0) throw errors[0]
  }

  get #nowMs(): number {
    return this.#ports.clock.monotonicMs()
  }

  async #refresh(fetcher: RecordFetcher): Promise<void> {
    try {
      const topics = await fetcher.connect()
      // A client that was replaced meanwhile may answer with what was before.
      if (this.#fetcher === fetcher) this.#ports.onConnected(topics)
    } catch (error) {
      this.#ports.log.debug({ err: error }, 'Reading the topic metadata failed')
    }
  }

  /** Looks up the leaders of partitions that are due, then allows fetching them again. */
  #retryAiling(fetcher: RecordFetcher): void {
    const backedOff = this.#backedOff
    backedOff?.keep(this.#ports.buffer.positions())
    if (this.#isRetrying || backedOff?.dueInMs(this.#nowMs) !== 0) return
    this.#isRetrying = true
    void this.#refresh(fetcher).then(() => {
      this.#isRetrying = false
      backedOff.readmit(this.#nowMs)
      this.#ports.room.ring()
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

  /**
   * The partitions served longest ago come first: a broker fills an answer in the order of the
   * request, up to `maxBytes`, and partitions with a backlog would leave no room for later ones.
   */
  #positionsByLeader(fetcher: RecordFetcher): Map<number, ReadPosition[]> {
    const byLeader = new Map<number, ReadPosition[]>()
    const servedBy = (one: TopicPartition) => this.#servedBy.get(keyOf(one)) ?? 0
    const inTurn = this.#ports.buffer.positions().toSorted((a, b) => servedBy(a) - servedBy(b))
    for (const position of inTurn) {
      if (this.#backedOff?.rests(position)) continue
      const leader = fetcher.leaderOf(position.topic, position.partition)
      if (leader === null || leader < 0) this.#cannotRead(position, 'it has no leader')
      else byLeader.set(leader, [...(byLeader.get(leader) ?? []), position])
    }
    return byLeader
  }

  async #fetchOnce(fetcher: RecordFetcher, node: number, positions: readonly ReadPosition[]): Promise<void> {
    const fetched = await fetcher.fetch(node, positions, this.#options.limits)
    if (this.#stopping.signal.aborted) return
    this.#answers++
    for (const one of fetched) if (one.messages.length > 0) this.#servedBy.set(keyOf(one), this.#answers)
    // Moving a position waits for the broker. Messages that have arrived are taken in first.
    for (const one of fetched) if (one.error === null && one.diverging === null) this.#accept(one, positions)
    this.#ports.filled.ring()
    this.#failures = 0
    this.#failure = null
    for (const one of fetched) {
      if (one.error === 'OFFSET_OUT_OF_RANGE') await this.#orLater(one, () => this.#goToOldest(fetcher, one))
      else if (one.error !== null) this.#cannotRead(one, one.error)
      else if (one.diverging !== null) await this.#orLater(one, () => this.#goBack(one, positions))
    }
    this.#ports.filled.ring()
  }

  async #orLater(one: FetchedPartition, move: () => Promise<void>): Promise<void> {
    try {
      await move()
    } catch (error) {
      if (isFatal(error)) throw error
      this.#cannotRead(one, `its position cannot be moved: ${describeKafkaError(error)}`)
    }
  }

  #accept(fetched: FetchedPartition, positions: readonly ReadPosition[]): void {
    if (this.#backedOff?.recovered(fetched)) {
      const { topic, partition } = fetched
      this.#ports.log.info({ topic, partition }, 'The partition can be read again')
    }
    const hole = this.#ports.buffer.accept(fetched, this.#nowMs, wallMs(this.#ports.clock))
    if (hole === null) return
    // The position may have moved since the request. It is a hole only if the broker was asked for
    // the expected offset.
    const asked = positions.find((one) => isSamePartition(one, fetched))
    if (asked?.offset !== hole.from) return
    this.#ports.log.error(hole, 'A partition lacks these offsets; skipping them')
    this.#ports.buffer.skipTo({ ...asked, offset: hole.to }, this.#nowMs)
  }

  /** Handles a log that lost its tail, and may have grown past our position since. */
  async #goBack(one: FetchedPartition, positions: readonly ReadPosition[]): Promise<void> {
    const { diverging, endOffset } = one
    const expected = this.#positionOf(one)
    const asked = positions.find((other) => isSamePartition(one, other))
    if (diverging === null || expected === undefined) return
    // Ignore an answer to a position that has moved since.
    if (asked?.offset !== expected.offset || asked.leaderEpoch !== expected.leaderEpoch) return
    const offset = Math.min(expected.offset, diverging.offset)
    await this.#truncated(expected, offset, diverging.leaderEpoch, endOffset)
  }

  async #goToOldest(fetcher: RecordFetcher, one: FetchedPartition): Promise<void> {
    const { topic, partition } = one
    const asked = this.#positionOf(one)
    const range = (await fetcher.offsetRanges([topic])).find((other) => isSamePartition(other, one))
    const expected = this.#positionOf(one)
    if (expected === undefined || range === undefined || this.#stopping.signal.aborted) return
    const { offset, leaderEpoch = -1 } = expected
    // Ignore an answer to a position that has moved since.
    if (offset !== asked?.offset) return
    // With an epoch, a leader refuses an offset in its log only if it has no epoch as high.
    if (offset > range.end || (offset >= range.start && leaderEpoch >= 0)) {
      await this.#truncated(expected, range.start, -1, range.end)
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
    this.#ports.buffer.skipTo({ ...expected, offset: range.start }, this.#nowMs)
  }

  async #truncated(
    { topic, topicId, partition, offset: position }: ReadPosition,
    offset: number,
    leaderEpoch: number,
    end: number,
  ): Promise<void> {
    this.#ports.log.error(
      { topic, partition, position, end, offset },
      `Partition ${partition} of ${topic} lost messages that were read: the position was ${position}, the log was unchanged ` +
        `up to ${offset} and ends at ${end}. Reading it again from ${offset}`,
    )
    await this.#ports.onTruncated({ topic, topicId, partition, offset, leaderEpoch })
  }

  #positionOf(one: PartitionOrigin): ReadPosition | undefined {
    return this.#ports.buffer
      .positions()
      .find((other) => isSamePartition(one, other) && one.topicId === other.topicId)
  }
}

/** Errors that every retry would meet again. */
function isFatal(error: unknown): boolean {
  return isTapelineError(error, 'SCHEMA') || error instanceof TypeError
}

function isSamePartition(one: TopicPartition, other: TopicPartition): boolean {
  return one.topic === other.topic && one.partition === other.partition
}
