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

/** The network between one process and the brokers: latency, refused connections, lost requests and answers. */
interface Network {
  readonly cluster: Cluster
  readonly clock: VirtualClock
  readonly life: LifeClock
  readonly random: Random
}

/** One request. A process that has ended gets no answer, but its sent requests still arrive. */
function ask<Answer>(network: Network, node: number, serve: Serve<Answer>): Promise<Answer> {
  const { cluster, clock, life, random } = network
  const broker = cluster.brokers.get(node)
  if (broker === undefined) return Promise.reject(new Error(`Cannot find broker with node id ${node}`))
  return new Promise((resolve, reject) => {
    const fail = (text: string) => reject(new Error(`${text} ${broker.host}:${broker.port}`))
    let isOpen = true
    const end = () => {
      isOpen = false
      forget()
      giveUp()
    }
    const endWith = (text: string) => {
      end()
      life.schedule(1, () => fail(text))
    }
    const forget = broker.whileUp(() => endWith('The connection was reset by'))
    const hangs = cluster.network === 'hangs'
    const giveUp = life.schedule(hangs ? CONNECT_TIMEOUT_MS : CLIENT_TIMEOUT_MS, () => {
      end()
      fail('No answer from')
    })
    if (hangs) return
    if (cluster.network === 'refuses' || broker.state === 'down') return endWith('connect ECONNREFUSED')
    const lost = lossOf(network, broker)
    if (lost === 'request') return
    const reply = (value: Answer, onDelivered?: () => void) => {
      if (!isOpen || lost === 'answer') return
      if (lost === 'connection') return endWith('The connection was reset by')
      life.schedule(random.between(0.2, 4), () => {
        if (!isOpen) return
        end()
        onDelivered?.()
        resolve(value)
      })
    }
    clock.schedule(random.between(0.2, 4), () => {
      if (broker.state !== 'down') broker.take(() => serve(broker, reply))
    })
  })
}

function lossOf({ cluster, random }: Network, broker: Broker): 'request' | 'answer' | 'connection' | null {
  if (broker.lostAnswers === 0) return null
  broker.lostAnswers--
  const lost = random.pick(['request', 'answer', 'connection'] as const)
  if (lost !== 'connection') cluster.lostAtMs = cluster.nowMs
  if (broker.lostAnswers === 0) cluster.onChange()
  return lost
}

/** `broker-1:9092` is node 1. */
function nodeOf(address: string): number {
  return Number(/\d+/.exec(address)?.[0])
}

/** All requests of one process. */
export function requestsOf(
  network: Network,
  connection: KafkaConnection,
  incarnation: number,
): ProduceRequests & FetchRequests {
  const { cluster, clock } = network
  return {
    metadata: (topics) => {
      // The first that accepts a connection answers.
      const nodes = connection.brokers.map(nodeOf)
      const first = nodes.find((node) => cluster.broker(node).state !== 'down')
      return ask<ClusterLayout>(network, first ?? nodes[0] ?? 1, (broker, answer) =>
        answer(layoutFrom(cluster, broker, topics)),
      )
    },
    initProducerId: ({ host }) =>
      ask(network, nodeOf(host), (_broker, answer) =>
        answer({ producerId: cluster.nextProducerId(), producerEpoch: 0 }),
      ),
    produce: ({ host }: BrokerAddress, replicasMs, batches) => {
      const request = { replicasMs, batches, incarnation, sentAtMs: cluster.nowMs }
      return ask<ProduceAnswer>(network, nodeOf(host), (broker, answer) =>
        produceTo(network, broker, request, answer),
      )
    },
    offsets: (node, partitions, timestamp) =>
      ask(network, node, (broker, answer) => answer(offsetsFrom(cluster, broker, partitions, timestamp))),
    fetch: (node, topics, { maxWaitMs }) =>
      ask<FetchAnswer>(network, node, (broker, answer) => {
        const fetched = fetchFrom(cluster, broker, topics)
        const isEmpty = fetched.responses.every(({ partitions }) =>
          partitions.every(({ errorCode, records }) => errorCode === 0 && (records ?? []).length === 0),
        )
        if (isEmpty) clock.schedule(maxWaitMs, () => answer(fetched))
        else answer(fetched)
      }),
    close: async () => {},
  }
}
