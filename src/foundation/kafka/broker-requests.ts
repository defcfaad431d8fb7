import {
  Base,
  type Connection,
  FetchIsolationLevels,
  type fetchV17,
  initProducerIdV4,
  initProducerIdV5,
  listOffsetsV6,
  listOffsetsV7,
  listOffsetsV8,
  listOffsetsV9,
  type produceV11,
} from '@platformatic/kafka'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { clientOptions, closeClient, guardConnections, partialAnswer, usableApi } from './client.ts'
import { CODEC } from './codec/codec.ts'
import type { FetchAnswer } from './codec/fetch-api.ts'
import { type PartitionBatch, PRODUCE_APIS } from './codec/produce-request.ts'
import type { KafkaConnection } from './config.ts'
import type { TopicPartition } from './partition.ts'
import { type ClusterLayout, clusterLayout, METADATA_APIS } from './topic-metadata.ts'

/** The address of a broker. */
export interface BrokerAddress {
  readonly host: string
  readonly port: number
}

/** The id of an idempotent producer, assigned by the brokers. */
export interface ProducerId {
  readonly producerId: bigint
  readonly producerEpoch: number
}

export type ProduceAnswer = produceV11.ProduceResponse

interface MetadataRequests {
  /** Asks a bootstrap broker. All topics must exist; see `clusterLayout`. */
  metadata(topics: readonly string[]): Promise<ClusterLayout>
  /** Closes the connections. Running requests reject or never settle. */
  close(): Promise<void>
}

/**
 * The requests of a producer. Each is sent once, without a time limit; an answer has a result per
 * partition.
 */
export interface ProduceRequests extends MetadataRequests {
  initProducerId(broker: BrokerAddress): Promise<ProducerId>
  /**
   * @param replicasMs how long the broker may wait for its replicas
   * @param isGivenUp checked before the batches are sent: they may have been retried elsewhere
   */
  produce(
    broker: BrokerAddress,
    replicasMs: number,
    batches: readonly PartitionBatch[],
    isGivenUp?: () => boolean,
  ): Promise<ProduceAnswer>
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

export interface PartitionOffset extends TopicPartition {
  readonly offset: number
}

/**
 * The requests of a reader. An answer to Fetch has a result per partition; it rejects if the whole
 * request failed.
 */
export interface FetchRequests extends MetadataRequests {
  /**
   * Asks one broker for offsets of partitions that it leads.
   *
   * @param timestamp −2: the oldest offset; −1: the one after the last message that all in-sync
   *   replicas have
   * @returns those that it names
   */
  offsets(node: number, partitions: readonly TopicPartition[], timestamp: bigint): Promise<PartitionOffset[]>
  fetch(node: number, topics: fetchV17.FetchRequestTopic[], limits: FetchLimits): Promise<FetchAnswer>
}

/**
 * Everything below `RecordSender` and `PartitionFetcher`: requests to brokers, time and randomness.
 * A simulation has an in-memory cluster.
 */
export interface Brokers {
  readonly clock: Clock
  /** A number in [0, 1). */
  readonly random: () => number
  /** @param clientId shown in the broker's logs and metrics */
  openProducer(connection: KafkaConnection, clientId: string): ProduceRequests
  openFetcher(connection: KafkaConnection, clientId: string): FetchRequests
}

/** Returns requests to real brokers. */
export function realBrokers(clock: Clock = systemClock()): Brokers {
  return {
    clock,
    random: Math.random,
    openProducer: (connection, clientId) => new ClientRequests(connection, clientId),
    openFetcher: (connection, clientId) => new ClientRequests(connection, clientId),
  }
}

const LIST_OFFSETS_APIS = [listOffsetsV9, listOffsetsV8, listOffsetsV7, listOffsetsV6].map(({ api }) => api)
const INIT_PRODUCER_ID_APIS = [initProducerIdV5, initProducerIdV4].map(({ api }) => api)

/** Requests that are sent without the client's choice of a version; versions newest first. */
export const REQUESTS: Readonly<Record<string, ReadonlyArray<{ readonly version: number }>>> = {
  Metadata: METADATA_APIS,
  Produce: PRODUCE_APIS,
  Fetch: CODEC.fetchApis,
  ListOffsets: LIST_OFFSETS_APIS,
  InitProducerId: INIT_PRODUCER_ID_APIS,
}

/** No fetch session (KIP-227): each request names all its partitions. */
const NO_SESSION = { id: 0, epoch: -1 }

/** Nothing is produced in transactions. */
const UNCOMMITTED = FetchIsolationLevels.READ_UNCOMMITTED

/** Not a replica; any leader epoch is accepted. */
const NO_REPLICA = -1
const ANY_EPOCH = -1

/**
 * Requests over the connections of one client, but not with its methods. The callers retry; the
 * client would keep each attempt's error. Its `fetch` retries without leader epochs after a lost
 * connection and after errors of a leader change, and would then read past a truncation.
 */
class ClientRequests implements ProduceRequests, FetchRequests {
  readonly #client: Base
  readonly #bootstrap: readonly string[]
  #isClosed = false
  #cluster: ClusterLayout = { topics: new Map(), brokers: new Map() }
  /** These requests are dropped after a failure, so a rejected one is not kept. */
  #fetchApi: ReturnType<typeof usableApi<(typeof CODEC.fetchApis)[number]>> | undefined

