import assert from 'node:assert/strict'
import { test } from 'node:test'
import { wallMs } from '../src/foundation/runtime/clock.ts'
import { mulberry32, Random } from '../src/sandbox/simulator/market/random.ts'
import type { KafkaOptions } from './simulation/kafka.ts'
import { SimulatedKafka } from './simulation/kafka.ts'
import { outgoing } from './support/kafka-clients.ts'
import { LifeClock } from './support/life-clock.ts'
import { VirtualClock } from './support/virtual-clock.ts'
import { WallClock } from './support/wall-clock.ts'

const TOPIC = 't'
const PLACES = [0, 1, 2].map((partition) => ({ topic: TOPIC, partition }))
const MINUTE = 60_000

/** One process with one cluster. */
class Process {
  readonly clock = new VirtualClock()
  readonly wall = new WallClock(this.clock)
  readonly life = new LifeClock(this.clock, this.wall)
  readonly kafka: SimulatedKafka
  readonly port: ReturnType<SimulatedKafka['access']>
  readonly producer: ReturnType<Process['port']['producer']>
  readonly stored: string[] = []

  constructor(defect?: KafkaOptions['defect']) {
    const options = {
      topics: [TOPIC],
      compacted: '',
      copies: () => 1,
      ...(defect === undefined ? {} : { defect }),
    }
    this.kafka = new SimulatedKafka(options, this.clock, new Random(1, mulberry32), ({ value }) =>
      this.stored.push(String(value)),
    )
    this.port = this.kafka.access(this.life, 1)
    this.producer = this.port.producer('test', 'none')
  }

  get cluster() {
    return this.kafka.cluster
  }

  partition(index: number) {
    const partition = this.cluster.partition(TOPIC, index)
    if (partition === undefined) throw new RangeError(`No partition ${index}`)
    return partition
  }

  /** Sends this text to each partition. */
  send(text: string): Promise<void> {
    const timestampMs = wallMs(this.life)
    const records = PLACES.map((place) => outgoing({ ...place, value: Buffer.from(text), timestampMs }))
    return this.producer.send(records, { limitMs: Number.POSITIVE_INFINITY })
  }

  /** Whether the promise settles within this time. */
  async settles(promise: Promise<unknown>, ms: number): Promise<boolean> {
    let settled = false
    promise.then(
      () => (settled = true),
      () => (settled = true),
    )
    await this.clock.advance(ms)
    return settled
  }
}

type Defect = NonNullable<KafkaOptions['defect']>

/** Checks what correct code does, and that a planted defect prevents it. */
function testWithout(
  defect: Defect,
  does: string,
  when: string,
  check: (it: Process, expected: boolean) => Promise<void>,
): void {
  test(`${does}, ${when}`, () => check(new Process(), true))
  test(`finds a planted defect: ${defect}, ${when}`, () => check(new Process(defect), false))
}

testWithout(
  'the producer id is kept',
  'K2 continues',
  'after a partition has lost its tail',
  async (it, expected) => {
    for (const text of ['a', 'b', 'c']) assert.ok(await it.settles(it.send(text), 1000))
    assert.ok(it.cluster.electUnclean(it.partition(0), 2))
    assert.equal(await it.settles(it.send('d'), MINUTE), expected)
    assert.equal(it.cluster.complaints.length, 0)
  },
)

testWithout(
  'a refused time is not renewed',
  'K4 continues',
  'once a fast clock is right',
  async (it, expected) => {
    it.wall.set(8 * 60 * MINUTE)
    const sent = it.send('a')
    assert.equal(await it.settles(sent, 20_000), false)
    it.wall.set(0)
    assert.equal(await it.settles(sent, MINUTE), expected)
    assert.equal(it.stored.length, expected ? PLACES.length : 0)
  },
)

testWithout(
  'the fetcher looks up leaders once',
  'A reader continues',
  'after its partition has moved to another broker',
  async (it, expected) => {
    const fetcher = it.port.fetcher('test', [TOPIC])
    await Promise.all([fetcher.connect(), it.clock.advance(1000)])
    assert.ok(await it.settles(it.send('a'), 1000))
    it.cluster.reassign(it.partition(0))
    await it.clock.advance(5000)
    const values: string[] = []
    const read = async () => {
      const node = fetcher.leaderOf(TOPIC, 0) ?? -1
      const limits = { maxWaitMs: 10, minBytes: 1, maxBytes: 1 << 20 }
      const [fetched] = await fetcher.fetch(node, [{ topic: TOPIC, partition: 0, offset: 0 }], limits)
      for (const { value } of fetched?.messages ?? []) values.push(String(value))
    }
    for (let attempt = 0; attempt < 3; attempt++) await it.settles(read(), 1000)
    assert.equal(values.includes('a'), expected)
  },
)

testWithout(
  'the sender waits without limit',
  'K3 sends continue',
  'while a leader hangs and another is elected',
  async (it, expected) => {
    assert.ok(await it.settles(it.send('a'), 1000))
    it.cluster.disturb(it.partition(0).leadership.leader, 'hung', 10 * MINUTE)
    assert.equal(await it.settles(it.send('b'), 25_000), expected)
  },
)

testWithout(
  'the sender has one bootstrap broker',
  'K3 a sender starts',
  'while the first bootstrap broker hangs',
  async (it, expected) => {
    it.cluster.disturb(1, 'hung', 10 * MINUTE)
    assert.equal(await it.settles(it.send('a'), MINUTE), expected)
  },
)

test('K3 a broker that was isolated from the others loses messages that it never replicated', async () => {
  const it = new Process()
  const old = it.partition(0).leadership.leader
  assert.ok(await it.settles(it.send('a'), 1000))
  it.cluster.disturb(old, 'cut off', 30_000)
  assert.ok(await it.settles(it.send('b'), 29_000))
  assert.notEqual(it.partition(0).leadership.leader, old)
  await it.clock.advance(MINUTE)
  assert.deepEqual(it.cluster.complaints, [])
  assert.deepEqual(it.stored.toSorted(), ['a', 'a', 'a', 'b', 'b', 'b'])
})
