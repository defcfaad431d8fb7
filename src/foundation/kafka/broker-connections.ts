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
} from '@platformatic/kafka'
import { type Clock, systemClock } from '../runtime/clock.ts'
import type {
  BrokerAddress,
  Brokers,
  FetchLimits,
  FetchRequests,
  PartitionOffset,
  ProduceAnswer,
  ProduceRequests,
  ProducerId,
} from './broker-requests.ts'
import { clientOptions, closeClient, guardConnections, partialAnswer, usableApi } from './client.ts'
import { CODEC } from './codec/codec.ts'
import type { FetchAnswer } from './codec/fetch-api.ts'
import { type PartitionBatch, PRODUCE_APIS } from './codec/produce-request.ts'
import type { KafkaConnection } from './config.ts'
import type { TopicPartition } from './partition.ts'
import { type ClusterLayout, clusterLayout, METADATA_APIS } from './topic-metadata.ts'

/** A broker that does not answer within this time hangs. */
export const REQUEST_MS = 8000

const CLOSE_MS = 1000

type Reject = (reason: Error) => void

/**
 * The connections of a producer or reader. Every request has a limit. After a failure, the next
 * request uses new connections, which begin with another bootstrap broker, since one may hang.
 * Running requests keep theirs: a broker that fails must not interrupt the others.
 */
export class BrokerConnections<Requests extends { close(): Promise<void> }> {
  readonly #clock: Clock
  readonly #connection: KafkaConnection
  readonly #open: (connection: KafkaConnection) => Requests
  /** Running requests of current and former connections, each by what rejects it. */
  readonly #running = new Map<Requests, Set<Reject>>()
  #current: Requests
  #connects = 0
  readonly #closing = new AbortController()

  constructor(clock: Clock, connection: KafkaConnection, open: (connection: KafkaConnection) => Requests) {
    this.#clock = clock
    this.#connection = connection
    this.#open = open
    this.#current = open(connection)
  }

  /** Aborts when this is closed. */
  get closing(): AbortSignal {
    return this.#closing.signal
  }

  /** How often {@link reconnect} had an effect. */
  get connects(): number {
    return this.#connects
  }

  /**
   * Drops the connections.
   * @param failed the value of {@link connects} when the failed request was sent: others may have
   *   reconnected since
   */
  reconnect(failed: number): void {
    if (this.closing.aborted || failed !== this.#connects) return
    const left = this.#current
    const { brokers } = this.#connection
    const first = ++this.#connects % Math.max(1, brokers.length)
    const rotated = [...brokers.slice(first), ...brokers.slice(0, first)]
    this.#current = this.#open({ ...this.#connection, brokers: rotated })
    if (!this.#running.has(left)) void this.#closeWithin(left)
  }

  /**
   * Returns the outcome of a request; rejects after the limit or when this is closed.
   * @param checkLate called after each {@link REQUEST_MS} before the limit; an error ends the wait
   */
  async ask<Result>(
    request: (requests: Requests) => Promise<Result>,
    limitMs = REQUEST_MS,
    checkLate?: () => Promise<Error | undefined>,
  ): Promise<Result> {
    this.closing.throwIfAborted()
    const requests = this.#current
    const running = this.#running.get(requests) ?? new Set()
    const { promise: ended, reject } = Promise.withResolvers<never>()
    this.#running.set(requests, running.add(reject))
    let cancel = () => {}
    const wait = (leftMs: number) => {
      cancel = this.#clock.schedule(Math.min(leftMs, REQUEST_MS), () => {
        if (leftMs <= REQUEST_MS) return reject(new LateAnswer(limitMs))
        void checkLate?.().then((why) => why && reject(why))
        wait(leftMs - REQUEST_MS)
      })
    }
    wait(limitMs)
    try {
      return await Promise.race([request(requests), ended])
    } finally {
      cancel()
      running.delete(reject)
      if (running.size === 0) {
        this.#running.delete(requests)
        if (requests !== this.#current && !this.closing.aborted) void this.#closeWithin(requests)
      }
    }
  }

  /** Like {@link ask}; a request that fails drops the connections. */
  async askOrReconnect<Result>(
    request: (requests: Requests) => Promise<Result>,
    limitMs?: number,
  ): Promise<Result> {
    const connects = this.#connects
    return this.ask(request, limitMs).catch((error: unknown) => {
      this.reconnect(connects)
      throw error
    })
  }

  /** Rejects the running requests with the reason. */
  async close(reason: Error): Promise<void> {
    this.#closing.abort(reason)
    const open = new Set([this.#current, ...this.#running.keys()])
    for (const running of this.#running.values()) for (const reject of running) reject(reason)
    await Promise.all([...open].map((requests) => this.#closeWithin(requests)))
  }

  /** Closes within a limit: a connection may never report that it is closed. */
  async #closeWithin(requests: Requests): Promise<void> {
    const late = new Promise<void>((resolve) => this.#clock.schedule(CLOSE_MS, resolve))
    // Errors while closing do not matter.
    await Promise.race([requests.close().catch(() => {}), late])
  }
}

/** No answer within the limit of a request. */
export class LateAnswer extends Error {
  /** As Node's errors of a connection have: it marks the error as one that a retry may fix. */
  readonly code = 'ETIMEDOUT'

  constructor(limitMs: number) {
    super(`Kafka has not answered within ${limitMs / 1000} s`)
  }
}

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

  async metadata(topics: readonly string[], mayLack?: ReadonlySet<string>): Promise<ClusterLayout> {
    this.#cluster = await clusterLayout(this.#client, this.#bootstrap, topics, mayLack)
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
