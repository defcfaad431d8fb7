import { FetchIsolationLevels, protocolErrorsCodesById, type RecordsBatch } from '@platformatic/kafka'
import { type Clock, sleepOn } from '../runtime/clock.ts'
import { TapelineError } from '../runtime/errors.ts'
import type { Brokers, FetchRequests } from './broker-requests.ts'
import { realBrokers } from './client-requests.ts'
import { FetchedMessage } from './codec/fetched-message.ts'
import type { MessageBatch } from './codec/record-batch.ts'
import { type KafkaConnection, startingAt } from './connection.ts'
import type { Position } from './position.ts'
import type { TopicLayout, TopicMetadata } from './topic-metadata.ts'

/** The result of one fetch for one partition. */
export interface FetchedPartition {
  readonly topic: string
  readonly partition: number
  /** Kafka's error name, like `OFFSET_OUT_OF_RANGE`; null without an error. */
  readonly error: string | null
  /** The offset after the last message that all in-sync replicas have. */
  readonly endOffset: number
  /** The oldest offset that retention has kept. */
  readonly startOffset: number
  /** The position after the last batch, even if compaction has emptied it; null without a batch. */
  readonly nextOffset: number | null
  /** The leader epoch of the last batch; −1 without one. */
  readonly nextLeaderEpoch: number
  /**
   * Set if the log has lost messages before the requested position and may have others in their
   * place: what was read is still there up to `offset`. Null if not, or if the position has no
   * leader epoch.
   */
  readonly diverging: { readonly offset: number; readonly leaderEpoch: number } | null
  /** In ascending order of offset; may begin before the requested position. */
  readonly messages: readonly FetchedMessage[]
}

export interface FetchLimits {
  /** How long the broker may wait for `minBytes` to arrive. */
  readonly maxWaitMs: number
  readonly minBytes: number
  /**
   * Limit of the answer, in the broker's (compressed) bytes. One batch per partition is returned
   * whatever its size.
   */
  readonly maxBytes: number
  /** The same per partition; 1 MiB by default. */
  readonly partitionMaxBytes?: number
}

/**
 * Errors after which the leaders must be requested again: the leader has moved, or does not know
 * yet that it leads.
 */
const LEADER_MOVED: ReadonlySet<string> = new Set([
  'UNKNOWN_TOPIC_OR_PARTITION',
  'LEADER_NOT_AVAILABLE',
  'NOT_LEADER_OR_FOLLOWER',
  'REPLICA_NOT_AVAILABLE',
  'KAFKA_STORAGE_ERROR',
  'FENCED_LEADER_EPOCH',
  'UNKNOWN_LEADER_EPOCH',
  'UNKNOWN_TOPIC_ID',
  'OFFSET_NOT_AVAILABLE',
])

/** A broker that does not answer within this time hangs. */
const REQUEST_MS = 8000

/** Shorter, because another broker can answer as well. */
const METADATA_MS = 4000

const CLOSE_MS = 1000

/** Attempts of {@link PartitionFetcher.read}. */
const READ_ATTEMPTS = 4
const READ_RETRY_MS = 250

const PARTITION_MAX_BYTES = 1 << 20

/**
 * Reads partitions at positions that the caller keeps. The client's stream is not used: after a
 * rebalance, a running fetch may overwrite the position that it has just moved to.
 *
 * Each fetch names the leader epoch of metadata, so a broker that no longer leads refuses it. It
 * also names the epoch of the position, so the leader reports where its log differs from what was
 * read (KIP-320, KIP-595). After a failure the leaders are requested again, from another bootstrap
 * broker. Every request has a limit.
 *
 * It is a separate client, because long polls would delay heartbeats and commits on the same
 * connection.
 */
export class PartitionFetcher {
  readonly #connection: KafkaConnection
  readonly #clientId: string
  readonly #topics: readonly string[]
  readonly #to: Brokers
  readonly #closing = new AbortController()
  #connects = 0
  #requests: FetchRequests
  #layouts: ReadonlyMap<string, TopicLayout> = new Map()
  #topicOf: ReadonlyMap<string, string> = new Map()
  /** Whether a failure occurred that a change of leaders may explain. */
  #isStale = false

  constructor(connection: KafkaConnection, clientId: string, topics: readonly string[], to = realBrokers()) {
    this.#connection = connection
    this.#clientId = clientId
    this.#topics = topics
    this.#to = to
    this.#requests = this.#open()
  }

