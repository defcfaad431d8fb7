import {
  Base,
  Consumer,
  FetchIsolationLevels,
  type FetchOptions,
  initProducerIdV4,
  listOffsetsV6,
  listOffsetsV7,
  listOffsetsV8,
  listOffsetsV9,
} from '@platformatic/kafka'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { TapelineError } from '../runtime/errors.ts'
import type {
  BrokerAddress,
  Brokers,
  FetchAnswer,
  FetchRequests,
  PartitionEnd,
  ProduceAnswer,
  ProduceRequests,
  ProducerId,
} from './broker-requests.ts'
import { answersWithin, clientOptions, closeClient, guardConnections } from './client.ts'
import { FETCH_APIS, type FetchApi, namesTopics } from './codec/fetch-api.ts'
import { type PartitionBatch, PRODUCE_APIS, type ProduceApi } from './codec/produce-request.ts'
import type { KafkaConnection } from './connection.ts'
import { type ClusterLayout, clusterLayout } from './topic-metadata.ts'

/** Returns requests to real brokers, over the connections of the client. */
export function realBrokers(clock: Clock = systemClock()): Brokers {
  return {
    clock,
    random: Math.random,
    openProducer: (connection, clientId) => new ClientProduceRequests(connection, clientId),
    openFetcher: (connection, clientId) => new ClientFetchRequests(connection, clientId),
  }
}

class ClientProduceRequests implements ProduceRequests {
  readonly #client: Base
  #produce: ProduceApi | null = null
  #isClosed = false

  constructor(connection: KafkaConnection, clientId: string) {
    // The sender retries; the client would keep the error of each attempt.
    this.#client = guardConnections(new Base({ ...clientOptions(connection, clientId), retries: 0 }))
  }

  metadata(topics: readonly string[]): Promise<ClusterLayout> {
    return clusterLayout(this.#client, topics)
  }

  async initProducerId(broker: BrokerAddress): Promise<ProducerId> {
    const connection = await this.#client.connections.get(broker)
    return initProducerIdV4.api.async(connection, null, 0)
  }

  async produce(
    broker: BrokerAddress,
    replicasMs: number,
    batches: readonly PartitionBatch[],
    isGivenUp?: () => boolean,
  ): Promise<ProduceAnswer> {
    const connection = await this.#client.connections.get(broker)
    this.#produce ??= await usableApi(this.#client, 'Produce', PRODUCE_APIS)
    // The sender no longer waits for this connection, and may have sent the batches elsewhere.
    if (this.#isClosed || isGivenUp?.()) throw new Error('The connection to the broker was closed')
    const response = await this.#produce.async(connection, replicasMs, batches).catch((error: unknown) => {
      // The client throws an answer in which one partition is refused.
      const answer = answersWithin(error).findLast(isProduceAnswer)
      if (answer === undefined) throw error
      return answer
    })
    if (typeof response === 'boolean') throw new Error('The request asked the broker for no answer')
    return response
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#client.close()
  }
}

/** No fetch session (KIP-227): each request names all its partitions. */
const NO_SESSION = { id: 0, epoch: -1 }

/** Newest first; version 6 is as old as the oldest of {@link FETCH_APIS}. */
const LIST_OFFSETS_APIS = [listOffsetsV9, listOffsetsV8, listOffsetsV7, listOffsetsV6].map(({ api }) => api)

/** Not a replica; any leader epoch is accepted. */
const NO_REPLICA = -1
const ANY_EPOCH = -1
/** The timestamp that requests the end of a partition. */
const LATEST = -1n

/**
 * Fetches with the client's codec and connections, but not with its `fetch`. That one retries
 * without leader epochs after a lost connection and after errors of a leader change, and would then
 * read past a truncation.
 */
class ClientFetchRequests implements FetchRequests {
  readonly #client: Consumer<Buffer, Buffer, Buffer, Buffer>
  #cluster: ClusterLayout = { topics: new Map(), brokers: new Map() }
  #api: FetchApi | null = null
  #listOffsets: (typeof LIST_OFFSETS_APIS)[number] | null = null

  constructor(connection: KafkaConnection, clientId: string) {
    const client = new Consumer<Buffer, Buffer, Buffer, Buffer>({
      ...clientOptions(connection, clientId),
      // Never joins a group, but the client requires a name.
      groupId: `${clientId}-unused`,
      groupProtocol: 'classic',
      autocommit: false,
      // A partition that was just created, or is changing its leader, answers a moment later.
      retries: 3,
      retryDelay: 250,
    })
    this.#client = guardConnections(client)
  }