  constructor(connection: KafkaConnection, clientId: string) {
    this.#bootstrap = connection.brokers
    this.#client = guardConnections(new Base({ ...clientOptions(connection, clientId), retries: 0 }))
  }

  async metadata(topics: readonly string[]): Promise<ClusterLayout> {
    this.#cluster = await clusterLayout(this.#client, this.#bootstrap, topics)
    return this.#cluster
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await closeClient(this.#client)
  }

  async initProducerId(broker: BrokerAddress): Promise<ProducerId> {
    const connection = await this.#client.connections.get(broker)
    const api = await usableApi(this.#client, 'InitProducerId', INIT_PRODUCER_ID_APIS)
    return api.async(connection, null, 0)
  }

  async produce(
    broker: BrokerAddress,
    replicasMs: number,
    batches: readonly PartitionBatch[],
    isGivenUp?: () => boolean,
  ): Promise<ProduceAnswer> {
    const connection = await this.#client.connections.get(broker)
    const api = await usableApi(this.#client, 'Produce', PRODUCE_APIS)
    // The sender no longer waits for this connection, and may have sent the batches elsewhere.
    if (this.#isClosed || isGivenUp?.()) throw new Error('The connection to the broker was closed')
    const response = await api
      .async(connection, replicasMs, batches)
      .catch((error: unknown) => partialAnswer(error, isProduceAnswer))
    if (typeof response === 'boolean') throw new Error('The request asked the broker for no answer')
    return response
  }

  async offsets(
    node: number,
    partitions: readonly TopicPartition[],
    timestamp: bigint,
  ): Promise<PartitionOffset[]> {
    const connection = await this.#connectionTo(node)
    const api = await usableApi(this.#client, 'ListOffsets', LIST_OFFSETS_APIS)
    const topics = [...Map.groupBy(partitions, ({ topic }) => topic)].map(([name, inTopic]) => ({
      name,
      partitions: inTopic.map(({ partition }) => ({
        partitionIndex: partition,
        currentLeaderEpoch: ANY_EPOCH,
        timestamp,
      })),
    }))
    const answer = await api
      .async(connection, NO_REPLICA, UNCOMMITTED, topics)
      .catch((error: unknown) => partialAnswer(error, isOffsetsAnswer))
    return answer.topics.flatMap(({ name, partitions: named }) =>
      named.flatMap(({ partitionIndex, errorCode, offset }) =>
        errorCode === 0 ? [{ topic: name, partition: partitionIndex, offset: Number(offset) }] : [],
      ),
    )
  }

  async fetch(
    node: number,
    topics: fetchV17.FetchRequestTopic[],
    { maxWaitMs, minBytes, maxBytes }: FetchLimits,
  ): Promise<FetchAnswer> {
    const connection = await this.#connectionTo(node)
    this.#fetchApi ??= usableApi(this.#client, 'Fetch', CODEC.fetchApis)
    const api = await this.#fetchApi
    const { id, epoch } = NO_SESSION
    return api
      .async(connection, maxWaitMs, minBytes, maxBytes, UNCOMMITTED, id, epoch, topics, [], '')
      .catch((error: unknown) => partialAnswer(error, isFetchAnswer))
  }

  #connectionTo(node: number): Promise<Connection> {
    const broker = this.#cluster.brokers.get(node)
    if (broker === undefined) return Promise.reject(new Error(`Broker ${node} is no longer in the cluster`))
    return this.#client.connections.get(broker)
  }
}

function has(value: unknown, name: string): value is object {
  return typeof value === 'object' && value !== null && name in value
}

function isProduceAnswer(value: unknown): value is ProduceAnswer {
  return has(value, 'responses')
}

function isOffsetsAnswer(value: unknown): value is listOffsetsV9.ListOffsetsResponse {
  return has(value, 'topics')
}

function isFetchAnswer(value: unknown): value is FetchAnswer {
  return has(value, 'responses') && Reflect.get(value, 'errorCode') === 0
}
