import { unlessAborted } from '../runtime/backoff.ts'
import { TapelineError } from '../runtime/errors.ts'
import type { Brokers, ProduceAnswer, ProduceRequests, ProducerId } from './broker-requests.ts'
import type { PartitionBatch } from './codec/produce-request.ts'
import { type KafkaConnection, startingAt } from './connection.ts'
import type { ClusterLayout, TopicLayout, TopicMetadata } from './topic-metadata.ts'

/** A broker that has not answered by then hangs. */
export const REQUEST_MS = 8000

/** A leader that stays silent gets so many times {@link REQUEST_MS} after as many requests: the link may be slow. */
const MAX_PATIENCE = 4

const CLOSE_MS = 1000

/** How long a request may take. */
interface Waiting {
  readonly limitMs?: number
  readonly onLimit?: () => void
  /** Asked after each {@link REQUEST_MS}; an error ends the wait. */
  readonly whyUseless?: () => Promise<Error | undefined>
}

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
  /** The newest that is known of each topic, by leader epochs. */
  readonly #newest = new Map<string, TopicLayout>()
  #brokers: ClusterLayout['brokers'] = new Map()
  /** When a broker last named leaders, or said that a topic is missing, on the monotonic clock. */
  namedAtMs = Number.NEGATIVE_INFINITY
  /** How many requests in a row a broker has left without an answer, by node id. */
  readonly #silences = new Map<number, number>()
  #requests: ProduceRequests
  /** How many requests are under way on connections, of now and of before. */
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

  /** Ids and partition counts of topics. @throws TapelineError `KAFKA` when one is missing */
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

  /** By node id, when last asked; −1 when there is none. */
  leaderOf(topic: string, partition: number): number {
    return this.#layouts.get(topic)?.leaders[partition] ?? -1
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
    // A topic that is missing may be left out; a broker that hangs would hang again.
    if (!(problem instanceof TapelineError)) throw problem
    const problems: unknown[] = []
    for (const one of others) problems.push(await this.#learn(one))
    if (others.length === 0 || problems.every((each) => each !== undefined)) throw problem
    return problems.find((each) => each !== undefined)
  }

  /** @returns why they cannot be asked for; undefined when they could */
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
      if (error instanceof TapelineError) this.namedAtMs = this.#to.clock.monotonicMs()
      return error
    }
  }

  /**
   * One request; the answer tells of each partition. A broker that was silent has more time for the next one, until another
   * leader is named.
   *
   * @param replicasMs how long the broker may wait for its replicas
   */
  async produce(
    node: number,
    replicasMs: number,
    batches: readonly PartitionBatch[],
  ): Promise<ProduceAnswer> {
    const broker = this.#brokers.get(node)
    if (broker === undefined) throw new Error(`Broker ${node} is not among those that the cluster has now`)
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

  /** @returns that a partition has another leader than this one; undefined when none has, or no broker tells */
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
    if (broker === undefined) throw new Error('No broker is known')
    return this.#ask((requests) => requests.initProducerId(broker))
  }

  async close(): Promise<void> {
    const all = new Set([this.#requests, ...this.#underWay.keys()])
    await Promise.all([...all].map((requests) => this.#closeWithin(requests)))
  }

  /**
   * Leaves all connections; the next request begins with another bootstrap broker. Requests of other sends that are under way
   * keep theirs: partitions that Kafka does not take must not cut off those that it takes.
   *
   * @param failed the {@link connects} when the request was made that failed: others may have left these already
   */
  reconnect(failed: number): void {
    if (this.#closing.aborted || failed !== this.#connects) return
    if (!this.#underWay.has(this.#requests)) void this.#closeWithin(this.#requests)
    this.#connects++
    this.#requests = this.#connect()
  }

  /** Begins with another broker than the last time, which may hang. */
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

  /** The promise's outcome, or a rejection once a broker has had its time or this sender is closed. */
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

  /** A connection that is being torn down may never say that it is closed. */
  async #closeWithin(requests: ProduceRequests): Promise<void> {
    const late = new Promise<void>((resolve) => this.#to.clock.schedule(CLOSE_MS, resolve))
    // What a connection says while it ends is of no use to anybody.
    await Promise.race([requests.close().catch(() => {}), late])
  }
}

/**
 * A broker that is cut off from the others still names leaders of before. One of them might lack what a later leader has
 * taken, and let this producer begin with other sequence numbers.
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
