import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Brokers } from '../src/foundation/kafka/broker-requests.ts'
import type { PartitionBatch } from '../src/foundation/kafka/codec/produce-request.ts'
import { sendGapRows } from '../src/foundation/kafka/gap-sender.ts'
import type { KafkaPort } from '../src/foundation/kafka/kafka-port.ts'
import { readEnds } from '../src/foundation/kafka/read-range.ts'
import { RecordSender } from '../src/foundation/kafka/record-sender.ts'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { type KafkaLiveness, kafkaLiveness } from '../src/ingestion/kafka-liveness.ts'
import { KafkaProducer } from '../src/ingestion/kafka-producer.ts'
import { TopicWatch } from '../src/ingestion/topic-watch.ts'
import { outgoing } from './support/core-alone.ts'
import { PRODUCED } from './support/record-batches.ts'
import { gapRow } from './support/records.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const NOT_ENOUGH_REPLICAS = 19
const TOPIC_AUTHORIZATION_FAILED = 29

const CONNECTION = { brokers: ['broker:9092'], tls: null, sasl: null }

/** One broker that answers each batch as the test requires: an error code, or null for silence. */
class Trouble {
  readonly clock = new VirtualClock()
  readonly warnings: string[] = []
  readonly producer: KafkaProducer
  readonly liveness: KafkaLiveness
  /** By `topic/partition`: the error code of the answer. */
  answer: (place: string) => number | null = () => 0
  /** The leaders of each topic, by partition. */
  leaders = [1, 1]
  /** Whether the broker answers at all. */
  isThere = true
  /** How long an answer takes. */
  answerMs = 0

  constructor() {
    const { clock } = this
    const log = createLogger('test', 'silent')
    log.warn = (...args: unknown[]) => void this.warnings.push(String(args.at(-1)))
    const cluster = async (topics: readonly string[]) => {
      if (!this.isThere) throw new Error('connection refused')
      const layout = { id: 'id', partitions: 2, leaders: this.leaders, leaderEpochs: [0, 0] }
      const brokers = new Map([1, 2].map((node) => [node, { host: 'broker', port: 9092 }]))
      return { topics: new Map(topics.map((name) => [name, layout])), brokers }
    }
    const to: Brokers = {
      clock,
      random: () => 0.5,
      openProducer: () => ({
        metadata: cluster,
        initProducerId: async () => ({ producerId: 1n, producerEpoch: 0 }),
        produce: async (_broker, _replicasMs, batches) => this.#produce(batches),
        close: async () => {},
      }),
      openFetcher: () => assert.fail('not used'),
    }
    const kafka = {
      producer: () => new RecordSender(CONNECTION, 'test', 'none', to),
      fetcher: () => ({
        connect: async () => (await cluster([])).topics,
        offsetRanges: async () => [],
        close: async () => {},
      }),
    }
    const options = { compression: 'none', batchSize: 100, queueMaxBytes: 1 << 20, lingerMs: 10 } as const
    this.producer = new KafkaProducer(options, { clock, kafka }, log)
    this.liveness = kafkaLiveness({ clock, kafka: kafka as never }, [], this.producer, log)
    this.producer.start({ onAcknowledged() {}, onDiscarded() {}, onKept() {}, onDefect: assert.ifError })
  }

  send(topic: string, partition: number): void {
    this.producer.queue.push(outgoing({ topic, partition, queuedAtMs: this.clock.monotonicMs() }))
  }

  /** Watches whether Kafka acknowledges while the test acts. */
  async watching(act: () => Promise<void>): Promise<void> {
    const stopping = new AbortController()
    const watching = this.liveness.watch(stopping.signal)
    await act()
    stopping.abort()
    await this.clock.advance(10_000)
    await watching
  }

  async #produce(batches: readonly PartitionBatch[]) {
    if (!this.isThere) throw new Error('connection refused')
    const answers = batches.map(({ topic, partition }) => ({
      topic,
      partition,
      code: this.answer(`${topic}/${partition}`),
    }))
    if (answers.some(({ code }) => code === null)) return new Promise<never>(() => {})
    if (this.answerMs > 0) await sleep(this.answerMs, undefined, this.clock)
    return {
      throttleTimeMs: 0,
      responses: answers.map(({ topic, partition, code }) => ({
        name: topic,
        partitionResponses: [{ ...PRODUCED, index: partition, errorCode: code ?? 0 }],
      })),
    }
  }
}

test('K7 a partition that requires a retry does not stop the others, also when its messages were sent alone', async () => {
  const kafka = new Trouble()
  kafka.answer = (place) => (place === 'quotes/0' ? NOT_ENOUGH_REPLICAS : 0)
  kafka.send('quotes', 0)
  await kafka.clock.advance(100)
  kafka.send('trades', 0)
  await kafka.clock.advance(10_000)
  assert.equal(kafka.producer.batches.acknowledged, 1, 'the trade')
})

