import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Brokers, ProduceRequests } from '../src/foundation/kafka/broker-requests.ts'
import type { PartitionBatch } from '../src/foundation/kafka/codec/produce-request.ts'
import { RecordSender } from '../src/foundation/kafka/record-sender.ts'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { outgoing } from './support/kafka-clients.ts'
import { PRODUCED } from './support/record-batches.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const OUT_OF_ORDER_SEQUENCE_NUMBER = 45
const REQUEST_TIMED_OUT = 7
const NOT_ENOUGH_REPLICAS = 19
const NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
const DUPLICATE_SEQUENCE_NUMBER = 46
const PRODUCER_ID_AT = 43

/** Simulates brokers that hang or are isolated, which real brokers do not do at a chosen moment. */
interface Behaviour {
  /** The leader that this broker reports; null: it does not answer, and a missing topic throws. */
  leader(broker: string, topics: readonly string[]): number | null
  /** Its leader epoch; 0 by default. */
  epoch?(broker: string): number
  /** An error code; null: no answer. */
  produce(broker: string, batch: PartitionBatch): number | null
  /** How long the answer to a batch takes; 0 by default. */
  delayMs?(batch: PartitionBatch): number
}

const NEVER = new Promise<never>(() => {})
const CONNECTION = { brokers: ['broker-1', 'broker-2'], tls: null, sasl: null }
const FOREVER = { limitMs: Number.POSITIVE_INFINITY }

class FakeBrokers implements Brokers {
  readonly clock = new VirtualClock()
  readonly random = () => 0.5
  /** The requests to each broker, in order. */
  readonly asked: string[] = []
  /** The connections that are not closed. */
  readonly open = new Set<object>()
  readonly #behaviour: Behaviour
  #producerIds = 0

  constructor(behaviour: Behaviour) {
    this.#behaviour = behaviour
  }

  /** The Produce requests, in order. */
  get produced(): string[] {
    return this.asked.filter((one) => one.startsWith('produce'))
  }

  openFetcher(): never {
    throw new Error('Nothing is fetched here')
  }

