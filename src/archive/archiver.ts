import { CommitChain } from '../foundation/archive/commit-chain.ts'
import type { DuckDb } from '../foundation/archive/duckdb.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { FetchLoop } from '../foundation/consumption/fetch-loop.ts'
import type { GroupClient } from '../foundation/consumption/group-client.ts'
import { type Assignment, GroupMembership } from '../foundation/consumption/group-membership.ts'
import type { RecordFetcher } from '../foundation/kafka/kafka-port.ts'
import type { TopicKind } from '../foundation/kafka/message-decoder.ts'
import {
  keyOf,
  type PartitionOrigin,
  type Position,
  type TopicPartition,
} from '../foundation/kafka/partition.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import { delayFor, sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { Wake, wallMs } from '../foundation/runtime/clock.ts'
import { describeWithFix, isFinal } from '../foundation/runtime/errors.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import type { ArchiveConfig } from './config.ts'
import { OpenSegments, type OwnedPartition, type Segment } from './open-segments.ts'
import { SegmentWriter } from './segment-writer.ts'

export interface ArchiverPorts extends ServicePorts {
  readonly store: ObjectStore
  readonly duckDb: DuckDb
  readonly openFetcher: () => RecordFetcher
  readonly openGroupClient: (topics: readonly string[]) => GroupClient
  /** A segment is committed, `tookMs` milliseconds after it was sealed. */
  readonly onCommitted: (segment: Segment, files: SegmentWriter['files'], tookMs: number) => void
  /** Continuing would lose or corrupt data. Nothing uncommitted is lost. */
  readonly onFatal: (error: unknown) => void
}

/** Rows are written minutes later, so larger answers cost no delay. */
const FETCH_LIMITS = { minBytes: 128 << 10, maxBytes: 2 << 20, partitionMaxBytes: 512 << 10 }

/** A segment that waits longer than this for the store makes the service not ready. */
const WRITING_LIMIT_MS = 30_000

/**
 * Runs the archive service: the group assigns partitions, the archive's chains give their positions,
 * Kafka gives messages, and one segment after another is written and committed.
 */
export class Archiver {
  readonly segments: OpenSegments
  readonly #config: ArchiveConfig
  readonly #ports: ArchiverPorts
  readonly #membership: GroupMembership
  readonly #kafka: FetchLoop
  readonly #stopping = new AbortController()
  readonly #giveUp = new AbortController()
  readonly #filled: Wake
  readonly #room: Wake
  readonly #positionsWanted = new Wake()
  #assignment: Assignment | null = null
  #positioned: Assignment | null = null
  #topics: ReadonlyMap<string, TopicMetadata> | null = null
  #loops: Promise<unknown> | null = null
  /** Since when the current segment is written, on the monotonic clock; null between segments. */
  #writingSinceMs: number | null = null
  #failure: string | null = null

  constructor(config: ArchiveConfig, ports: ArchiverPorts) {
    this.#config = config
    this.#ports = ports
    const { topics, flushIntervalMs, bufferBytes, fetchMaxWaitMs, backoff, sessionTimeoutMs } = config
    const kindOf = new Map<string, TopicKind>([
      [topics.trades, 'trades'],
      [topics.bookTicker, 'bookTicker'],
      [topics.gaps, 'gaps'],
      [topics.deadLetters, 'deadLetters'],
    ])
    const segments = new OpenSegments({
      kindOf,
      flushIntervalMs,
      sealBytes: bufferBytes / 2,
      maxBytes: bufferBytes,
    })
    this.segments = segments
    this.#filled = new Wake(ports.clock)
    this.#room = new Wake(ports.clock)
    this.#membership = new GroupMembership(
      {
        ...ports,
        openClient: () => ports.openGroupClient([...kindOf.keys()]),
        storedOffsets: () => segments.progress(),
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
    this.#kafka = new FetchLoop(
      { limits: { maxWaitMs: fetchMaxWaitMs, ...FETCH_LIMITS }, backoff },
      {
        ...ports,
        buffer: segments,
        filled: this.#filled,
        room: this.#room,
        onConnected: (found) => this.#onTopics(found),
        onTruncated: async (position) => this.#onTruncated(position),
      },
    )
  }

