import { Base, type FetchOptions, initProducerIdV4 } from '@platformatic/kafka'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { TapelineError } from '../runtime/errors.ts'
import { withinLimit } from '../runtime/limit.ts'
import type {
  BrokerAddress,
  Brokers,
  FetchAnswer,
  FetchRequests,
  ProduceAnswer,
  ProduceRequests,
  ProducerId,
} from './broker-requests.ts'
import { answersWithin, clientOptions, closeClient, guardConnections } from './client.ts'
import { FetchingConsumer } from './codec/fetch-api.ts'
import { type PartitionBatch, PRODUCE_APIS, type ProduceApi } from './codec/produce-request.ts'
import type { KafkaConnection } from './connection.ts'
import { type ClusterLayout, clusterLayout } from './topic-metadata.ts'

/** The version of Fetch that names topics by id (KIP-516). */
const FETCH_BY_ID = 13

/**
 * How long a reader's request may take with the client's retries, a fetch beyond its own wait. The client alone would give a
 * broker that hangs four times 30 s.
 */
const READ_LIMIT_MS = 30_000
const FETCH_LIMIT_MS = 15_000

/** Real brokers, over the connections of the client. */
export function realBrokers(clock: Clock = systemClock()): Brokers {
  return {
    clock,
    random: Math.random,
    openProducer: (connection, clientId) => new ClientProduceRequests(connection, clientId),
    openFetcher: (connection, clientId, topics) => new ClientFetchRequests(connection, clientId, topics),
  }
}

class ClientProduceRequests implements ProduceRequests {
  readonly #client: Base
  #produce: ProduceApi | null = null
  #isClosed = false

  constructor(connection: KafkaConnection, clientId: string) {
    // The sender repeats an attempt; the client would keep the error of each.
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
  ): Promise<ProduceAnswer> {
    const connection = await this.#client.connections.get(broker)
    this.#produce ??= await this.#produceApi()
    // The sender has stopped waiting for the connection, and may have repeated the batches elsewhere.
    if (this.#isClosed) throw new Error('The connection to the broker was closed')
    const response = await this.#produce.async(connection, replicasMs, batches).catch((error: unknown) => {
      // The client makes an error of an answer in which one partition is refused.
      const answer = answersWithin(error).findLast(isProduceAnswer)
      if (answer === undefined) throw error
      return answer
    })
    if (typeof response === 'boolean') throw new Error('The broker was asked for no answer')
    return response
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#client.close()
  }

  async #produceApi(): Promise<ProduceApi> {
    const range = (await this.#client.listApis()).find(({ name }) => name === 'Produce')
    const api = PRODUCE_APIS.find(
      ({ version }) => range !== undefined && version >= range.minVersion && version <= range.maxVersion,
    )
    if (api === undefined) {
      throw new TapelineError(
        'KAFKA',
        `These brokers take Produce in versions ${range?.minVersion} to ${range?.maxVersion}; 9 to 11 are known here`,
        { fix: 'Use a version of Kafka that docs/support.md names.' },
      )
    }
    return api
  }
}

class ClientFetchRequests implements FetchRequests {
  readonly #client: FetchingConsumer
  readonly #topics: readonly string[]
  #isTracking: boolean | null = null

  constructor(connection: KafkaConnection, clientId: string, topics: readonly string[]) {
    this.#topics = topics
    const client = new FetchingConsumer({
      ...clientOptions(connection, clientId),
      // Never joins a group; the client demands a name all the same.
      groupId: `${clientId}-unused`,
      groupProtocol: 'classic',
      autocommit: false,
      // A partition that has just been created, or is changing its leader, answers a moment later.
      retries: 3,
      retryDelay: 250,
    })
    this.#client = guardConnections(client)
  }

  async metadata(topics: readonly string[]): Promise<ClusterLayout> {
    const asking = this.#trackWhereNeeded().then(() => clusterLayout(this.#client, topics))
    return withinLimit(asking, READ_LIMIT_MS, 'Kafka has not named the leaders')
  }

  listOffsets(topics: readonly string[], timestamp: bigint): Promise<Map<string, bigint[]>> {
    const asking = this.#client.listOffsets({ topics: [...topics], timestamp })
    return withinLimit(asking, READ_LIMIT_MS, 'Kafka has not named its offsets')
  }

  async fetch(options: FetchOptions<Buffer, Buffer, Buffer, Buffer>): Promise<FetchAnswer> {
    const fetching = withinLimit(
      this.#client.fetch(options),
      (options.maxWaitTime ?? 0) + FETCH_LIMIT_MS,
      `Broker ${options.node} has not answered a fetch`,
    )
    return fetching.catch((error: unknown) => {
      const partial = answersWithin(error).findLast(isFetchAnswer)
      if (partial?.errorCode === 0) return partial
      throw error
    })
  }

  async close(): Promise<void> {
    await closeClient(this.#client, () => this.#client.close(true))
  }

  /**
   * With each fetch the client asks for the topics it tracks, and fails when one partition of them has no leader. Only
   * brokers that are asked by name (before Kafka 3.1) need that.
   */
  async #trackWhereNeeded(): Promise<void> {
    if (this.#isTracking !== null) return
    const apis = await this.#client.listApis()
    this.#isTracking = !apis.some(({ name, maxVersion }) => name === 'Fetch' && maxVersion >= FETCH_BY_ID)
    if (this.#isTracking) for (const topic of this.#topics) this.#client.topics.track(topic)
  }
}

function isProduceAnswer(value: unknown): value is ProduceAnswer {
  return typeof value === 'object' && value !== null && 'responses' in value
}

function isFetchAnswer(value: unknown): value is FetchAnswer {
  return typeof value === 'object' && value !== null && 'responses' in value && 'errorCode' in value
}
