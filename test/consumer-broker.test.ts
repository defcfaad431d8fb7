import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { type KafkaBroker, startKafkaBroker } from '../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../src/sandbox/kafka-broker/kafka-distribution.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { createConsumerParts, trades } from './support/consumer-parts.ts'
import { BROKERS_VARIABLE, brokers } from './support/kafka.ts'
import { produce } from './support/messages.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

const shared = brokers().join()
let folder: string
let broker: KafkaBroker
let start: () => Promise<KafkaBroker>

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'consumer-broker-'))
  const port = await freePort()
  const distributionDir = await ensureKafkaDistribution({
    cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? tmpdir(),
  })
  start = () => startKafkaBroker({ distributionDir, dataDir: join(folder, 'kafka'), port })
  broker = await start()
  // A separate broker, which these tests may kill.
  process.env[BROKERS_VARIABLE] = broker.brokers
})

afterEach(async () => {
  process.env[BROKERS_VARIABLE] = shared
  broker.kill()
  await broker.exited
  await rm(folder, { recursive: true, force: true })
})

test('F7 waits for an unavailable broker, reports it, and rejoins automatically', async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  await produce(topic, 'BTCUSDT', trades(0, 1000))
  await using consumer = await startConsumerProcess(parts.env)
  await parts.untilTrades(1000)
  broker.kill()
  await broker.exited
  const isNamed = async () =>
    /^(nothing can be fetched|the consumer group cannot be joined): ./.test((await consumer.status()).reason)
  await until('readiness to name the error of Kafka', isNamed)
  broker = await start()
  await produce(topic, 'BTCUSDT', trades(1000, 2000))
  await parts.untilTrades(2000, 60_000)
  await consumer.ready(60_000)
  await consumer.stop()
  await parts.assertTradesOnce(0, 1999)
})

test('S2 stores its messages and exits 0 when Kafka is down at shutdown; no row is duplicated afterwards', async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  const slow = { ...parts.env, FLUSH_INTERVAL_MS: '600000', KAFKA_FETCH_MAX_WAIT_MS: '50' }
  {
    await using consumer = await startConsumerProcess(slow)
    await consumer.ready()
    await produce(topic, 'BTCUSDT', trades(0, 100))
    await until('100 messages in memory', async () => (await consumer.status()).counters.pending === 100)
    broker.kill()
    await broker.exited
    consumer.command.signal('SIGTERM')
    await consumer.command.assertExit(0, 12_000)
    assert.match(consumer.command.output(), /Kafka did not accept the last commit of the group/)
    assert.match(consumer.command.output(), /0 messages left/)
  }
  await parts.assertTradesOnce(0, 99)
  broker = await start()
  await produce(topic, 'BTCUSDT', trades(100, 150))
  assert.equal((await parts.store(150)).consumed, 50)
  await parts.assertTradesOnce(0, 149)
})

test('S3 exits immediately at the second signal, although the database holds a batch', async () => {
  await using parts = await createConsumerParts('migrated')
  await using consumer = await startConsumerProcess(parts.env)
  await consumer.ready()
  await parts.database.transaction(async (connection) => {
    await connection.query('LOCK TABLE trades IN ACCESS EXCLUSIVE MODE')
    await produce(parts.topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 10))
    await until('10 messages in memory', async () => (await consumer.status()).counters.pending === 10)
    consumer.command.signal('SIGTERM')
    // An immediate second signal counts as npm's echo of the first, so it is repeated.
    const isGone = () => {
      try {
        consumer.command.signal('SIGTERM')
        return false
      } catch {
        return true
      }
    }
    await until('the consumer to be gone', isGone, 6000)
    await consumer.command.assertExit(1)
    assert.doesNotMatch(consumer.command.output(), /read from Kafka and not stored/)
  })
})