  /** Why messages are not archived now; null when they are. */
  get problem(): string | null {
    const { failure: fetchFailure, backedOff } = this.#kafka
    if (this.#membership.failure !== null)
      return `the consumer group cannot be joined: ${this.#membership.failure}`
    const noFetch = fetchFailure === null ? null : `nothing can be fetched: ${fetchFailure}`
    if (this.#positioned === null || this.#positioned !== this.#assignment)
      return noFetch ?? this.#failure ?? 'no partitions are assigned yet'
    const sinceMs = this.#writingSinceMs
    if (sinceMs !== null && this.#nowMs - sinceMs > WRITING_LIMIT_MS)
      return `a segment has not been written for ${Math.round((this.#nowMs - sinceMs) / 1000)} s: ${this.#failure ?? 'no answer'}`
    return noFetch ?? backedOff ?? this.#failure
  }

  /** Milliseconds since the oldest message that is not committed was read; 0 if there is none. */
  get oldestUncommittedMs(): number {
    const { oldestMs } = this.segments
    return oldestMs === null ? 0 : this.#nowMs - oldestMs
  }

  /** Our partitions, including those whose chains cannot be read now. */
  get assigned(): readonly TopicPartition[] {
    return this.#assignment?.partitions ?? []
  }

  /** Whether this process has the first partition of the trades, and so publishes days. */
  get isFirst(): boolean {
    const { trades } = this.#config.topics
    return this.assigned.some(({ topic, partition }) => topic === trades && partition === 0)
  }

  /** Reads the end of every partition of the archived topics. @throws while no broker answers */
  async readEnds(): Promise<Array<PartitionOrigin & { readonly end: number }>> {
    const topics = this.#topics
    const ranges = await this.#kafka.offsetRanges()
    return ranges.map(({ topic, partition, end }) => {
      const topicId = topics?.get(topic)?.id
      if (topicId === undefined) throw new Error(`The id of topic ${topic} is not known yet`)
      return { topic, topicId, partition, end }
    })
  }

  get groupCounts(): GroupMembership['counts'] {
    return this.#membership.counts
  }

  start(): void {
    this.#membership.start()
    this.#kafka.start()
    this.#loops ??= Promise.all([this.#positionLoop(), this.#writeLoop()]).catch((error: unknown) => {
      this.#ports.onFatal(error)
    })
  }

  /**
   * Stops fetching, commits what was read and leaves the group.
   *
   * @returns messages not committed before the signal aborted, which the next start reads again
   */
  async stop(signal: AbortSignal): Promise<number> {
    this.#stopping.abort()
    const giveUp = () => this.#giveUp.abort(signal.reason)
    signal.addEventListener('abort', giveUp, { once: true })
    if (signal.aborted) giveUp()
    this.#positionsWanted.ring()
    const fetchingEnded = this.#kafka.stop()
    this.segments.drain()
    this.#filled.ring()
    await unlessAborted(this.#loops ?? Promise.resolve(), this.#giveUp.signal).catch(() => {})
    const left = this.segments.pending
    await this.#membership.stop()
    await fetchingEnded
    return left
  }

  get #nowMs(): number {
    return this.#ports.clock.monotonicMs()
  }

  #onTopics(found: ReadonlyMap<string, TopicMetadata>): void {
    if (this.#stopping.signal.aborted) return
    const known = this.#topics
    this.#topics = found
    for (const [topic, { id, partitions }] of found) {
      const before = known?.get(topic)
      if (before !== undefined && before.id !== id) this.#positioned = null
      if (before !== undefined && before.partitions !== partitions)
        this.#membership.rejoin('the number of partitions of a topic has changed')
    }
    this.#positionsWanted.ring()
  }

  /** What was read is committed first; then the next incarnation of the chain begins. */
  #onTruncated(position: Position): void {
    this.segments.restart(position, position.offset)
    this.#filled.ring()
  }