test('a stop delivers what waits for a partition that Kafka takes again meanwhile', async () => {
  const kafka = new Trouble()
  let isRefused = true
  kafka.answerMs = 50
  kafka.answer = (place) => (place === 'quotes/0' && isRefused ? NOT_ENOUGH_REPLICAS : 0)
  kafka.send('quotes', 0)
  await kafka.clock.advance(100)
  kafka.send('trades', 0)
  await kafka.clock.advance(10_000)
  kafka.send('quotes', 0)
  await kafka.clock.advance(100)
  assert.equal(kafka.producer.batches.held.status(0)[0]?.messages, 2)
  const stopped = kafka.producer.stop(new AbortController().signal)
  isRefused = false
  await kafka.clock.advance(10_000)
  assert.deepEqual(await stopped, [])
  assert.equal(kafka.producer.batches.acknowledged, 3)
})

test('K9 waiting for start records does not wait for a ledger that Kafka refuses', async () => {
  const kafka = new Trouble()
  kafka.answer = (place) => (place === 'gaps/0' ? NOT_ENOUGH_REPLICAS : 0)
  kafka.send('checkpoints', 0)
  kafka.send('gaps', 0)
  let isStarted = false
  void kafka.producer.allAcknowledged('checkpoints', new AbortController().signal).then(() => {
    isStarted = true
  })
  await kafka.clock.advance(10_000)
  assert.ok(isStarted)
})

test('C8 ends of a topic recreated during the read are not those of the previous one', async () => {
  let id = 'before'
  const layout = () => ({ id, partitions: 1, leaders: [1], leaderEpochs: [0] })
  const to: Brokers = {
    clock: new VirtualClock(),
    random: () => 0.5,
    openProducer: () => assert.fail('nothing is sent here'),
    openFetcher: () => ({
      metadata: async () => ({ topics: new Map([['t', layout()]]), brokers: new Map() }),
      offsets: async () => {
        id = 'after'
        return [{ topic: 't', partition: 0, offset: 0 }]
      },
      fetch: () => assert.fail('nothing is fetched here'),
      close: async () => {},
    }),
  }
  await assert.rejects(readEnds(CONNECTION, 'test', ['t'], to), /recreated/)
  assert.deepEqual((await readEnds(CONNECTION, 'test', ['t'], to))[0]?.topicId, 'after')
})

test('K9 a full held partition does not stop the others, also after a while without acknowledgements', async () => {
  const kafka = new Trouble()
  const { batches } = kafka.producer
  kafka.answer = (place) => (place === 'quotes/0' ? NOT_ENOUGH_REPLICAS : 0)
  kafka.send('trades', 0)
  await kafka.clock.advance(20_000)
  for (let sent = 0; sent < 2100; sent++) kafka.send('quotes', 0)
  await kafka.clock.advance(20_000)
  for (let sent = 0; sent < 500; sent++) kafka.send('quotes', 0)
  kafka.send('trades', 0)
  await kafka.clock.advance(11_000)
  assert.equal(batches.acknowledged, 2, 'both trades')
  kafka.answer = () => 0
  await kafka.clock.advance(10_000)
  assert.equal(kafka.producer.queued, 0)
  assert.equal(batches.acknowledged + batches.discarded, 2602)
})

test('K5 the alternating reasons of two partitions are not logged at every attempt', async () => {
  const kafka = new Trouble()
  kafka.answer = (place) => (place === 'trades/0' ? 0 : NOT_ENOUGH_REPLICAS)
  kafka.send('quotes', 0)
  kafka.send('trades', 0)
  await kafka.clock.advance(5000)
  kafka.send('quotes', 1)
  kafka.send('trades', 0)
  await kafka.clock.advance(5000)
  kafka.warnings.length = 0
  await kafka.clock.advance(58_000)
  assert.ok(kafka.warnings.length <= 4, `${kafka.warnings.length} lines in a minute`)
})

test('K9 a slow partition has a different reason from a refused one of the same send', async () => {
  const kafka = new Trouble()
  kafka.answer = (place) =>
    place === 'quotes/0' ? TOPIC_AUTHORIZATION_FAILED : place === 'trades/1' ? null : 0
  kafka.leaders = [1, 2]
  kafka.send('quotes', 0)
  kafka.send('trades', 1)
  await kafka.clock.advance(60_000)
  const reasons = kafka.producer.batches.held
    .status(0)
    .map(({ topic, partition, reason }) => [`${topic}/${partition}`, reason] as const)
  assert.match(new Map(reasons).get('quotes/0') ?? '', /right/)
  assert.match(new Map(reasons).get('trades/1') ?? '', /not answered/)
})

