import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BrokerAddress, Brokers, ProduceAnswer } from '../src/foundation/kafka/broker-requests.ts'
import type { PartitionBatch } from '../src/foundation/kafka/codec/produce-request.ts'
import { type OutgoingRecord, RecordSender } from '../src/foundation/kafka/record-sender.ts'
import type { ClusterLayout } from '../src/foundation/kafka/topic-metadata.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
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
}

const NEVER = new Promise<never>(() => {})

class FakeBrokers implements Brokers {
  readonly clock = new VirtualClock()
  readonly random = () => 0.5
  /** The requests to each broker, in order. */
  readonly asked: string[] = []
  readonly #behaviour: Behaviour
  #producerIds = 0

  constructor(behaviour: Behaviour) {
    this.#behaviour = behaviour
  }

  openFetcher(): never {
    throw new Error('Nothing is fetched here')
  }

  openProducer({ brokers }: { readonly brokers: readonly string[] }) {
    const [bootstrap = ''] = brokers
    return {
      metadata: async (topics: readonly string[]): Promise<ClusterLayout> => {
        const known = new Map([1, 2].map((node) => [node, { host: `broker-${node}`, port: 9092 }]))
        if (topics.length === 0) return { topics: new Map(), brokers: known }
        this.asked.push(`metadata ${bootstrap}`)
        const leader = this.#behaviour.leader(bootstrap, topics)
        if (leader === null) return NEVER
        const layout = {
          id: '',
          partitions: 1,
          leaders: [leader],
          leaderEpochs: [this.#behaviour.epoch?.(bootstrap) ?? 0],
        }
        return { topics: new Map(topics.map((name) => [name, layout])), brokers: known }
      },
      initProducerId: async () => ({ producerId: BigInt(++this.#producerIds), producerEpoch: 0 }),
      produce: async (
        { host }: BrokerAddress,
        _replicasMs: number,
        batches: readonly PartitionBatch[],
      ): Promise<ProduceAnswer> => {
        const results = batches.map((batch) => {
          this.asked.push(`produce ${host} as ${batch.batch.readBigInt64BE(PRODUCER_ID_AT)}`)
          return { name: batch.topic, errorCode: this.#behaviour.produce(host, batch) }
        })
        if (results.some(({ errorCode }) => errorCode === null)) return NEVER
        return answerOf(batches, (at) => results[at]?.errorCode ?? 0)
      },
      close: async () => {},
    }
  }
}

function answerOf(batches: readonly PartitionBatch[], codeOf: (at: number) => number): ProduceAnswer {
  const responses = batches.map(({ topic }, at) => ({
    name: topic,
    partitionResponses: [
      {
        index: 0,
        errorCode: codeOf(at),
        baseOffset: 0n,
        logAppendTimeMs: -1n,
        logStartOffset: 0n,
        recordErrors: [],
        errorMessage: null,
      },
    ],
  }))
  return { responses, throttleTimeMs: 0 }
}

function recordOf(topic: string): OutgoingRecord {
  return {
    topic,
    partition: 0,
    key: null,
    value: Buffer.from('{}'),
    headers: new Map<Buffer, Buffer>(),
    timestampMs: 0,
  }
}

async function send(brokers: FakeBrokers, topics: readonly string[], forMs: number): Promise<boolean> {
  const connection = { brokers: ['broker-1', 'broker-2'], tls: null, sasl: null }
  const sender = new RecordSender(connection, 'tapeline-test', 'none', brokers)
  const records = topics.map(recordOf)
  let isSent = false
  const sending = sender.send(records, { limitMs: Number.POSITIVE_INFINITY }).then(
    () => {
      isSent = true
    },
    () => {},
  )
  await brokers.clock.advance(forMs)
  const closing = sender.close()
  await brokers.clock.advance(2000)
  await Promise.all([sending, closing])
  return isSent
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
  assert.ok(!brokers.asked.some((one) => one.startsWith('produce broker-1')))
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
  const produced = () => brokers.asked.filter((one) => one.startsWith('produce'))
  brokers.clock.schedule(29_000, () => assert.equal(produced().length, 3, '8 s, 16 s, and the third waits'))
  // Within 8 s the third is checked.
  assert.ok(await send(brokers, ['a'], 40_000))
  assert.deepEqual(produced(), [...Array(3).fill('produce broker-1 as 1'), 'produce broker-2 as 1'])
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
  assert.deepEqual(
    brokers.asked.filter((one) => one.startsWith('produce')),
    Array(2).fill('produce broker-2 as 1'),
  )
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
  assert.equal(brokers.asked.filter((one) => one.startsWith('produce')).length, 2)
})

test('K7 a partition without enough replicas uses new connections at each attempt, and does not interrupt the others', async () => {
  const LATENCY_MS = 5000
  const clock = new VirtualClock()
  const open: object[] = []
  const brokers: Brokers = {
    clock,
    random: () => 0.5,
    openFetcher: () => {
      throw new Error('Nothing is fetched here')
    },
    openProducer: () => {
      const closed = Promise.withResolvers<never>()
      closed.promise.catch(() => {})
      const requests = {
        metadata: async (topics: readonly string[]) => ({
          topics: new Map(
            topics.map((name) => [name, { id: '', partitions: 1, leaders: [1], leaderEpochs: [0] }]),
          ),
          brokers: new Map([[1, { host: 'broker-1', port: 9092 }]]),
        }),
        initProducerId: async () => ({ producerId: 1n, producerEpoch: 0 }),
        produce: async (_broker: BrokerAddress, _replicasMs: number, batches: readonly PartitionBatch[]) => {
          const isSick = batches.some(({ topic }) => topic === 'sick')
          const answered = new Promise<void>((resolve) => clock.schedule(isSick ? 0 : LATENCY_MS, resolve))
          await Promise.race([answered, closed.promise])
          return answerOf(batches, () => (isSick ? NOT_ENOUGH_REPLICAS : 0))
        },
        close: async () => {
          open.splice(open.indexOf(requests), 1)
          closed.reject(new Error('closed'))
        },
      }
      open.push(requests)
      return requests
    },
  }
  const sender = new RecordSender({ brokers: ['broker-1'], tls: null, sasl: null }, 'test', 'none', brokers)
  const sick = assert.rejects(sender.send([recordOf('sick')], { limitMs: Number.POSITIVE_INFINITY }))
  const retries: unknown[] = []
  let sent = 0
  const sending = (async () => {
    for (; sent < 5; sent++) {
      const onRetry = (error: unknown) => retries.push(error)
      await sender.send([recordOf('healthy')], { limitMs: Number.POSITIVE_INFINITY, onRetry })
    }
  })()
  await clock.advance(6 * LATENCY_MS)
  assert.deepEqual([sent, retries], [5, []])
  assert.equal(open.length, 1, 'previous connections are closed')
  const closing = sender.close()
  await clock.advance(2000)
  await Promise.all([sick, closing, sending])
  assert.equal(open.length, 0)
})
