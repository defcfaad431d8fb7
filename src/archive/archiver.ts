import { CommitChain } from '../foundation/archive/commit-chain.ts'
import type { DuckDb } from '../foundation/archive/duckdb.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import type { GroupClient } from '../foundation/consumption/group-client.ts'
import type { GroupMembership } from '../foundation/consumption/group-membership.ts'
import { PartitionReader, topicKinds } from '../foundation/consumption/partition-reader.ts'
import type { RecordFetcher } from '../foundation/kafka/kafka-port.ts'
import { keyOf, type PartitionOrigin, type TopicPartition } from '../foundation/kafka/partition.ts'
import { delayFor, sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { Wake, wallMs } from '../foundation/runtime/clock.ts'
import { isFinal } from '../foundation/runtime/errors.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import type { ArchiveConfig } from './config.ts'
import { OpenSegments, type OwnedPartition } from './open-segments.ts'
import type { Segment } from './segment.ts'
import { SegmentWriter } from './segment-writer.ts'
import { StoreProblem } from './store-problem.ts'

export type ArchiverConfig = Pick<
  ArchiveConfig,
  'topics' | 'flushIntervalMs' | 'bufferBytes' | 'fetchMaxWaitMs' | 'backoff' | 'sessionTimeoutMs'
>

export interface ArchiverPorts extends ServicePorts {
  readonly store: ObjectStore
  readonly duckDb: Pick<DuckDb, 'writeParquet'>
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
  readonly #config: ArchiverConfig
  readonly #ports: ArchiverPorts
  readonly #reader: PartitionReader
  readonly #stopping = new AbortController()
  readonly #giveUp = new AbortController()
  readonly #filled: Wake
  readonly #room: Wake
  #loops: Promise<unknown> | null = null
  /** Since when the current segment is written, on the monotonic clock; null between segments. */
  #writingSinceMs: number | null = null
  readonly #problem: StoreProblem

  constructor(config: ArchiverConfig, ports: ArchiverPorts) {
    this.#config = config
    this.#ports = ports
    this.#problem = new StoreProblem(ports.log)
    const { flushIntervalMs, bufferBytes, fetchMaxWaitMs, backoff, sessionTimeoutMs } = config
    const kindOf = topicKinds(config.topics)
    const segments = new OpenSegments({
      kindOf,
      flushIntervalMs,
      sealBytes: bufferBytes / 2,
      maxBytes: bufferBytes,
    })
    this.segments = segments
    this.#filled = new Wake(ports.clock)
    this.#room = new Wake(ports.clock)
    const limits = { maxWaitMs: fetchMaxWaitMs, ...FETCH_LIMITS }
    this.#reader = new PartitionReader(
      { topics: [...kindOf.keys()], limits, backoff, sessionTimeoutMs },
      {
        ...ports,
        buffer: segments,
        filled: this.#filled,
        room: this.#room,
        readPositions: async (partitions) => {
          const heads = await this.#heads(partitions)
          return () => segments.assign(heads)
        },
        isRetryable: (error) => !isFinal(error),
        onRecreated: (topic, topicId) => {
          segments.retire(topic, topicId)
          this.#filled.ring()
        },
        // What was read is committed first; then the next incarnation of the chain begins.
        onTruncated: async (position) => {
          segments.restart(position)
          this.#filled.ring()
        },
      },
    )
  }

  /** Why messages are not archived now; null when they are. */
  get problem(): string | null {
    const { obstacle, fetchProblem, kafka } = this.#reader
    if (obstacle !== null) return obstacle
    const sinceMs = this.#writingSinceMs
    if (sinceMs !== null && this.#nowMs - sinceMs > WRITING_LIMIT_MS)
      return `a segment has not been written for ${Math.round((this.#nowMs - sinceMs) / 1000)} s: ${this.#problem.reason ?? 'no answer'}`
    return fetchProblem ?? kafka.backedOff ?? this.#problem.reason
  }

  /** Milliseconds since the oldest message that is not committed was read; 0 if there is none. */
  get oldestUncommittedMs(): number {
    const { oldestMs } = this.segments
    return oldestMs === null ? 0 : this.#nowMs - oldestMs
  }

  /** Our partitions, including those whose chains cannot be read now. */
  get assigned(): readonly TopicPartition[] {
    return this.#reader.assigned ?? []
  }

  /** Whether this process has the first partition of the trades, and so publishes days. */
  get isFirst(): boolean {
    const { trades } = this.#config.topics
    return this.assigned.some(({ topic, partition }) => topic === trades && partition === 0)
  }

  /** Reads the end of every partition of the archived topics. @throws while no broker answers */
  async readEnds(): Promise<Array<PartitionOrigin & { readonly end: number }>> {
    const ranges = await this.#reader.kafka.offsetRanges()
    return ranges.map(({ topic, partition, end }) => {
      const topicId = this.#reader.topicId(topic)
      if (topicId === null) throw new Error(`The id of topic ${topic} is not known yet`)
      return { topic, topicId, partition, end }
    })
  }

  get groupCounts(): GroupMembership['counts'] {
    return this.#reader.membership.counts
  }

  start(): void {
    this.#loops ??= Promise.all([this.#reader.start(), this.#writeLoop()]).catch((error: unknown) => {
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
    const fetchingEnded = this.#reader.stopFetching()
    this.segments.drain()
    this.#filled.ring()
    await unlessAborted(this.#loops ?? Promise.resolve(), this.#giveUp.signal).catch(() => {})
    const left = this.segments.pending
    await this.#reader.membership.stop()
    await fetchingEnded
    return left
  }

  get #nowMs(): number {
    return this.#ports.clock.monotonicMs()
  }

  /** Reads the end of each partition's chain. A new chain begins at the oldest message of Kafka. */
  async #heads(partitions: readonly PartitionOrigin[]): Promise<OwnedPartition[]> {
    const { store, clock } = this.#ports
    // At once: each beginning waits for the disk several times.
    const found = await Promise.all(partitions.map((one) => new CommitChain(store, one).head()))
    const ranges = found.includes(null) ? await this.#reader.kafka.offsetRanges() : []
    return Promise.all(
      partitions.map(async (one, i): Promise<OwnedPartition> => {
        const known = found[i] ?? null
        if (known !== null) return { ...one, head: known }
        const range = ranges.find((other) => keyOf(other) === keyOf(one))
        if (range === undefined) throw new Error(`The offsets of ${keyOf(one)} are not known yet`)
        const beginning = { firstOffset: range.start, at: wallMs(clock) }
        return { ...one, head: await new CommitChain(store, one).begin(beginning) }
      }),
    )
  }

  async #writeLoop(): Promise<void> {
    const { signal } = this.#giveUp
    while (!signal.aborted) {
      await this.#endIncarnations(signal)
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
        this.#problem.worked()
        this.#writingSinceMs = null
        if (isOurs) {
          onCommitted(segment, writer.files, this.#nowMs - sinceMs)
          this.segments.committed(segment)
        } else {
          const { topic, partition, firstOffset } = segment
          log.warn(
            { topic, partition, firstOffset },
            'Another process has archived these messages: dropping them, reading on after its last record',
          )
          this.segments.drop(segment)
          this.#reader.reposition()
        }
        return
      } catch (error) {
        if (signal.aborted) return
        await this.#orFatal(`Writing a segment to ${store.name} failed`, error, failures, signal)
      }
    }
  }

  /** Ends the incarnation of each chain whose log lost its tail, once everything that was read is committed. */
  async #endIncarnations(signal: AbortSignal): Promise<void> {
    const { store, clock, log } = this.#ports
    for (const { incarnation, before, restart, ...partition } of this.segments.restarts()) {
      log.error(
        { ...partition, archived: before, offset: restart.offset },
        'A partition lost messages that are archived: they stay in the archive, and it continues with what Kafka has now',
      )
      const chain = new CommitChain(store, partition)
      const end = { restartAt: restart.offset, leaderEpoch: restart.leaderEpoch, at: wallMs(clock) }
      for (let failures = 1; !signal.aborted; failures++) {
        try {
          this.segments.restarted(partition, await chain.end({ incarnation, offset: before }, end))
          this.#problem.worked()
          break
        } catch (error) {
          if (!signal.aborted) await this.#orFatal('Ending an incarnation failed', error, failures, signal)
        }
      }
      this.#room.ring()
    }
  }

  /** Logs and waits before a retry. @throws the error if a retry cannot help */
  async #orFatal(what: string, error: unknown, failures: number, signal: AbortSignal): Promise<void> {
    if (isFinal(error)) throw error
    const { clock, random } = this.#ports
    this.#problem.failed(what, error, this.#nowMs)
    await sleep(delayFor(failures, this.#config.backoff, random()), signal, clock).catch(() => {})
  }
}