test('L6 requests to reopen gaps are not sent after their signal has aborted', async () => {
  const nowhere = { ...CONNECTION, brokers: ['127.0.0.1:1'] }
  const stopped = AbortSignal.abort(new Error('stopping'))
  await assert.rejects(sendGapRows(nowhere, 'gaps', [gapRow()], stopped), /^Error: stopping$/)
})

test('K10 a Kafka without enough replicas is no fault of this process', async () => {
  const kafka = new Trouble()
  await kafka.watching(async () => {
    kafka.answer = () => NOT_ENOUGH_REPLICAS
    kafka.send('quotes', 0)
    await kafka.clock.advance(10 * 60_000)
    assert.equal(kafka.liveness.reason(), '')
    // A silent leader is one.
    kafka.answer = () => null
    await kafka.clock.advance(10 * 60_000)
    assert.notEqual(kafka.liveness.reason(), '')
  })
})

test('K10 a Kafka that has just returned has time to acknowledge', async () => {
  const kafka = new Trouble()
  await kafka.watching(async () => {
    kafka.isThere = false
    kafka.send('quotes', 0)
    await kafka.clock.advance(10 * 60_000)
    assert.equal(kafka.liveness.reason(), '')
    kafka.isThere = true
    kafka.answer = () => null
    await kafka.clock.advance(15_000)
    assert.equal(kafka.liveness.reason(), '')
  })
})

test('C8 a broker that still reports the id of a deleted topic does not restore that topic', async () => {
  const ids = ['old', 'old', 'new', 'old', 'new', 'newest']
  const topicsOf = (id = '') => new Map([['trades', { id, partitions: 1 }]])
  const unused = () => assert.fail()
  const kafka = {
    fetcher: () => ({
      connect: async () => topicsOf(ids.shift()),
      leaderOf: unused,
      offsetRanges: unused,
      fetch: unused,
      read: unused,
      close: async () => {},
    }),
  }
  const recreated: string[] = []
  const events = {
    onRecreated: () => recreated.push(watch.idOf('trades')),
    onFatal: (error: Error) => assert.fail(error),
  }
  const watch: TopicWatch = new TopicWatch(kafka, topicsOf('old'), events, createLogger('test', 'silent'))
  const seen: string[] = []
  while (ids.length > 0) {
    assert.equal(await watch.check(), true)
    seen.push(watch.idOf('trades'))
  }
  assert.deepEqual(recreated, ['new', 'newest'])
  assert.deepEqual(seen, ['old', 'old', 'new', 'new', 'new', 'newest'])
})

const LINGER_MS = 10

/** Truncates delays to milliseconds and counts timers from the start of its tick, as Node does. */
class TimersOfNode extends VirtualClock {
  timers = 0

  override schedule(delayMs: number, run: () => void): () => void {
    this.timers++
    const tickBeganMs = Math.floor(this.monotonicMs() * 4) / 4
    return super.schedule(Math.max(1, Math.trunc(delayMs)) + tickBeganMs - this.monotonicMs(), run)
  }
}

/** Acknowledges at once. */
const prompt: Pick<KafkaPort, 'producer'> = {
  producer: () => ({
    topics: async () => new Map(),
    async send(records, options) {
      options?.onAcknowledged?.({ topic: 'trades', partition: 0, offset: 0 }, records)
    },
    close: async () => {},
  }),
}

test('waits for a batch with one timer, and sends it when its oldest message has waited for the linger', async () => {
  const clock = new TimersOfNode()
  const waitsMs: number[] = []
  const producer = new KafkaProducer(
    { compression: 'none', batchSize: 500, queueMaxBytes: 1 << 20, lingerMs: LINGER_MS },
    { clock, kafka: prompt },
    createLogger('test', 'silent'),
  )
  producer.start({
    onAcknowledged: ([first]) => waitsMs.push(clock.monotonicMs() - (first?.queuedAtMs ?? 0)),
    onDiscarded: () => assert.fail('discarded'),
    onKept: () => assert.fail('kept after discarded ones'),
    onDefect: (error) => assert.fail(String(error)),
  })
  for (let i = 0; i < 1000; i++) {
    await clock.advance(1.1)
    producer.queue.push(outgoing({ queuedAtMs: clock.monotonicMs() }))
  }
  await clock.advance(2 * LINGER_MS)
  await producer.stop(AbortSignal.abort())
  assert.equal(clock.timers, waitsMs.length)
  assert.ok(waitsMs.length > 80)
  for (const ms of waitsMs) assert.ok(Math.abs(ms - LINGER_MS) <= 1, `${ms} ms`)
})