  async metadata(topics: readonly string[]): Promise<ClusterLayout> {
    this.#cluster = await clusterLayout(this.#client, topics)
    return this.#cluster
  }

  listOffsets(topics: readonly string[], timestamp: bigint): Promise<Map<string, bigint[]>> {
    return this.#client.listOffsets({ topics: [...topics], timestamp })
  }

  async endOffsets(
    node: number,
    partitions: ReadonlyArray<{ readonly topic: string; readonly partition: number }>,
  ): Promise<PartitionEnd[]> {
    const connection = await this.#connectionTo(node)
    this.#listOffsets ??= await usableApi(this.#client, 'ListOffsets', LIST_OFFSETS_APIS)
    const topics = [...Map.groupBy(partitions, ({ topic }) => topic)].map(([name, inTopic]) => ({
      name,
      partitions: inTopic.map(({ partition }) => ({
        partitionIndex: partition,
        currentLeaderEpoch: ANY_EPOCH,
        timestamp: LATEST,
      })),
    }))
    const answer = await this.#listOffsets
      .async(connection, NO_REPLICA, FetchIsolationLevels.READ_UNCOMMITTED, topics)
      .catch((error: unknown) => {
        // The client throws an answer in which one partition has an error.
        const partial = answersWithin(error).findLast(isOffsetsAnswer)
        if (partial === undefined) throw error
        return partial
      })
    return answer.topics.flatMap(({ name, partitions: named }) =>
      named.flatMap(({ partitionIndex, errorCode, offset }) =>
        errorCode === 0 ? [{ topic: name, partition: partitionIndex, end: Number(offset) }] : [],
      ),
    )
  }

  async #connectionTo(node: number) {
    const broker = this.#cluster.brokers.get(node)
    if (broker === undefined) throw new Error(`Broker ${node} is no longer in the cluster`)
    return this.#client.connections.get(broker)
  }

  async fetch({
    node,
    topics,
    maxWaitTime = 0,
    minBytes = 1,
    maxBytes = 1 << 20,
    isolationLevel = 0,
  }: FetchOptions<Buffer, Buffer, Buffer, Buffer>): Promise<FetchAnswer> {
    const connection = await this.#connectionTo(node)
    this.#api ??= await usableApi(this.#client, 'Fetch', FETCH_APIS)
    const { id, epoch } = NO_SESSION
    const names = namesTopics(this.#api)
      ? new Map([...this.#cluster.topics].map(([name, topic]) => [topic.id, name]))
      : null
    const wanted = names === null ? topics : topics.map((one) => rename(one, names))
    const answer: FetchAnswer = await this.#api
      .async(connection, maxWaitTime, minBytes, maxBytes, isolationLevel, id, epoch, wanted, [], '')
      .catch((error: unknown) => {
        const partial = answersWithin(error).findLast(isFetchAnswer)
        if (partial?.errorCode === 0) return partial
        throw error
      })
    if (names === null) return answer
    const ids = new Map([...names].map(([topicId, name]) => [name, topicId]))
    return { ...answer, responses: answer.responses.map((one) => rename(one, ids)) }
  }

  async close(): Promise<void> {
    await closeClient(this.#client, () => this.#client.close(true))
  }
}

function rename<Topic extends { readonly topicId: string }>(
  topic: Topic,
  names: ReadonlyMap<string, string>,
): Topic {
  return { ...topic, topicId: names.get(topic.topicId) ?? topic.topicId }
}

/**
 * Returns the newest of the versions that the brokers support. @throws TapelineError `KAFKA` if
 * none
 */
async function usableApi<Api extends { readonly version: number }>(
  client: Base,
  request: string,
  versions: readonly Api[],
): Promise<Api> {
  const range = (await client.listApis()).find(({ name }) => name === request)
  const api = versions.find(
    ({ version }) => range !== undefined && version >= range.minVersion && version <= range.maxVersion,
  )
  if (api !== undefined) return api
  throw new TapelineError(
    'KAFKA',
    `These brokers support ${request} in versions ${range?.minVersion} to ${range?.maxVersion}; ` +
      `${versions.at(-1)?.version} to ${versions[0]?.version} are supported here`,
    { fix: 'Use a version of Kafka that docs/support.md names.' },
  )
}

function isProduceAnswer(value: unknown): value is ProduceAnswer {
  return typeof value === 'object' && value !== null && 'responses' in value
}

function isOffsetsAnswer(value: unknown): value is listOffsetsV9.ListOffsetsResponse {
  return typeof value === 'object' && value !== null && 'topics' in value
}

function isFetchAnswer(value: unknown): value is FetchAnswer {
  return typeof value === 'object' && value !== null && 'responses' in value && 'errorCode' in value
}
