import assert from 'node:assert/strict'
import { test } from 'node:test'
import { partitionOf } from '../src/foundation/kafka/partition.ts'
import type { PartitionStatus } from '../src/foundation/telemetry/status.ts'
import { createConsumerParts, trades } from './support/consumer-parts.ts'
import { BROKERS_VARIABLE, brokers } from './support/kafka.ts'
import { withAdmin } from './support/kafka-clients.ts'
import { startKafkaCluster } from './support/kafka-cluster.ts'
import { produce } from './support/messages.ts'
import { startConsumerProcess, untilCaughtUp } from './support/services.ts'
import { until } from './support/wait-for.ts'

test('F9 a partition without a leader keeps its last lag, reports its age, and hides no other', {
  timeout: 300_000,
}, async () => {
  const shared = brokers().join()
  const cluster = await startKafkaCluster()
  process.env[BROKERS_VARIABLE] = cluster.brokers
  try {
    const mine = partitionOf('BTCUSDT', 3)
    const lost = (mine + 1) % 3
    await using parts = await createConsumerParts('migrated')
    const topic = `${parts.topics.env.KAFKA_TRADES_TOPIC}-spread`
    const assignments = [0, 1, 2].map((partition) => ({ partition, brokers: [partition === lost ? 3 : 1] }))
    const configs = [{ name: 'min.insync.replicas', value: '1' }]
    await withAdmin(brokers(), (admin) =>
      admin.createTopics({ topics: [topic], partitions: -1, replicas: -1, configs, assignments }),
    )
    await using consumer = await startConsumerProcess({ ...parts.env, KAFKA_TRADES_TOPIC: topic })
    await produce(topic, 'BTCUSDT', trades(0, 100))
    await untilCaughtUp(consumer)
    await cluster.kill(3)
    await produce(topic, 'BTCUSDT', trades(100, 200))
    const find = (partitions: readonly PartitionStatus[], partition: number) =>
      partitions.find((one) => one.topic === topic && one.partition === partition) ?? assert.fail('not ours')
    await until(
      'the lag of only one partition to become old',
      async () => {
        const { partitions } = await consumer.status()
        // The other topics have one replica, on any of the brokers.
        const others = partitions.filter((one) => one.topic === topic && one.partition !== lost)
        return find(partitions, lost).lagAgeMs > 10_000 && others.every((one) => one.lagAgeMs < 6000)
      },
      90_000,
    )
    const { partitions } = await consumer.status()
    assert.equal(find(partitions, lost).lag, 0)
    assert.equal(find(partitions, mine).endOffset, 200)
    await cluster.restart(3)
    await untilCaughtUp(consumer)
    await consumer.stop()
  } finally {
    process.env[BROKERS_VARIABLE] = shared
    await cluster.stop()
  }
})
