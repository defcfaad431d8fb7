import { Base, initProducerIdV4, type produceV11 } from '@platformatic/kafka'
import { sleep, unlessAborted } from '../runtime/backoff.ts'
import { TapelineError } from '../runtime/errors.ts'
import { answersWithin, clientOptions, guardConnections } from './client.ts'
import { type PartitionBatch, PRODUCE_APIS, type ProduceApi } from './codec/produce-request.ts'
import type { KafkaConnection } from './connection.ts'
import { type ClusterLayout, clusterLayout, type TopicLayout, type TopicMetadata } from './topic-metadata.ts'

/** Where a broker listens. */
export interface BrokerAddress {
  readonly host: string
  readonly port: number
}

/** An idempotent producer, as the brokers number it. */
export interface ProducerId {
  readonly producerId: bigint
  readonly producerEpoch: number
}

/** A broker that has not answered by then hangs. */
export const REQUEST_MS = 8000

const CLOSE_MS = 1000

/**
 * The requests of a producer to single brokers, over the client's connections. Each is made once. It rejects after a limit or
 * when `closing` aborts. `RecordSender` repeats it.
 */
export class ProduceConnection {
  readonly #connection: KafkaConnection
  readonly #clientId: string
  readonly #closing: AbortSignal
  /** Topics and their leaders, as far as they were asked for since the last failure. */
  readonly #layouts = new Map<string, TopicLayout>()
  #brokers: ClusterLayout['brokers'] = new Map()
  #client: Base
  #clients = 0
  #produce: ProduceApi | null = null

  /** @param clientId shown in the broker's logs and metrics */
  constructor(connection: KafkaConnection, clientId: string, closing: AbortSignal) {
    this.#connection = connection
    this.#clientId = clientId
    this.#closing = closing
    this.#client = this.#createClient()
  }

  /** Ids and partition counts of topics. @throws TapelineError `KAFKA` when one is missing */
  async topics(names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
    try {
      return (await this.#bounded(clusterLayout(this.#client, names))).topics
    } catch (error) {
      this.reconnect()
      throw error
    }
  }

  /** By node id, when last asked; −1 when there is none. */
  leaderOf(topic: string, partition: number): number {
    return this.#layouts.get(topic)?.leaders[partition] ?? -1
  }

  broker(node: number): BrokerAddress | undefined {
    return this.#brokers.get(node)
  }

  forgetLeaders(): void {
    this.#layouts.clear()
  }

  /**
   * Asks for the leaders of topics that are not known yet. One topic that is missing does not hide the others.
   *
   * @returns why a topic is not known; undefined when all are
   * @throws when none of them can be asked for
   */
  async learnLeaders(topics: ReadonlySet<string>): Promise<unknown> {
    const wanted = [...topics].filter((topic) => !this.#layouts.has(topic))
    if (wanted.length === 0) return undefined
    const [first, ...others] = wanted.length === 1 ? [wanted] : [wanted, ...wanted.map((topic) => [topic])]
    const problem = await this.#learn(first ?? [])
    if (problem === undefined) return undefined
    const problems: unknown[] = []
    for (const one of others) problems.push(await this.#learn(one))
    if (others.length === 0 || problems.every((each) => each !== undefined)) throw problem
    return problems.find((each) => each !== undefined)
  }

  /** @returns why they cannot be asked for; undefined when they could */
  async #learn(topics: readonly string[]): Promise<unknown> {
    try {
      const cluster = await this.#bounded(clusterLayout(this.#client, topics))
      for (const [topic, layout] of cluster.topics) this.#layouts.set(topic, layout)
      this.#brokers = cluster.brokers
      return undefined
    } catch (error) {
      this.#closing.throwIfAborted()
      return error
    }
  }

  /** One request; the answer tells of each partition. @param replicasMs how long the broker may wait for its replicas */
  async produce(
    broker: BrokerAddress,
    replicasMs: number,
    batches: readonly PartitionBatch[],
    limitMs: number,
  ): Promise<produceV11.ProduceResponse> {
    const connection = await this.#bounded(this.#client.connections.get(broker))
    this.#produce ??= await this.#produceApi()
    const response = await this.#bounded(this.#produce.async(connection, replicasMs, batches), limitMs).catch(
      (error: unknown) => {
        // The client makes an error of an answer in which one partition is refused.
        const answer = answersWithin(error).findLast(isProduceResponse)
        if (answer === undefined) throw error
        return answer
      },
    )
    if (typeof response === 'boolean') throw new Error('The broker was asked for no answer')
    return response
  }

  async initProducerId(): Promise<ProducerId> {
    const { brokers } = await this.#bounded(clusterLayout(this.#client, []))
    const [broker] = [...brokers.values()].sort(() => Math.random() - 0.5)
    if (broker === undefined) throw new Error('No broker is known')
    const connection = await this.#bounded(this.#client.connections.get(broker))
    return this.#bounded(initProducerIdV4.api.async(connection, null, 0))
  }

  async close(): Promise<void> {
    await closeClient(this.#client)
  }

  /** Leaves all connections; the next request begins with another bootstrap broker. */
  reconnect(): void {
    if (this.#closing.aborted) return
    void closeClient(this.#client)
    this.#produce = null
    this.#client = this.#createClient()
  }

  async #produceApi(): Promise<ProduceApi> {
    const range = (await this.#bounded(this.#client.listApis())).find(({ name }) => name === 'Produce')
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

  /** Begins with another broker than the last time, which may hang. */
  #createClient(): Base {
    const { brokers } = this.#connection
    const first = this.#clients++ % Math.max(1, brokers.length)
    const rotated = [...brokers.slice(first), ...brokers.slice(0, first)]
    const client = new Base({
      ...clientOptions({ ...this.#connection, brokers: rotated }, this.#clientId),
      // An attempt is repeated here; the client would keep the error of each.
      retries: 0,
    })
    return guardConnections(client)
  }

  /** The promise's outcome, or a rejection once a broker has had its time or this sender is closed. */
  async #bounded<Result>(promise: Promise<Result>, limitMs = REQUEST_MS): Promise<Result> {
    const limit = Promise.withResolvers<never>()
    const timer = setTimeout(
      () => limit.reject(new Error(`Kafka has not answered within ${limitMs / 1000} s`)),
      limitMs,
    )
    try {
      return await unlessAborted(Promise.race([promise, limit.promise]), this.#closing)
    } finally {
      clearTimeout(timer)
    }
  }
}

/** A connection that is being torn down may never say that it is closed. */
async function closeClient(client: Base): Promise<void> {
  // What a connection says while it ends is of no use to anybody.
  await Promise.race([client.close().catch(() => {}), sleep(CLOSE_MS)])
}

function isProduceResponse(value: unknown): value is produceV11.ProduceResponse {
  return typeof value === 'object' && value !== null && 'responses' in value
}
