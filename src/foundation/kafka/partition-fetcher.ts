import { FetchIsolationLevels, protocolErrorsCodesById, type RecordsBatch } from '@platformatic/kafka'
import type { FetchRequests } from './broker-requests.ts'
import { realBrokers } from './client-requests.ts'
import { FetchedMessage } from './codec/fetched-message.ts'
import type { MessageBatch } from './codec/record-batch.ts'
import type { KafkaConnection } from './connection.ts'
import type { Position } from './position.ts'
import type { TopicLayout, TopicMetadata } from './topic-metadata.ts'

/** What one fetch brought of one partition. */
export interface FetchedPartition {
  readonly topic: string
  readonly partition: number
  /** Kafka's error name, like `OFFSET_OUT_OF_RANGE`; null when there is none. */
  readonly error: string | null
  /** The offset after the last message that all in-sync replicas have. */
  readonly endOffset: number
  /** The oldest offset that retention has left. */
  readonly startOffset: number
  /** Where to go on: after the last batch, also when compaction has emptied it. Null when nothing came. */
  readonly nextOffset: number | null
  /** In the order of their offsets; may begin before the position that was asked for. */
  readonly messages: readonly FetchedMessage[]
}

export interface FetchLimits {
  /** How long the broker may wait for `minBytes` to gather. */
  readonly maxWaitMs: number
  readonly minBytes: number
  /** Of the answer, as the broker has the messages: compressed. One batch of a partition comes whatever its size. */
  readonly maxBytes: number
  /** Likewise, of each partition; 1 MiB when not given. */
  readonly partitionMaxBytes?: number
}

/** A partition has another leader than metadata said: it must be asked for again. */
const LEADER_MOVED: ReadonlySet<number> = new Set([
  5, // LEADER_NOT_AVAILABLE
  6, // NOT_LEADER_OR_FOLLOWER
  9, // REPLICA_NOT_AVAILABLE
  56, // KAFKA_STORAGE_ERROR
  74, // FENCED_LEADER_EPOCH
  75, // UNKNOWN_LEADER_EPOCH
])

const PARTITION_MAX_BYTES = 1 << 20

/**
 * Reads partitions at positions that the caller keeps. The client's own stream is not used: after a rebalance
 * a fetch in flight may overwrite the position it has just moved to.
 *
 * It is a client of its own, since long polls would stand before heartbeats and commits on the same connection.
 */
export class PartitionFetcher {
  readonly #requests: FetchRequests
  readonly #topics: readonly string[]
  #layouts: ReadonlyMap<string, TopicLayout> = new Map()
  #topicOf: ReadonlyMap<string, string> = new Map()
  /** Something has failed that other leaders may explain. */
  #isStale = false

  constructor(connection: KafkaConnection, clientId: string, topics: readonly string[], to = realBrokers()) {
    this.#topics = topics
    this.#requests = to.openFetcher(connection, clientId, topics)
  }

  /** Asks for ids, partition counts and leaders of the topics; must be called before anything else. */
  async connect(): Promise<ReadonlyMap<string, TopicMetadata>> {
    this.#layouts = (await this.#requests.metadata(this.#topics)).topics
    this.#isStale = false
    this.#topicOf = new Map([...this.#layouts].map(([name, topic]) => [topic.id, name]))
    return this.#layouts
  }

  /**
   * Asks for the leaders again after a failure. A topic that was deleted and made again keeps its old id here, so that reading
   * it fails until {@link connect} takes over the new one.
   */
  async #refreshLeaders(): Promise<void> {
    if (!this.#isStale) return
    const fresh = (await this.#requests.metadata(this.#topics)).topics
    this.#layouts = new Map(
      [...this.#layouts].map(([name, known]) => {
        const now = fresh.get(name)
        return [name, now?.id === known.id ? now : known]
      }),
    )
    this.#isStale = false
  }

  /** The broker that leads a partition, by node id, when last asked; null or negative when there is none. */
  leaderOf(topic: string, partition: number): number | null {
    return this.#layouts.get(topic)?.leaders[partition] ?? null
  }

  /**
   * The oldest (`start`) and the next (`end`) offset of every partition of these topics, all when not given.
   *
   * @throws while a partition of them has no leader
   */
  async offsetRanges(
    of: readonly string[] = this.#topics,
  ): Promise<Array<{ topic: string; partition: number; start: number; end: number }>> {
    await this.#refreshLeaders()
    const starts = await this.#requests.listOffsets(of, -2n)
    const ends = await this.#requests.listOffsets(of, -1n)
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
   * One fetch from one broker, for partitions that it leads.
   *
   * Errors of single partitions are in the answer; it rejects when the request as a whole failed.
   */
  async fetch(
    node: number,
    positions: readonly Position[],
    limits: FetchLimits,
  ): Promise<FetchedPartition[]> {
    // The caller has chosen this node by what was known then: the next call may find another.
    await this.#refreshLeaders()
    const topics = [...Map.groupBy(positions, (position) => position.topic)].map(([topic, inTopic]) => ({
      topicId: this.#layouts.get(topic)?.id ?? '',
      partitions: inTopic.map(({ partition, offset }) => ({
        partition,
        currentLeaderEpoch: -1,
        fetchOffset: BigInt(offset),
        lastFetchedEpoch: -1,
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
    const response = await this.#requests.fetch(options).catch((error: unknown) => {
      this.#isStale = true
      throw error
    })
    if (
      response.responses.some(({ partitions }) => partitions.some((one) => LEADER_MOVED.has(one.errorCode)))
    )
      this.#isStale = true
    return response.responses.flatMap(({ topicId, partitions }) => {
      const topic = this.#topicOf.get(topicId)
      if (topic === undefined) return []
      return partitions.map((part) => ({
        topic,
        partition: part.partitionIndex,
        error: part.errorCode === 0 ? null : errorName(part.errorCode),
        endOffset: Number(part.highWatermark),
        startOffset: Number(part.logStartOffset),
        nextOffset: offsetAfter(part.records?.at(-1)),
        messages: (part.records ?? []).flatMap(messagesOf),
      }))
    })
  }

  async close(): Promise<void> {
    await this.#requests.close()
  }
}

function messagesOf(batch: RecordsBatch | MessageBatch): readonly FetchedMessage[] {
  if ('messages' in batch) return batch.messages
  // Of a broker so old that the client has read its answer.
  const first = Number(batch.firstOffset)
  return batch.records.map(
    ({ offsetDelta, key, value, headers }) => new FetchedMessage(first + offsetDelta, key, headers, value),
  )
}

function offsetAfter(batch: { firstOffset: bigint; lastOffsetDelta: number } | undefined): number | null {
  return batch === undefined ? null : Number(batch.firstOffset) + batch.lastOffsetDelta + 1
}

function errorName(code: number): string {
  const names: Readonly<Record<string, string>> = protocolErrorsCodesById
  return names[code] ?? `error ${code}`
}
