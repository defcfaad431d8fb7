import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createConsumerParts, trades } from './support/consumer-parts.ts'
import { startSilentProxy } from './support/loopback.ts'
import { produce } from './support/messages.ts'
import { startConsumerProcess, untilCaughtUp } from './support/services.ts'
import { until } from './support/wait-for.ts'

/** Small batches, so that fetching soon pauses: most of the 20,000 messages are never fetched. */
const SMALL_BATCHES = { BATCH_SIZE: '50' }
const WAITING = 20_000

test("F9 the lag grows with Kafka's messages while the database is down", async () => {
  await using parts = await createConsumerParts('migrated')
  await using proxy = await startSilentProxy(parts.databaseUrl)
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  await using consumer = await startConsumerProcess({
    ...parts.env,
    ...SMALL_BATCHES,
    DATABASE_URL: proxy.url,
  })
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await parts.untilTrades(100)
  await untilCaughtUp(consumer)
  proxy.goSilent()
  await produce(topic, 'BTCUSDT', trades(100, 100 + WAITING))
  const lagOf = async () =>
    (await consumer.status()).partitions.find(({ lag }) => lag !== null && lag > 0)?.lag ?? 0
  await until(
    `a lag of ${WAITING}, which is ${await lagOf()}`,
    async () => (await lagOf()) >= WAITING,
    30_000,
  )
  assert.equal(await lagOf(), WAITING)
  const metrics = await (await fetch(`${consumer.url}/metrics`)).text()
  assert.match(metrics, new RegExp(`tapeline_consumer_lag_messages{[^}]*} ${WAITING}\n`))
  await consumer.command.kill()
})