  async #positionLoop(): Promise<void> {
    const { signal } = this.#stopping
    for (let failures = 0; !signal.aborted; ) {
      try {
        if (await unlessAborted(this.#position(), signal)) failures = 0
        else await this.#positionsWanted.wait()
      } catch (error) {
        if (signal.aborted) return
        await this.#orFatal('Reading the chains of the archive failed', error, ++failures, signal)
      }
    }
  }

  /** @returns false when there is nothing to do until the next wake-up */
  async #position(): Promise<boolean> {
    const assignment = this.#assignment
    const topics = this.#topics
    if (assignment === null || topics === null || assignment === this.#positioned) return false
    const ours = assignment.partitions.flatMap(({ topic, partition }): PartitionOrigin[] => {
      const found = topics.get(topic)
      return found === undefined || partition >= found.partitions
        ? []
        : [{ topic, topicId: found.id, partition }]
    })
    if (ours.length < assignment.partitions.length) {
      // We have partitions that did not exist when the brokers last answered.
      this.#topics = null
      this.#kafka.reconnect()
      return true
    }
    const heads = await this.#heads(ours)
    // The generation or the incarnation of a topic may have changed meanwhile.
    if (assignment !== this.#assignment || topics !== this.#topics) return true
    this.segments.assign(heads)
    this.#positioned = assignment
    this.#failure = null
    const { generation, partitions } = assignment
    this.#ports.log.info({ generation, partitions: partitions.length }, 'Partitions assigned')
    this.#room.ring()
    return true
  }

  /** Reads the end of each partition's chain. A new chain begins at the oldest message of Kafka. */
  async #heads(partitions: readonly PartitionOrigin[]): Promise<OwnedPartition[]> {
    const { store, clock } = this.#ports
    // At once: each beginning waits for the disk several times.
    const found = await Promise.all(partitions.map((one) => new CommitChain(store, one).head()))
    const ranges = found.includes(null) ? await this.#kafka.offsetRanges() : []
    return Promise.all(
      partitions.map(async (one, i): Promise<OwnedPartition> => {
        const known = found[i] ?? null
        if (known !== null) return { ...one, head: known }
        const range = ranges.find((other) => keyOf(other) === keyOf(one))
        if (range === undefined) throw new Error(`The offsets of ${keyOf(one)} are not known yet`)
        const beginning = { firstOffset: range.start, before: null, at: wallMs(clock) }
        return { ...one, head: await new CommitChain(store, one).begin(1, beginning) }
      }),
    )
  }

  async #writeLoop(): Promise<void> {
    const { signal } = this.#giveUp
    while (!signal.aborted) {
      await this.#beginIncarnations(signal)
      const segment = this.segments.take(this.#nowMs)
      if (segment !== null) {
        await this.#commitSegment(segment, signal)
        this.#room.ring()
      } else {
        if (this.#stopping.signal.aborted) return
        await this.#filled.wait(this.segments.dueInMs(this.#nowMs) ?? undefined)
      }
    }
  }

  async #commitSegment(segment: Segment, signal: AbortSignal): Promise<void> {
    const { store, duckDb, clock, log, onCommitted } = this.#ports
    const writer = new SegmentWriter(segment, store, duckDb, clock)
    const sinceMs = this.#nowMs
    this.#writingSinceMs = sinceMs
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        const isOurs = await writer.write()
        this.#failure = null
        this.#writingSinceMs = null
        if (isOurs) {
          this.segments.committed(segment)
          onCommitted(segment, writer.files, this.#nowMs - sinceMs)
        } else {
          const { topic, partition, firstOffset } = segment
          log.warn(
            { topic, partition, firstOffset },
            'Another process has archived these messages: dropping them, reading on after its last record',
          )
          this.segments.drop(segment)
          this.#positioned = null
          this.#positionsWanted.ring()
        }
        return
      } catch (error) {
        if (signal.aborted) return
        await this.#orFatal(`Writing a segment to ${store.name} failed`, error, failures, signal)
      }
    }
  }

  /** Begins another incarnation of each chain whose log lost its tail, once it is committed. */
  async #beginIncarnations(signal: AbortSignal): Promise<void> {
    const { store, clock, log } = this.#ports
    for (const { topic, topicId, partition, incarnation, before, restartAt } of this.segments.restarts()) {
      log.error(
        { topic, partition, archived: before, offset: restartAt },
        'A partition lost messages that are archived: they stay in the archive, and it continues with what Kafka has now',
      )
      const chain = new CommitChain(store, { topic, topicId, partition })
      for (let failures = 1; !signal.aborted; failures++) {
        try {
          const head = await chain.begin(incarnation + 1, {
            firstOffset: restartAt,
            before,
            at: wallMs(clock),
          })
          this.segments.continueAt({ topic, topicId, partition, head })
          break
        } catch (error) {
          if (!signal.aborted) await this.#orFatal('Beginning an incarnation failed', error, failures, signal)
        }
      }
      this.#room.ring()
    }
  }

  /** Logs and waits before a retry. @throws the error if a retry cannot help */
  async #orFatal(what: string, error: unknown, failures: number, signal: AbortSignal): Promise<void> {
    if (isFinal(error)) throw error
    const { clock, random, log } = this.#ports
    this.#failure = `${what}: ${describeWithFix(error)}`
    log.error({ err: error }, `${what}, retrying: ${describeWithFix(error)}`)
    await sleep(delayFor(failures, this.#config.backoff, random()), signal, clock).catch(() => {})
  }
}