  openProducer({ brokers }: { readonly brokers: readonly string[] }): ProduceRequests {
    const [bootstrap = ''] = brokers
    const closed = Promise.withResolvers<never>()
    closed.promise.catch(() => {})
    this.open.add(closed)
    return {
      metadata: async (topics) => {
        const known = new Map([1, 2].map((node) => [node, { host: `broker-${node}`, port: 9092 }]))
        if (topics.length === 0) return { topics: new Map(), brokers: known }
        this.asked.push(`metadata ${bootstrap}`)
        const leader = this.#behaviour.leader(bootstrap, topics)
        if (leader === null) return NEVER
        const epoch = this.#behaviour.epoch?.(bootstrap) ?? 0
        const layout = { id: '', partitions: 1, leaders: [leader], leaderEpochs: [epoch] }
        return { topics: new Map(topics.map((name) => [name, layout])), brokers: known }
      },
      initProducerId: async () => ({ producerId: BigInt(++this.#producerIds), producerEpoch: 0 }),
      produce: async ({ host }, _replicasMs, batches) => {
        const responses = batches.map((batch) => {
          this.asked.push(`produce ${host} as ${batch.batch.readBigInt64BE(PRODUCER_ID_AT)}`)
          return { name: batch.topic, errorCode: this.#behaviour.produce(host, batch) }
        })
        if (responses.some(({ errorCode }) => errorCode === null)) return NEVER
        const delayMs = Math.max(...batches.map((batch) => this.#behaviour.delayMs?.(batch) ?? 0))
        if (delayMs > 0) await Promise.race([sleep(delayMs, undefined, this.clock), closed.promise])
        return {
          responses: responses.map(({ name, errorCode }) => ({
            name,
            partitionResponses: [{ ...PRODUCED, errorCode: errorCode ?? 0 }],
          })),
          throttleTimeMs: 0,
        }
      },
      close: async () => {
        this.open.delete(closed)
        closed.reject(new Error('closed'))
      },
    }
  }
}

const recordOf = (topic: string) => outgoing({ topic, value: Buffer.from('{}') })

async function send(brokers: FakeBrokers, topics: readonly string[], forMs: number): Promise<boolean> {
  const sender = new RecordSender(CONNECTION, 'tapeline-test', 'none', brokers)
  const sending = sender.send(topics.map(recordOf), FOREVER).then(
    () => true,
    () => false,
  )
  await brokers.clock.advance(forMs)
  const closing = sender.close()
  await brokers.clock.advance(2000)
  await closing
  return sending
}

test('K2 an isolated broker that still claims to lead does not make the leader store a batch twice', async () => {
  let asked = 0
  const brokers = new FakeBrokers({
    // It names itself as the leader, in the last epoch that it knows.
    leader: (broker) => (broker === 'broker-1' && asked > 0 ? 1 : 2),
    epoch: (broker) => (broker === 'broker-1' && asked > 0 ? 0 : 1),
    produce: (broker) => {
      if (broker === 'broker-1') return OUT_OF_ORDER_SEQUENCE_NUMBER
      return asked++ < 8 ? NOT_ENOUGH_REPLICAS_AFTER_APPEND : DUPLICATE_SEQUENCE_NUMBER
    },
  })
  assert.ok(await send(brokers, ['a'], 60_000))
  assert.equal(brokers.asked.at(-1), 'produce broker-2 as 1')
  assert.ok(!brokers.produced.some((one) => one.startsWith('produce broker-1')))
})

test('K2 a producer unknown to the leader gets a new id', async () => {
  const brokers = new FakeBrokers({
    leader: () => 2,
    produce: (_broker, { batch }) =>
      batch.readBigInt64BE(PRODUCER_ID_AT) === 1n ? OUT_OF_ORDER_SEQUENCE_NUMBER : 0,
  })
  assert.ok(await send(brokers, ['a'], 10_000))
  assert.equal(brokers.asked.at(-1), 'produce broker-2 as 2')
})

test('K3 a silent leader gets more time, until the others name another one', async () => {
  let isMoved = false
  const brokers = new FakeBrokers({
    leader: () => (isMoved ? 2 : 1),
    produce: (broker) => (broker === 'broker-1' ? null : 0),
  })
  brokers.clock.schedule(30_000, () => {
    isMoved = true
  })
  brokers.clock.schedule(29_000, () =>
    assert.equal(brokers.produced.length, 3, '8 s, 16 s, and the third waits'),
  )
  // Within 8 s the third is checked.
  assert.ok(await send(brokers, ['a'], 40_000))
  assert.deepEqual(brokers.produced, [...Array(3).fill('produce broker-1 as 1'), 'produce broker-2 as 1'])
})

test('K3 a silent leader keeps its time although an isolated broker names a previous leader', async () => {
  let isCutOff = false
  const brokers = new FakeBrokers({
    leader: () => (isCutOff ? 1 : 2),
    epoch: () => (isCutOff ? 0 : 1),
    produce: () => null,
  })
  brokers.clock.schedule(12_000, () => {
    isCutOff = true
  })
  await send(brokers, ['a'], 22_000)
  assert.deepEqual(brokers.produced, Array(2).fill('produce broker-2 as 1'))
})

test('K3 the sender abandons an isolated broker that names itself as the leader for another', async () => {
  const brokers = new FakeBrokers({
    leader: (broker) => (broker === 'broker-1' ? 1 : 2),
    produce: (broker) => (broker === 'broker-1' ? REQUEST_TIMED_OUT : 0),
  })
  assert.ok(await send(brokers, ['a'], 1000))
  assert.deepEqual(
    brokers.asked.filter((one) => one.startsWith('metadata')),
    ['metadata broker-1', 'metadata broker-2'],
  )
})

test('K3 a hanging broker delays the lookup of three topics once, not three times', async () => {
  const brokers = new FakeBrokers({
    leader: (broker) => (broker === 'broker-1' ? null : 2),
    produce: () => 0,
  })
  assert.ok(await send(brokers, ['a', 'b', 'c'], 9000))
  assert.equal(brokers.asked.filter((one) => one === 'metadata broker-1').length, 1)
})

test('K7 a missing topic does not hide the leaders of the others', async () => {
  const brokers = new FakeBrokers({
    leader: (_broker, topics) => {
      if (topics.includes('gone')) throw new TapelineError('KAFKA', 'missing', { fix: '' })
      return 2
    },
    produce: () => 0,
  })
  assert.equal(await send(brokers, ['a', 'gone', 'b'], 1000), false)
  assert.equal(brokers.produced.length, 2)
})

test('K7 a partition without enough replicas uses new connections at each attempt, and does not interrupt the others', async () => {
  const LATENCY_MS = 5000
  const brokers = new FakeBrokers({
    leader: () => 1,
    produce: (_broker, { topic }) => (topic === 'sick' ? NOT_ENOUGH_REPLICAS : 0),
    delayMs: ({ topic }) => (topic === 'sick' ? 0 : LATENCY_MS),
  })
  const sender = new RecordSender(CONNECTION, 'test', 'none', brokers)
  const sick = assert.rejects(sender.send([recordOf('sick')], FOREVER))
  const retries: unknown[] = []
  let sent = 0
  const sending = (async () => {
    const onRetry = (error: unknown) => retries.push(error)
    for (; sent < 5; sent++) await sender.send([recordOf('healthy')], { ...FOREVER, onRetry })
  })()
  await brokers.clock.advance(6 * LATENCY_MS)
  assert.deepEqual([sent, retries], [5, []])
  assert.equal(brokers.open.size, 1, 'previous connections are closed')
  const closing = sender.close()
  await brokers.clock.advance(2000)
  await Promise.all([sick, closing, sending])
  assert.equal(brokers.open.size, 0)
})
