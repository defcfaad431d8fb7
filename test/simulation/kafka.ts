import type { Brokers } from '../../src/foundation/kafka/broker-requests.ts'
import type { KafkaPort } from '../../src/foundation/kafka/kafka-port.ts'
import { PartitionFetcher } from '../../src/foundation/kafka/partition-fetcher.ts'
import { RecordSender } from '../../src/foundation/kafka/record-sender.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { LifeClock } from '../support/life-clock.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import { Cluster } from './cluster/cluster.ts'
import { type ClientDefect, withDefect } from './cluster/defects.ts'
import { requestsOf } from './cluster/network.ts'
import type { StoredBatch } from './cluster/replica-log.ts'
import { SendAudit } from './cluster/send-audit.ts'

/** A message on all in-sync replicas. */
export interface Appended {
  readonly topic: string
  readonly value: Buffer | null
  readonly headers: ReadonlyArray<readonly [Buffer | null, Buffer | null]>
  /** The process that produced it. */
  readonly incarnation: number
  /** Why Kafka's rules allow a duplicate of it; more reasons may follow. */
  readonly excuses: StoredBatch['excuses']
}

/** Effect of a planted defect on a message: how often it is appended. */
export type Copies = (topic: string) => number

export interface KafkaOptions {
  readonly topics: readonly string[]
  readonly compacted: string
  readonly copies: Copies
  /** A defect of our code or of the brokers. */
  readonly defect?: ClientDefect | 'acknowledges before the replicas have it' | undefined
}

/** The brokers that clients know at their start. */
const CONNECTION = { brokers: ['broker-1:9092', 'broker-2:9092', 'broker-3:9092'], tls: null, sasl: null }

/** A Kafka cluster in memory, used through the real sender and fetcher. */
export class SimulatedKafka {
  readonly cluster: Cluster
  readonly audit: SendAudit
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #options: KafkaOptions

  constructor(
    options: KafkaOptions,
    clock: VirtualClock,
    random: Random,
    onAppended: (appended: Appended) => void,
  ) {
    this.#options = options
    this.#clock = clock
    this.#random = random
    const acknowledgesBeforeReplicas = options.defect === 'acknowledges before the replicas have it'
    this.cluster = new Cluster({ ...options, acknowledgesBeforeReplicas }, clock, random.fork(), {
      onCommitted: ({ topic }, { content, incarnation, excuses }) => {
        for (const { value, headers } of content.messages)
          for (let copies = options.copies(topic); copies > 0; copies--)
            onAppended({ topic, value, headers, incarnation, excuses })
      },
      onDropped: ({ name }, batch) => this.#onDropped(name, batch),
    })
    this.audit = new SendAudit(this.cluster)
  }

  /** Kafka as seen by one process. */
  access(life: LifeClock, incarnation: number): KafkaPort {
    const random = this.#random.fork()
    const network = { cluster: this.cluster, clock: this.#clock, life, random }
    const honest: Brokers = {
      clock: life,
      random: random.next,
      openProducer: (connection) => requestsOf(network, connection, incarnation),
      openFetcher: (connection) => requestsOf(network, connection, incarnation),
    }
    const brokers = withDefect(honest, this.#options.defect)
    return {
      requireAccess: async (_clientId, { topics }) => {
        const { topics: layouts } = await requestsOf(network, CONNECTION, incarnation).metadata([
          ...topics.keys(),
        ])
        return new Map(layouts)
      },
      producer: (clientId, compression) =>
        this.audit.audited(new RecordSender(CONNECTION, clientId, compression, brokers), () => life.isAlive),
      fetcher: (clientId, topics) => new PartitionFetcher(CONNECTION, clientId, topics, brokers),
    }
  }

  #onDropped(name: string, batch: StoredBatch): void {
    if (!(batch.isCommitted || Number.isFinite(batch.acknowledgedAtMs)) || batch.excuses.has('truncated'))
      return
    this.cluster.complaints.push(
      `K1: ${name}: ${batch.count} messages at ${batch.baseOffset} were acknowledged, and a leader without them was elected`,
    )
  }
}
