import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Admin } from '@platformatic/kafka'
import { kafkaPort } from '../src/foundation/kafka/kafka-port.ts'
import { type KafkaCluster, startKafkaCluster } from './support/kafka-cluster.ts'
import { readTopic } from './support/messages.ts'
import { waitFor, within } from './support/wait-for.ts'

const TOPICS = ['sent.one', 'sent.two'] as const
const PARTITIONS = 3
const NODES = [1, 2, 3]
/** From a SIGKILL to the next acknowledgement: the cluster takes up to 10 s to elect other leaders. */
const ACKNOWLEDGED_WITHIN_MS = 20_000

let cluster: KafkaCluster

before(async () => {
  cluster = await startKafkaCluster()
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: cluster.brokers.split(',') })
  try {
    const configs = [{ name: 'min.insync.replicas', value: '2' }]
    await admin.createTopics({ topics: [...TOPICS], partitions: PARTITIONS, replicas: 3, configs })
  } finally {
    await admin.close()
  }
  await waitFor(allInSync, { timeoutMs: 30_000, what: 'replicas in sync' })
})

after(() => cluster?.stop())

async function allInSync(): Promise<boolean> {
  const partitions = await cluster.partitions(TOPICS)
  return (
    partitions.length === TOPICS.length * PARTITIONS && partitions.every((one) => one.inSync.length === 3)
  )
}

test('acknowledges every send while brokers are killed one after the other and leaders move apart, nothing twice', async (t) => {
  const brokers = cluster.brokers.split(',')
  const producer = kafkaPort({ brokers, tls: null, sasl: null }).producer('tapeline-test', 'lz4')
  let sent = 0
  /** One record for each partition of both topics. */
  const send = async () => {
    const number = sent
    await producer.send(
      TOPICS.flatMap((topic) =>
        Array.from({ length: PARTITIONS }, (_, partition) => ({
          topic,
          partition,
          key: null,
          value: Buffer.from(String(number)),
          headers: new Map<Buffer, Buffer>(),
          timestampMs: Date.now(),
        })),
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
      await waitFor(() => sent > before + 10, {
        timeoutMs: ACKNOWLEDGED_WITHIN_MS,
        what: `acknowledgements after the kill of broker ${node}`,
      })
      await cluster.restart(node)
      await waitFor(allInSync, { timeoutMs: 60_000, what: `broker ${node} in sync again` })
    }
  } finally {
    stopped = true
    await within(ACKNOWLEDGED_WITHIN_MS, 'the last send', () => sending).finally(() => producer.close())
  }
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
