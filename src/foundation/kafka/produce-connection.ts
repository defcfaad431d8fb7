import { isTapelineError } from '../runtime/errors.ts'
import { BrokerConnections, LateAnswer, REQUEST_MS } from './broker-connections.ts'
import type { Brokers, ProduceAnswer, ProduceRequests, ProducerId } from './broker-requests.ts'
import type { PartitionBatch } from './codec/produce-request.ts'
import type { KafkaConnection } from './config.ts'
import type { ClusterLayout, TopicLayout, TopicMetadata } from './topic-metadata.ts'

/** A silent leader gets {@link REQUEST_MS} once more per unanswered request: the link may be slow. */
const MAX_PATIENCE = 4

/** A producer's requests, each sent once, and what they say about leaders; `RecordSender` retries. */
export class ProduceConnection extends BrokerConnections<ProduceRequests> {
  readonly #to: Brokers
  /** Topics and their leaders, as reported since the last failure. */
  readonly #layouts = new Map<string, TopicLayout>()
  /** The newest layout of each topic, by leader epochs. */
  readonly #newest = new Map<string, TopicLayout>()
  #brokers: ClusterLayout['brokers'] = new Map()
  #namedAtMs = Number.NEGATIVE_INFINITY
  /** Consecutive unanswered requests of a broker, by node id. */
  readonly #silences = new Map<number, number>()

  constructor(connection: KafkaConnection, clientId: string, to: Brokers) {
    super(to.clock, connection, (at) => to.openProducer(at, clientId))
    this.#to = to
  }

  /** When a broker last named leaders, or reported a missing topic, on the monotonic clock. */
  get namedAtMs(): number {
    return this.#namedAtMs
  }

  /** Returns ids and partition counts of topics. @throws TapelineError `KAFKA` if one is missing */
  async topics(names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
    return (await this.askOrReconnect((requests) => requests.metadata(names))).topics
  }

  /** Returns the node id of a leader, as last reported; −1 without one. */
  leaderOf(topic: string, partition: number): number {
    return this.#layouts.get(topic)?.leaders[partition] ?? -1
  }

  forgetLeaders(): void {
    this.#layouts.clear()
  }

  /** Requests unknown leaders. @returns why a topic is unknown @throws if none can be requested */
  async learnLeaders(topics: ReadonlySet<string>): Promise<unknown> {
    const wanted = [...topics].filter((topic) => !this.#layouts.has(topic))
    if (wanted.length === 0) return undefined
    const problem = await this.#learn(wanted)
    if (problem === undefined) return undefined
    // Without a missing topic the rest may work; a broker that hangs would hang again.
    if (!isTapelineError(problem)) throw problem
    if (wanted.length > 1) for (const topic of wanted) await this.#learn([topic])
    const known = wanted.filter((topic) => this.#layouts.has(topic))
    if (known.length === 0) throw problem
    return known.length < wanted.length ? problem : undefined
  }

  /** @returns why the request failed; undefined on success */
  async #learn(topics: readonly string[]): Promise<unknown> {
    try {
      const cluster = await this.ask((requests) => requests.metadata(topics))
      for (const [topic, found] of cluster.topics) {
        const layout = newest(this.#newest.get(topic), found)
        this.#newest.set(topic, layout)
        this.#layouts.set(topic, layout)
      }
      this.#brokers = cluster.brokers
      this.#namedAtMs = this.#to.clock.monotonicMs()
      return undefined
    } catch (error) {
      if (isTapelineError(error)) this.#namedAtMs = this.#to.clock.monotonicMs()
      return error
    }
  }

  /** Sends one request. A silent broker gets more time for the next one, until another leader is named. */
  async produce(
    node: number,
    replicasMs: number,
    batches: readonly PartitionBatch[],
  ): Promise<ProduceAnswer> {
    const broker = this.#brokers.get(node)
    if (broker === undefined) throw new Error(`Broker ${node} is no longer in the cluster`)
    const silences = this.#silences.get(node) ?? 0
    let isOver = false
    try {
      const answer = await this.ask(
        (requests) => requests.produce(broker, replicasMs, batches, () => isOver),
        REQUEST_MS * Math.min(MAX_PATIENCE, silences + 1),
        () => this.#whyMoved(node, batches),
      )
      this.#silences.delete(node)
      return answer
    } catch (error) {
      if (error instanceof LateAnswer) this.#silences.set(node, silences + 1)
      throw error
    } finally {
      isOver = true
    }
  }

  /** @returns an error if a partition has another leader now; undefined if not, or if unknown */
  async #whyMoved(node: number, batches: readonly PartitionBatch[]): Promise<Error | undefined> {
    const topics = new Set(batches.map(({ topic }) => topic))
    const cluster = await this.ask((requests) => requests.metadata([...topics])).catch(() => undefined)
    const moved = batches.find(({ topic, partition }) => {
      const found = cluster?.topics.get(topic)
      return found !== undefined && newest(this.#newest.get(topic), found).leaders[partition] !== node
    })
    if (moved === undefined) return undefined
    return new Error(`Broker ${node} has not answered, and no longer leads ${moved.topic}/${moved.partition}`)
  }

  async initProducerId(): Promise<ProducerId> {
    const { brokers } = await this.ask((requests) => requests.metadata([]))
    const [broker] = [...brokers.values()].sort(() => this.#to.random() - 0.5)
    if (broker === undefined) throw new Error('No broker is available')
    return this.ask((requests) => requests.initProducerId(broker))
  }
}

/**
 * Returns the newest leaders: a broker cut off from the others still names old ones. Those might
 * lack records that a later one has taken, and accept other sequence numbers from this producer.
 */
function newest(known: TopicLayout | undefined, found: TopicLayout): TopicLayout {
  if (known === undefined || known.id !== found.id || known.partitions !== found.partitions) return found
  const isOld = found.leaderEpochs.map((epoch, i) => epoch >= 0 && epoch < (known.leaderEpochs[i] ?? -1))
  const pick = (name: 'leaders' | 'leaderEpochs') =>
    found[name].map((value, i) => (isOld[i] === true ? (known[name][i] ?? value) : value))
  return isOld.includes(true)
    ? { ...found, leaders: pick('leaders'), leaderEpochs: pick('leaderEpochs') }
    : found
}