  /** Requests ids, partition counts and leaders of the topics. Call it before anything else. */
  async connect(): Promise<ReadonlyMap<string, TopicMetadata>> {
    this.#layouts = await this.#metadata()
    this.#isStale = false
    this.#topicOf = new Map([...this.#layouts].map(([name, topic]) => [topic.id, name]))
    return this.#layouts
  }

  /**
   * Requests the leaders again after a failure. A topic that was deleted and recreated keeps its
   * old id, so reading it fails until {@link connect} takes over the new one.
   */
  async #refreshLeaders(): Promise<void> {
    if (!this.#isStale) return
    const fresh = await this.#metadata()
    this.#layouts = new Map(
      [...this.#layouts].map(([name, known]) => {
        const now = fresh.get(name)
        return [name, now?.id === known.id ? now : known]
      }),
    )
    this.#isStale = false
  }

  /** Asks the bootstrap brokers in turn until one answers. */
  async #metadata(): Promise<ReadonlyMap<string, TopicLayout>> {
    for (let left = this.#connection.brokers.length; ; left--) {
      try {
        return (await this.#bounded(this.#requests.metadata(this.#topics), METADATA_MS)).topics
      } catch (error) {
        this.#reconnect()
        // A missing topic.
        if (left <= 1 || error instanceof TapelineError) throw error
      }
    }
  }

  /**
   * Returns the leader of a partition, by node id, as last reported; null or negative without one.
   */
  leaderOf(topic: string, partition: number): number | null {
    return this.#layouts.get(topic)?.leaders[partition] ?? null
  }

  /**
   * Returns the oldest (`start`) and the next (`end`) offset of every partition of these topics, by
   * default of all.
   *
   * @throws if a partition has no leader
   */
  async offsetRanges(
    of: readonly string[] = this.#topics,
  ): Promise<Array<{ topic: string; partition: number; start: number; end: number }>> {
    await this.#refreshLeaders()
    const [starts, ends] = await this.#orReconnect(REQUEST_MS, async (requests) => [
      await requests.listOffsets(of, -2n),
      await requests.listOffsets(of, -1n),
    ])
    return of.flatMap((topic) =>
      (ends.get(topic) ?? []).map((end, partition) => ({
        topic,
        partition,
        start: Number(starts.get(topic)?.[partition] ?? 0n),
        end: Number(end),
      })),
    )
  }

  /**
   * Fetches once from one broker, for partitions that it leads. Errors of partitions are in the
   * answer; it rejects if the whole request failed.
   */
  async fetch(
    node: number,
    positions: readonly Position[],
    limits: FetchLimits,
  ): Promise<FetchedPartition[]> {
    // The caller has chosen this node from older metadata; its next call may choose another.
    await this.#refreshLeaders()
    const topics = [...Map.groupBy(positions, (position) => position.topic)].map(([topic, inTopic]) => ({
      topicId: this.#layouts.get(topic)?.id ?? '',
      partitions: inTopic.map(({ partition, offset, leaderEpoch }) => ({
        partition,
        currentLeaderEpoch: this.#layouts.get(topic)?.leaderEpochs[partition] ?? -1,
        fetchOffset: BigInt(offset),
        lastFetchedEpoch: leaderEpoch ?? -1,
        partitionMaxBytes: limits.partitionMaxBytes ?? PARTITION_MAX_BYTES,
      })),
    }))
    const options = {
      node,
      topics,
      minBytes: limits.minBytes,
      maxBytes: limits.maxBytes,
      maxWaitTime: limits.maxWaitMs,
      isolationLevel: FetchIsolationLevels.READ_UNCOMMITTED,
    }
    const response = await this.#orReconnect(limits.maxWaitMs + REQUEST_MS, (requests) =>
      requests.fetch(options),
    )
    return response.responses.flatMap(({ topicId, partitions }) => {
      const topic = this.#topicOf.get(topicId)
      if (topic === undefined) return []
      return partitions.map((part) => ({
        topic,
        partition: part.partitionIndex,
        error: this.#errorOf(part.errorCode),
        endOffset: Number(part.highWatermark),
        startOffset: Number(part.logStartOffset),
        nextOffset: offsetAfter(part.records?.at(-1)),
        nextLeaderEpoch: part.records?.at(-1)?.partitionLeaderEpoch ?? -1,
        diverging: divergence(part.divergingEpoch),
        messages: (part.records ?? []).flatMap(messagesOf),
      }))
    })
  }

  /**
   * Like {@link fetch}, for one partition from its leader, retried for a second while the leader
   * changes.
   *
   * @returns its error is null or `OFFSET_OUT_OF_RANGE`
   * @throws for any other error of the partition
   */
  async read(position: Position, limits: FetchLimits): Promise<FetchedPartition> {
    const { topic, partition } = position
    const where = `Partition ${partition} of ${topic}`
    for (let left = READ_ATTEMPTS; ; left--) {
      try {
        const node = this.leaderOf(topic, partition) ?? -1
        if (node < 0) {
          this.#isStale = true
          await this.#refreshLeaders()
          throw new Error(`${where} has no leader`)
        }
        const [fetched] = await this.fetch(node, [position], limits)
        if (fetched === undefined) throw new Error(`${where} is not in the answer`)
        const { error } = fetched
        if (error === null || error === 'OFFSET_OUT_OF_RANGE') return fetched
        if (!LEADER_MOVED.has(error)) left = 0
        throw new Error(`${where}: ${error}`)
      } catch (error) {
        if (left <= 1 || error instanceof TapelineError) throw error
        await sleepOn(this.#clock, READ_RETRY_MS, this.#closing.signal)
      }
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('The reader was closed'))
    await this.#requests.close()
  }

  get #clock(): Clock {
    return this.#to.clock
  }

  #errorOf(code: number): string | null {
    if (code === 0) return null
    const name = errorName(code)
    if (LEADER_MOVED.has(name)) this.#isStale = true
    return name
  }

  #open(): FetchRequests {
    return this.#to.openFetcher(startingAt(this.#connection, this.#connects++), this.#clientId)
  }

  /** Drops all connections; the next request begins with another bootstrap broker. */
  #reconnect(): void {
    this.#isStale = true
    if (this.#closing.signal.aborted) return
    const left = this.#requests
    this.#requests = this.#open()
    // A connection that is being closed may never report it, and its errors do not matter.
    const late = new Promise<void>((resolve) => this.#clock.schedule(CLOSE_MS, resolve))
    void Promise.race([left.close().catch(() => {}), late])
  }

  async #orReconnect<Result>(
    limitMs: number,
    ask: (requests: FetchRequests) => Promise<Result>,
  ): Promise<Result> {
    const requests = this.#requests
    try {
      return await this.#bounded(ask(requests), limitMs)
    } catch (error) {
      // Only the first of several simultaneous failures reconnects.
      if (requests === this.#requests) this.#reconnect()
      throw error
    }
  }

  async #bounded<Result>(promise: Promise<Result>, limitMs: number): Promise<Result> {
    const limit = Promise.withResolvers<never>()
    const cancel = this.#clock.schedule(limitMs, () =>
      limit.reject(new Error(`Kafka has not answered within ${limitMs / 1000} s`)),
    )
    try {
      return await Promise.race([promise, limit.promise])
    } finally {
      cancel()
    }
  }
}

function divergence(
  diverging: { readonly epoch: number; readonly endOffset: bigint } | undefined,
): FetchedPartition['diverging'] {
  if (diverging === undefined || diverging.epoch < 0) return null
  return { offset: Number(diverging.endOffset), leaderEpoch: diverging.epoch }
}

function messagesOf(batch: RecordsBatch | MessageBatch): readonly FetchedMessage[] {
  if ('messages' in batch) return batch.messages
  // From an old broker, whose answer the client has parsed.
  const first = Number(batch.firstOffset)
  return batch.records.map(
    ({ offsetDelta, key, value, headers }) =>
      new FetchedMessage(
        first + offsetDelta,
        key,
        headers,
        value,
        0,
        value?.length ?? 0,
        batch.partitionLeaderEpoch,
      ),
  )
}

function offsetAfter(batch: { firstOffset: bigint; lastOffsetDelta: number } | undefined): number | null {
  return batch === undefined ? null : Number(batch.firstOffset) + batch.lastOffsetDelta + 1
}

function errorName(code: number): string {
  const names: Readonly<Record<string, string>> = protocolErrorsCodesById
  return names[code] ?? `error ${code}`
}
