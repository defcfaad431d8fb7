import { sleep } from '../runtime/backoff.ts'
import { isTapelineError } from '../runtime/errors.ts'
import { BrokerConnections, REQUEST_MS, realBrokers } from './broker-connections.ts'
import type { Brokers, FetchLimits, FetchRequests, PartitionOffset } from './broker-requests.ts'
import { type FetchedPartition, fetchedPartition } from './codec/fetch-api.ts'
import type { KafkaConnection } from './config.ts'
import { keyOf, type OffsetRange, type Position } from './partition.ts'
import type { TopicLayout, TopicMetadata } from './topic-metadata.ts'

/** Errors of a leader that has moved or does not know yet that it leads. */
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

/** Shorter, because another broker can answer as well. */
const METADATA_MS = 4000

/** Limit of {@link PartitionFetcher.ends}: the others must not wait long for a hanging broker. */
const ENDS_MS = 3000

/** Timestamps that request the oldest and the next offset. */
const [OLDEST, LATEST] = [-2n, -1n]

/** Attempts while leaders change. */
const READ_ATTEMPTS = 4
const READ_RETRY_MS = 250

const PARTITION_MAX_BYTES = 1 << 20

/**
 * Reads partitions at positions that the caller keeps. The client's stream is not used: after a
 * rebalance, a running fetch may overwrite the position that it has just moved to. It is a separate
 * client, because long polls would delay heartbeats and commits on the same connection.
 *
 * Each fetch names the leader epoch of metadata, so a broker that no longer leads refuses it. It
 * also names the epoch of the position, so the leader reports where its log differs from what was
 * read (KIP-320, KIP-595). After a failure the leaders are requested again.
 */
export class PartitionFetcher {
  readonly #connections: BrokerConnections<FetchRequests>
  readonly #topics: readonly string[]
  readonly #mayLack: ReadonlySet<string> | undefined
  readonly #to: Brokers
  /** How many bootstrap brokers there are. */
  readonly #bootstraps: number
  #layouts: ReadonlyMap<string, TopicLayout> = new Map()
  #topicOf: ReadonlyMap<string, string> = new Map()
  /** Whether a failure occurred that a change of leaders may explain. */
  #isStale = false

  /** @param mayLack those of the topics that need not exist; read at each request */
  constructor(
    connection: KafkaConnection,
    clientId: string,
    topics: readonly string[],
    to = realBrokers(),
    mayLack?: ReadonlySet<string>,
  ) {
    this.#connections = new BrokerConnections(to.clock, connection, (at) => to.openFetcher(at, clientId))
    this.#topics = topics
    this.#mayLack = mayLack
    this.#to = to
    this.#bootstraps = connection.brokers.length
  }

  /** Requests ids, partition counts and leaders of the topics. Call it before anything else. */
  async connect(): Promise<ReadonlyMap<string, TopicMetadata>> {
    this.#layouts = await this.#metadata()
    this.#isStale = false
    this.#topicOf = new Map([...this.#layouts].map(([name, topic]) => [topic.id, name]))
    return this.#layouts
  }

  /** Requests the leaders again. A recreated topic keeps its old id until {@link connect}. */
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
    for (let left = this.#bootstraps; ; left--) {
      try {
        const ask = (requests: FetchRequests) => requests.metadata(this.#topics, this.#mayLack)
        return (await this.#ask(ask, METADATA_MS)).topics
      } catch (error) {
        // A missing topic.
        if (left <= 1 || isTapelineError(error)) throw error
      }
    }
  }

  /** Returns the node id of a leader, as last reported; null or negative without one. */
  leaderOf(topic: string, partition: number): number | null {
    return this.#layouts.get(topic)?.leaders[partition] ?? null
  }

  /** Returns the offsets of every partition of these topics. @throws if one has no leader */
  async offsetRanges(of: readonly string[] = this.#topics): Promise<OffsetRange[]> {
    for (let left = READ_ATTEMPTS; ; left--) {
      await this.#refreshLeaders()
      const partitions = partitionsOf(this.#layouts, of)
      const ask = async (timestamp: bigint) => {
        const answers = [...Map.groupBy(partitions, ({ leader }) => leader)].map(([leader, led]) =>
          leader < 0 ? [] : this.#ask((requests) => requests.offsets(leader, led, timestamp)),
        )
        return new Map((await Promise.all(answers)).flat().map((one) => [keyOf(one), one.offset]))
      }
      const [starts, ends] = [await ask(OLDEST), await ask(LATEST)]
      const ranges = partitions.flatMap(({ topic, partition }) => {
        const [start, end] = [starts, ends].map((offsets) => offsets.get(keyOf({ topic, partition })))
        return start === undefined || end === undefined ? [] : [{ topic, partition, start, end }]
      })
      if (ranges.length === partitions.length) return ranges
      this.#isStale = true
      if (left <= 1) throw new Error(`A partition of ${of.join(', ')} has no leader`)
      await this.#pause()
    }
  }

  /** Returns the ends of partitions whose leaders answer within 3 s. @throws if no broker answers */
  async ends(): Promise<Array<PartitionOffset & { readonly topicId: string }>> {
    const layouts = await this.connect()
    const led = partitionsOf(this.#layouts, this.#topics).filter(({ leader }) => leader >= 0)
    const answers = await Promise.allSettled(
      [...Map.groupBy(led, ({ leader }) => leader)].map(([leader, partitions]) =>
        this.#ask((requests) => requests.offsets(leader, partitions, LATEST), ENDS_MS),
      ),
    )
    return answers.flatMap((answer) =>
      answer.status === 'rejected'
        ? []
        : answer.value.map((one) => ({ ...one, topicId: layouts.get(one.topic)?.id ?? '' })),
    )
  }

  /** Fetches once from one broker. Errors of partitions are in the answer; rejects if all of it failed. */
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
    const limitMs = limits.maxWaitMs + REQUEST_MS
    const response = await this.#ask((requests) => requests.fetch(node, topics, limits), limitMs)
    return response.responses.flatMap(({ topicId, partitions }) => {
      const topic = this.#topicOf.get(topicId)
      if (topic === undefined) return []
      return partitions.map((part) => this.#noted(fetchedPartition(topic, topicId, part)))
    })
  }

  /**
   * Fetches from the leader of one partition, and retries for a second while the leader changes.
   * @throws for an error of the partition other than `OFFSET_OUT_OF_RANGE`
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
        if (left <= 1 || isTapelineError(error)) throw error
        await this.#pause()
      }
    }
  }

  close(): Promise<void> {
    return this.#connections.close(new Error('The reader was closed'))
  }

  #noted(fetched: FetchedPartition): FetchedPartition {
    if (fetched.error !== null && LEADER_MOVED.has(fetched.error)) this.#isStale = true
    return fetched
  }

  #pause(): Promise<void> {
    return sleep(READ_RETRY_MS, this.#connections.closing, this.#to.clock)
  }

  #ask<Result>(request: (requests: FetchRequests) => Promise<Result>, limitMs?: number): Promise<Result> {
    return this.#connections.askOrReconnect(request, limitMs).catch((error: unknown) => {
      this.#isStale = true
      throw error
    })
  }
}

function partitionsOf(layouts: ReadonlyMap<string, TopicLayout>, topics: readonly string[]) {
  return topics.flatMap((topic) =>
    (layouts.get(topic)?.leaders ?? []).map((leader, partition) => ({ topic, partition, leader })),
  )
}
