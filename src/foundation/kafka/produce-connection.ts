import { unlessAborted } from '../runtime/backoff.ts'
import { isTapelineError } from '../runtime/errors.ts'
import type { Brokers, ProduceAnswer, ProduceRequests, ProducerId } from './broker-requests.ts'
import { startingAt } from './client.ts'
import type { PartitionBatch } from './codec/produce-request.ts'
import type { KafkaConnection } from './connection.ts'
import type { ClusterLayout, TopicLayout, TopicMetadata } from './topic-metadata.ts'

/** A broker that does not answer within this time hangs. */
export const REQUEST_MS = 8000

/**
 * A silent leader gets up to this many times {@link REQUEST_MS}, once more per unanswered request:
 * the link may be slow.
 */
const MAX_PATIENCE = 4

const CLOSE_MS = 1000

/** Limits of a request. */
interface Waiting {
  readonly limitMs?: number
  readonly onLimit?: () => void
  /** Called after each {@link REQUEST_MS}; an error ends the wait. */
  readonly whyUseless?: () => Promise<Error | undefined>
}

/**
 * The requests of a producer to single brokers. Each is sent once, and rejects after a limit or
 * when `closing` aborts. `RecordSender` retries.
 */
export class ProduceConnection {
  readonly #to: Brokers
  readonly #connection: KafkaConnection
  readonly #clientId: string
  readonly #closing: AbortSignal
  /** Topics and their leaders, as reported since the last failure. */
  readonly #layouts = new Map<string, TopicLayout>()
  /** The newest layout of each topic, by leader epochs. */
  readonly #newest = new Map<string, TopicLayout>()
  #brokers: ClusterLayout['brokers'] = new Map()
  /** When a broker last named leaders, or reported a missing topic, on the monotonic clock. */
  namedAtMs = Number.NEGATIVE_INFINITY
  /** Consecutive unanswered requests of a broker, by node id. */
  readonly #silences = new Map<number, number>()
  #requests: ProduceRequests
  /** Running requests per connection, current and former. */
  readonly #underWay = new Map<ProduceRequests, number>()
  #connects = 0

  /** @param clientId shown in the broker's logs and metrics */
  constructor(connection: KafkaConnection, clientId: string, closing: AbortSignal, to: Brokers) {
    this.#to = to
    this.#connection = connection
    this.#clientId = clientId
    this.#closing = closing
    this.#requests = this.#connect()
  }

