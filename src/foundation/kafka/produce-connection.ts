import { unlessAborted } from '../runtime/backoff.ts'
import type { BrokerAddress, Brokers, ProduceAnswer, ProduceRequests, ProducerId } from './broker-requests.ts'
import type { PartitionBatch } from './codec/produce-request.ts'
import { type KafkaConnection, startingAt } from './connection.ts'
import type { ClusterLayout, TopicLayout, TopicMetadata } from './topic-metadata.ts'

/** A broker that has not answered by then hangs. */
export const REQUEST_MS = 8000

const CLOSE_MS = 1000

/**
 * The requests of a producer to single brokers. Each is made once. It rejects after a limit or when `closing` aborts.
 * `RecordSender` repeats it.
 */
export class ProduceConnection {
  readonly #to: Brokers
  readonly #connection: KafkaConnection
  readonly #clientId: string
  readonly #closing: AbortSignal
  /** Topics and their leaders, as far as they were asked for since the last failure. */
  readonly #layouts = new Map<string, TopicLayout>()
  #brokers: ClusterLayout['brokers'] = new Map()
  #requests: ProduceRequests
  #connects = 0

  /** @param clientId shown in the broker's logs and metrics */
  constructor(connection: KafkaConnection, clientId: string, closing: AbortSignal, to: Brokers) {
    this.#to = to
    this.#connection = connection
    this.#clientId = clientId
    this.#closing = closing
    this.#requests = this.#connect()
  }

  /** Ids and partition counts of topics. @throws TapelineError `KAFKA` when one is missing */
  async topics(names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
    try {
      return (await this.#bounded(this.#requests.metadata(names))).topics
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
      const cluster = await this.#bounded(this.#requests.metadata(topics))
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
  ): Promise<ProduceAnswer> {
    return this.#bounded(this.#requests.produce(broker, replicasMs, batches), limitMs)
  }

  async initProducerId(): Promise<ProducerId> {
    const { brokers } = await this.#bounded(this.#requests.metadata([]))
    const [broker] = [...brokers.values()].sort(() => this.#to.random() - 0.5)
    if (broker === undefined) throw new Error('No broker is known')
    return this.#bounded(this.#requests.initProducerId(broker))
  }

  async close(): Promise<void> {
    await this.#closeWithin(this.#requests)
  }

  /** Leaves all connections; the next request begins with another bootstrap broker. */
  reconnect(): void {
    if (this.#closing.aborted) return
    void this.#closeWithin(this.#requests)
    this.#requests = this.#connect()
  }

  /** Begins with another broker than the last time, which may hang. */
  #connect(): ProduceRequests {
    return this.#to.openProducer(startingAt(this.#connection, this.#connects++), this.#clientId)
  }

  /** The promise's outcome, or a rejection once a broker has had its time or this sender is closed. */
  async #bounded<Result>(promise: Promise<Result>, limitMs = REQUEST_MS): Promise<Result> {
    const limit = Promise.withResolvers<never>()
    const cancel = this.#to.clock.schedule(limitMs, () =>
      limit.reject(new Error(`Kafka has not answered within ${limitMs / 1000} s`)),
    )
    try {
      return await unlessAborted(Promise.race([promise, limit.promise]), this.#closing)
    } finally {
      cancel()
    }
  }

  /** A connection that is being torn down may never say that it is closed. */
  async #closeWithin(requests: ProduceRequests): Promise<void> {
    const late = new Promise<void>((resolve) => this.#to.clock.schedule(CLOSE_MS, resolve))
    // What a connection says while it ends is of no use to anybody.
    await Promise.race([requests.close().catch(() => {}), late])
  }
}
