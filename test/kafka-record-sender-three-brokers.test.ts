import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { kafkaPort } from '../src/foundation/kafka/kafka-port.ts'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { connectionTo, outgoing, withAdmin } from './support/kafka-clients.ts'
import { type KafkaCluster, startKafkaCluster } from './support/kafka-cluster.ts'
import { readTopic } from './support/messages.ts'
import { until, within } from './support/wait-for.ts'

const TOPICS = ['sent.one', 'sent.two'] as const
const PARTITIONS = 3
const NODES = [1, 2, 3]
/** After a SIGKILL: the cluster needs up to 10 s to elect other leaders. */
const ACKNOWLEDGED_WITHIN_MS = 20_000

let cluster: KafkaCluster

before(async () => {
  cluster = await startKafkaCluster()
  const configs = [{ name: 'min.insync.replicas', value: '2' }]
  await withAdmin(cluster.brokers.split(','), (admin) =>
    admin.createTopics({ topics: [...TOPICS], partitions: PARTITIONS, replicas: 3, configs }),
  )
  await until('replicas in sync', allInSync)
})

after(() => cluster?.stop())

async function allInSync(): Promise<boolean> {
  const partitions = await cluster.partitions(TOPICS)
  return (
    partitions.length === TOPICS.length * PARTITIONS && partitions.every((one) => one.inSync.length === 3)
  )
}

test('K1 K2 acknowledges every send once while brokers are killed one after the other and leaders move', async (t) => {
  const brokers = cluster.brokers.split(',')
  const producer = kafkaPort(connectionTo(brokers)).producer('tapeline-test', 'lz4')
  const reader = new PartitionFetcher(connectionTo(brokers), 'tapeline-test', [...TOPICS])
  // A broker may learn of new topics later than the one that has created them.
  await until('the topics on every broker', () => reader.connect().then(() => true))
  let sent = 0
  /** One record for each partition of both topics. */
  const send = async () => {
    const number = sent
    await producer.send(
      TOPICS.flatMap((topic) =>
        Array.from({ length: PARTITIONS }, (_, partition) =>
          outgoing({ topic, partition, value: Buffer.from(String(number)) }),
        ),
      ),
      { limitMs: Number.POSITIVE_INFINITY },
    )
    sent++
  }
  let longestMs = 0
  let stopped = false
  const sending = (async () => {
    while (!stopped) {
      const startedMs = performance.now()
      await send()
      longestMs = Math.max(longestMs, performance.now() - startedMs)
    }
  })()
  try {
    for (const node of NODES) {
      await cluster.kill(node)
      const before = sent
      await until(
        `acknowledgements after the kill of broker ${node}`,
        () => sent > before + 10,
        ACKNOWLEDGED_WITHIN_MS,
      )
      await cluster.restart(node)
      await until(`broker ${node} in sync again`, allInSync)
    }
  } finally {
    stopped = true
    await within(ACKNOWLEDGED_WITHIN_MS, 'the last send', () => sending).finally(() => producer.close())
  }
  const leadersMoved = (await cluster.partitions(TOPICS)).filter(
    ({ topic, partition, leader }) => reader.leaderOf(topic, partition) !== leader,
  )
  assert.ok(leadersMoved.length > 0)
  for (const { topic, partition } of leadersMoved) {
    await until(`a previously connected reader to find the leader of ${topic}/${partition}`, async () => {
      const node = reader.leaderOf(topic, partition) ?? 0
      const limits = { maxWaitMs: 100, minBytes: 1, maxBytes: 1 << 20 }
      const [fetched] = await reader.fetch(node, [{ topic, partition, offset: 0 }], limits)
      return fetched?.error === null && fetched.messages.length > 0
    })
  }
  await reader.close()
  t.diagnostic(`${sent} sends; the longest took ${(longestMs / 1000).toFixed(1)} s`)
  const expected = Array.from({ length: sent }, (_, number) => String(number))
  for (const topic of TOPICS) {
    const messages = await readTopic(topic, brokers)
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const values = messages.filter((one) => one.partition === partition).map(({ value }) => String(value))
      assert.deepEqual(values, expected, `${topic}/${partition}`)
    }
  }
})

test('K4 a record refused for a time too far ahead is written with the present time once the clock is right', async () => {
  const brokers = cluster.brokers.split(',')
  const producer = kafkaPort(connectionTo(brokers)).producer('tapeline-test', 'lz4')
  const reasons: string[] = []
  const record = (topic: string, text: string, aheadMs: number) =>
    outgoing({ topic, value: Buffer.from(text), timestampMs: Date.now() + aheadMs })
  try {
    const [one, other] = TOPICS
    const records = [record(one, 'ahead', 8 * 3_600_000), record(other, 'on time', 0)]
    const onRetry = (error: unknown) => reasons.push(String(error))
    const offsets: number[] = []
    await within(10_000, 'the send', () =>
      producer.send(records, {
        limitMs: 10_000,
        onRetry,
        onAcknowledged: ({ offset }) => offsets.push(offset),
      }),
    )
    assert.equal(offsets.length, 2)
    await producer.send([record(one, 'next', 0)])
  } finally {
    await producer.close()
  }
  assert.match(reasons.join(), /INVALID_TIMESTAMP.*clock of this machine/)
  const last = async (topic: string, count: number) =>
    (await readTopic(topic, brokers))
      .filter(({ partition }) => partition === 0)
      .slice(-count)
      .map(({ value }) => String(value))
  assert.deepEqual(await last(TOPICS[0], 2), ['ahead', 'next'])
  assert.deepEqual(await last(TOPICS[1], 1), ['on time'])
})
