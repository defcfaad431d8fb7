import type {
  BrokerAddress,
  FetchRequests,
  ProduceAnswer,
  ProduceRequests,
} from '../../../src/foundation/kafka/broker-requests.ts'
import type { FetchAnswer } from '../../../src/foundation/kafka/codec/fetch-api.ts'
import type { KafkaConnection } from '../../../src/foundation/kafka/config.ts'
import type { ClusterLayout } from '../../../src/foundation/kafka/topic-metadata.ts'
import type { Random } from '../../../src/sandbox/simulator/market/random.ts'
import type { LifeClock } from '../../support/life-clock.ts'
import type { VirtualClock } from '../../support/virtual-clock.ts'
import { fetchFrom, layoutFrom, offsetsFrom, produceTo } from './answers.ts'
import type { Broker } from './broker.ts'
import type { Cluster } from './cluster.ts'

/** The client's limits. */
const CLIENT_TIMEOUT_MS = 30_000
const CONNECT_TIMEOUT_MS = 5000

/** Answers once, or never. */
type Serve<Answer> = (broker: Broker, answer: (value: Answer, onDelivered?: () => void) => void) => void

/**
 * The network between one process and the brokers: latency, refused connections, lost requests and
 * answers.
 */
export class Network {
  readonly cluster: Cluster
  readonly clock: VirtualClock
  readonly life: LifeClock
  readonly random: Random

  constructor(cluster: Cluster, clock: VirtualClock, life: LifeClock, random: Random) {
    this.cluster = cluster
    this.clock = clock
    this.life = life
    this.random = random
  }

  /** One request. A process that has ended gets no answer, but its sent requests still arrive. */
  ask<Answer>(node: number, serve: Serve<Answer>): Promise<Answer> {
    const broker = this.cluster.brokers.get(node)
    if (broker === undefined) return Promise.reject(new Error(`Cannot find broker with node id ${node}`))
    return new Promise((resolve, reject) => {
      const fail = (text: string) => reject(new Error(`${text} ${broker.host}:${broker.port}`))
      let isOpen = true
      const end = () => {
        isOpen = false
        forget()
        giveUp()
      }
      const forget = broker.whileUp(() => {
        end()
        this.life.schedule(1, () => fail('The connection was reset by'))
      })
      const hangs = this.cluster.network === 'hangs'
      const giveUp = this.life.schedule(hangs ? CONNECT_TIMEOUT_MS : CLIENT_TIMEOUT_MS, () => {
        end()
        fail('No answer from')
      })
      if (hangs) return
      if (this.cluster.network === 'refuses' || broker.state === 'down') {
        end()
        this.life.schedule(1, () => fail('connect ECONNREFUSED'))
        return
      }
      const lost = this.#isLost(broker)
      if (lost === 'request') return
      const reply = (value: Answer, onDelivered?: () => void) => {
        if (!isOpen || lost === 'answer') return
        if (lost === 'connection') {
          end()
          this.life.schedule(1, () => fail('The connection was reset by'))
          return
        }
        this.life.schedule(this.random.between(0.2, 4), () => {
          if (!isOpen) return
          end()
          onDelivered?.()
          resolve(value)
        })
      }
      this.clock.schedule(this.random.between(0.2, 4), () => {
        if (broker.state !== 'down') broker.take(() => serve(broker, reply))
      })
    })
  }

  /** The first of them that accepts a connection. */
  askBootstrap<Answer>(connection: KafkaConnection, serve: Serve<Answer>): Promise<Answer> {
    const nodes = connection.brokers.map(nodeOf)
    const first = nodes.find((node) => this.cluster.broker(node).state !== 'down')
    return this.ask(first ?? nodes[0] ?? 1, serve)
  }

  #isLost(broker: Broker): 'request' | 'answer' | 'connection' | null {
    if (broker.lostAnswers === 0) return null
    broker.lostAnswers--
    const lost = this.random.pick(['request', 'answer', 'connection'] as const)
    if (lost !== 'connection') this.cluster.lostAtMs = this.cluster.nowMs
    if (broker.lostAnswers === 0) this.cluster.onChange()
    return lost
  }
}

/** `broker-1:9092` is node 1. */
function nodeOf(address: string): number {
  return Number(/\d+/.exec(address)?.[0])
}

export function produceRequests(
  network: Network,
  connection: KafkaConnection,
  incarnation: number,
): ProduceRequests {
  return {
    metadata: (topics) => metadata(network, connection, topics),
    initProducerId: ({ host }) =>
      network.ask(nodeOf(host), (_broker, answer) =>
        answer({ producerId: network.cluster.nextProducerId(), producerEpoch: 0 }),
      ),
    produce: ({ host }: BrokerAddress, replicasMs, batches) => {
      const request = { replicasMs, batches, incarnation, sentAtMs: network.cluster.nowMs }
      return network.ask<ProduceAnswer>(nodeOf(host), (broker, answer) =>
        produceTo(network, broker, request, answer),
      )
    },
    close: async () => {},
  }
}

export function fetchRequests(network: Network, connection: KafkaConnection): FetchRequests {
  return {
    metadata: (topics) => metadata(network, connection, topics),
    offsets: (node, partitions, timestamp) =>
      network.ask(node, (broker, answer) =>
        answer(offsetsFrom(network.cluster, broker, partitions, timestamp)),
      ),
    fetch: (node, topics, { maxWaitMs }) =>
      network.ask<FetchAnswer>(node, (broker, answer) => {
        const fetched = fetchFrom(network.cluster, broker, topics)
        const isEmpty = fetched.responses.every(({ partitions }) =>
          partitions.every(({ errorCode, records }) => errorCode === 0 && (records ?? []).length === 0),
        )
        if (isEmpty) network.clock.schedule(maxWaitMs, () => answer(fetched))
        else answer(fetched)
      }),
    close: async () => {},
  }
}

function metadata(
  network: Network,
  connection: KafkaConnection,
  topics: readonly string[],
): Promise<ClusterLayout> {
  return network.askBootstrap(connection, (broker, answer) =>
    answer(layoutFrom(network.cluster, broker, topics)),
  )
}
