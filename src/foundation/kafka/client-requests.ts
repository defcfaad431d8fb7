import {
  Base,
  type Connection,
  FetchIsolationLevels,
  type FetchOptions,
  initProducerIdV4,
  initProducerIdV5,
  listOffsetsV6,
  listOffsetsV7,
  listOffsetsV8,
  listOffsetsV9,
} from '@platformatic/kafka'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { usableApi } from './api-versions.ts'
import type {
  BrokerAddress,
  Brokers,
  FetchRequests,
  PartitionOffset,
  ProduceAnswer,
  ProduceRequests,
  ProducerId,
} from './broker-requests.ts'
import { clientOptions, closeClient, guardConnections, partialAnswer } from './client.ts'
import { CODEC } from './codec/codec.ts'
import type { FetchAnswer } from './codec/fetch-api.ts'
import { type PartitionBatch, PRODUCE_APIS } from './codec/produce-request.ts'
import type { KafkaConnection } from './connection.ts'
import type { TopicPartition } from './partition.ts'
import { type ClusterLayout, clusterLayout, METADATA_APIS } from './topic-metadata.ts'

/** Returns requests to real brokers, over the connections of the client. */
export function realBrokers(clock: Clock = systemClock()): Brokers {
  return {
    clock,
    random: Math.random,
    openProducer: (connection, clientId) => new ClientProduceRequests(connection, clientId),
    openFetcher: (connection, clientId) => new ClientFetchRequests(connection, clientId),
  }
}

/** Requests over the connections of one client. The callers retry; the client would keep each attempt's error. */
class ClientRequests {
  protected readonly client: Base
  protected isClosed = false
  readonly #bootstrap: readonly string[]
  #cluster: ClusterLayout = { topics: new Map(), brokers: new Map() }

  constructor(connection: KafkaConnection, clientId: string) {
    this.#bootstrap = connection.brokers
    this.client = guardConnections(new Base({ ...clientOptions(connection, clientId), retries: 0 }))
  }

  async metadata(topics: readonly string[]): Promise<ClusterLayout> {
    this.#cluster = await clusterLayout(this.client, this.#bootstrap, topics)
    return this.#cluster
  }

  async close(): Promise<void> {
    this.isClosed = true
    await closeClient(this.client)
  }

  protected async connectionTo(node: number): Promise<Connection> {
    const broker = this.#cluster.brokers.get(node)
    if (broker === undefined) throw new Error(`Broker ${node} is no longer in the cluster`)
    return this.client.connections.get(broker)
  }
}

class ClientProduceRequests extends ClientRequests implements ProduceRequests {
  async initProducerId(broker: BrokerAddress): Promise<ProducerId> {
    const connection = await this.client.connections.get(broker)
    const api = await usableApi(this.client, 'InitProducerId', INIT_PRODUCER_ID_APIS)
    return api.async(connection, null, 0)
  }

  async produce(
    broker: BrokerAddress,
    replicasMs: number,
    batches: readonly PartitionBatch[],
    isGivenUp?: () => boolean,
  ): Promise<ProduceAnswer> {
    const connection = await this.client.connections.get(broker)
    const api = await usableApi(this.client, 'Produce', PRODUCE_APIS)
    // The sender no longer waits for this connection, and may have sent the batches elsewhere.
    if (this.isClosed || isGivenUp?.()) throw new Error('The connection to the broker was closed')
    const response = await api
      .async(connection, replicasMs, batches)
      .catch((error: unknown) => partialAnswer(error, isProduceAnswer))
    if (typeof response === 'boolean') throw new Error('The request asked the broker for no answer')
    return response
  }
}

/** No fetch session (KIP-227): each request names all its partitions. */
const NO_SESSION = { id: 0, epoch: -1 }

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

/** Not a replica; any leader epoch is accepted. */
const NO_REPLICA = -1
const ANY_EPOCH = -1

/**
 * Fetches with the client's connections, but not with its `fetch`. That one retries without leader
 * epochs after a lost connection and after errors of a leader change, and would then read past a
 * truncation.
 */
class ClientFetchRequests extends ClientRequests implements FetchRequests {
  /** The fetcher drops these requests after a failure, so a rejected one is not kept. */
  #fetchApi: ReturnType<typeof usableApi<(typeof CODEC.fetchApis)[number]>> | undefined

  async offsets(
    node: number,
    partitions: readonly TopicPartition[],
    timestamp: bigint,
  ): Promise<PartitionOffset[]> {
    const connection = await this.connectionTo(node)
    const api = await usableApi(this.client, 'ListOffsets', LIST_OFFSETS_APIS)
    const topics = [...Map.groupBy(partitions, ({ topic }) => topic)].map(([name, inTopic]) => ({
      name,
      partitions: inTopic.map(({ partition }) => ({
        partitionIndex: partition,
        currentLeaderEpoch: ANY_EPOCH,
        timestamp,
      })),
    }))
    const answer = await api
      .async(connection, NO_REPLICA, FetchIsolationLevels.READ_UNCOMMITTED, topics)
      .catch((error: unknown) => partialAnswer(error, isOffsetsAnswer))
    return answer.topics.flatMap(({ name, partitions: named }) =>
      named.flatMap(({ partitionIndex, errorCode, offset }) =>
        errorCode === 0 ? [{ topic: name, partition: partitionIndex, offset: Number(offset) }] : [],
      ),
    )
  }

  async fetch({
    node,
    topics,
    maxWaitTime = 0,
    minBytes = 1,
    maxBytes = 1 << 20,
    isolationLevel = 0,
  }: FetchOptions<Buffer, Buffer, Buffer, Buffer>): Promise<FetchAnswer> {
    const connection = await this.connectionTo(node)
    this.#fetchApi ??= usableApi(this.client, 'Fetch', CODEC.fetchApis)
    const api = await this.#fetchApi
    const { id, epoch } = NO_SESSION
    return api
      .async(connection, maxWaitTime, minBytes, maxBytes, isolationLevel, id, epoch, topics, [], '')
      .catch((error: unknown) => partialAnswer(error, isFetchAnswer))
  }
}

function isProduceAnswer(value: unknown): value is ProduceAnswer {
  return typeof value === 'object' && value !== null && 'responses' in value
}

function isOffsetsAnswer(value: unknown): value is listOffsetsV9.ListOffsetsResponse {
  return typeof value === 'object' && value !== null && 'topics' in value
}

function isFetchAnswer(value: unknown): value is FetchAnswer {
  return (
    typeof value === 'object' &&
    value !== null &&
    'responses' in value &&
    Reflect.get(value, 'errorCode') === 0
  )
}