  /** Returns ids and partition counts of topics. @throws TapelineError `KAFKA` if one is missing */
  async topics(names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
    const { connects } = this
    try {
      return (await this.#ask((requests) => requests.metadata(names))).topics
    } catch (error) {
      this.reconnect(connects)
      throw error
    }
  }

  /** How often {@link reconnect} had an effect. */
  get connects(): number {
    return this.#connects
  }

  /** Returns the node id of a leader, as last reported; −1 without one. */
  leaderOf(topic: string, partition: number): number {
    return this.#layouts.get(topic)?.leaders[partition] ?? -1
  }

  forgetLeaders(): void {
    this.#layouts.clear()
  }

  /**
   * Requests the leaders of unknown topics. A missing topic does not hide the others.
   *
   * @returns why a topic is unknown; undefined if all are known
   * @throws if no leaders can be requested
   */
  async learnLeaders(topics: ReadonlySet<string>): Promise<unknown> {
    const wanted = [...topics].filter((topic) => !this.#layouts.has(topic))
    if (wanted.length === 0) return undefined
    const [first, ...others] = wanted.length === 1 ? [wanted] : [wanted, ...wanted.map((topic) => [topic])]
    const problem = await this.#learn(first ?? [])
    if (problem === undefined) return undefined
    // Without a missing topic the rest may work; a broker that hangs would hang again.
    if (!isTapelineError(problem)) throw problem
    const problems: unknown[] = []
    for (const one of others) problems.push(await this.#learn(one))
    if (others.length === 0 || problems.every((each) => each !== undefined)) throw problem
    return problems.find((each) => each !== undefined)
  }

  /** @returns why the request failed; undefined on success */
  async #learn(topics: readonly string[]): Promise<unknown> {
    try {
      const cluster = await this.#ask((requests) => requests.metadata(topics))
      for (const [topic, found] of cluster.topics) {
        const layout = newest(this.#newest.get(topic), found)
        this.#newest.set(topic, layout)
        this.#layouts.set(topic, layout)
      }
      this.#brokers = cluster.brokers
      this.namedAtMs = this.#to.clock.monotonicMs()
      return undefined
    } catch (error) {
      this.#closing.throwIfAborted()
      if (isTapelineError(error)) this.namedAtMs = this.#to.clock.monotonicMs()
      return error
    }
  }

  /**
   * Sends one request; the answer has a result per partition. A silent broker gets more time for
   * the next request, until another leader is named.
   *
   * @param replicasMs how long the broker may wait for its replicas
   */
  async produce(
    node: number,
    replicasMs: number,
    batches: readonly PartitionBatch[],
  ): Promise<ProduceAnswer> {
    const broker = this.#brokers.get(node)
    if (broker === undefined) throw new Error(`Broker ${node} is no longer in the cluster`)
    const silences = this.#silences.get(node) ?? 0
    const limitMs = REQUEST_MS * Math.min(MAX_PATIENCE, silences + 1)
    const silent = () => this.#silences.set(node, silences + 1)
    let isOver = false
    try {
      const answer = await this.#ask(
        (requests) => requests.produce(broker, replicasMs, batches, () => isOver),
        { limitMs, onLimit: silent, whyUseless: () => this.#whyMoved(node, batches) },
      )
      this.#silences.delete(node)
      return answer
    } finally {
      isOver = true
    }
  }

  /**
   * @returns an error if a partition has another leader now; undefined if not, or if no broker says
   */
  async #whyMoved(node: number, batches: readonly PartitionBatch[]): Promise<Error | undefined> {
    const topics = new Set(batches.map(({ topic }) => topic))
    const cluster = await this.#requests.metadata([...topics]).catch(() => undefined)
    const moved = batches.find(({ topic, partition }) => {
      const found = cluster?.topics.get(topic)
      return found !== undefined && newest(this.#newest.get(topic), found).leaders[partition] !== node
    })
    if (moved === undefined) return undefined
    return new Error(`Broker ${node} has not answered, and no longer leads ${moved.topic}/${moved.partition}`)
  }

  async initProducerId(): Promise<ProducerId> {
    const { brokers } = await this.#ask((requests) => requests.metadata([]))
    const [broker] = [...brokers.values()].sort(() => this.#to.random() - 0.5)
    if (broker === undefined) throw new Error('No broker is available')
    return this.#ask((requests) => requests.initProducerId(broker))
  }

  async close(): Promise<void> {
    const all = new Set([this.#requests, ...this.#underWay.keys()])
    await Promise.all([...all].map((requests) => this.#closeWithin(requests)))
  }

  /**
   * Drops all connections; the next request begins with another bootstrap broker. Running requests
   * of other sends keep theirs: a partition that Kafka refuses must not interrupt the others.
   *
   * @param failed the value of {@link connects} when the failed request was sent: others may have
   *   reconnected since
   */
  reconnect(failed: number): void {
    if (this.#closing.aborted || failed !== this.#connects) return
    if (!this.#underWay.has(this.#requests)) void this.#closeWithin(this.#requests)
    this.#connects++
    this.#requests = this.#connect()
  }

  /** Begins with another broker than last time, because that one may hang. */
  #connect(): ProduceRequests {
    return this.#to.openProducer(startingAt(this.#connection, this.#connects), this.#clientId)
  }

  async #ask<Result>(
    request: (requests: ProduceRequests) => Promise<Result>,
    waiting?: Waiting,
  ): Promise<Result> {
    const requests = this.#requests
    this.#underWay.set(requests, (this.#underWay.get(requests) ?? 0) + 1)
    try {
      return await this.#bounded(request(requests), waiting)
    } finally {
      const left = (this.#underWay.get(requests) ?? 1) - 1
      if (left > 0) this.#underWay.set(requests, left)
      else this.#underWay.delete(requests)
      const isLeft = requests !== this.#requests && !this.#closing.aborted
      if (isLeft && left === 0) void this.#closeWithin(requests)
    }
  }

  /**
   * Returns the promise's outcome; rejects when the broker's time is over or this sender closes.
   */
  async #bounded<Result>(
    promise: Promise<Result>,
    { limitMs = REQUEST_MS, onLimit, whyUseless }: Waiting = {},
  ): Promise<Result> {
    const { clock } = this.#to
    const limit = Promise.withResolvers<never>()
    const giveUp = () => {
      onLimit?.()
      limit.reject(new Error(`Kafka has not answered within ${limitMs / 1000} s`))
    }
    let cancel = () => {}
    const wait = (leftMs: number) => {
      cancel = clock.schedule(Math.min(leftMs, REQUEST_MS), () => {
        if (leftMs <= REQUEST_MS) return giveUp()
        void whyUseless?.().then((why) => why && limit.reject(why))
        wait(leftMs - REQUEST_MS)
      })
    }
    wait(limitMs)
    try {
      return await unlessAborted(Promise.race([promise, limit.promise]), this.#closing)
    } finally {
      cancel()
    }
  }

  /** Closes within a limit: a connection may never report that it is closed. */
  async #closeWithin(requests: ProduceRequests): Promise<void> {
    const late = new Promise<void>((resolve) => this.#to.clock.schedule(CLOSE_MS, resolve))
    // Errors while closing do not matter.
    await Promise.race([requests.close().catch(() => {}), late])
  }
}

/**
 * Returns the newest leaders. A broker cut off from the others still names old leaders. An old
 * leader might lack records that a later one has taken, and accept other sequence numbers from this
 * producer.
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
