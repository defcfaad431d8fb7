import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertConserved, createConsumerParts, trades } from './support/consumer-parts.ts'
import { startPostgresProxy } from './support/loopback.ts'
import { produce } from './support/messages.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

for (const cut of ['cut before', 'cut after'] as const) {
  const what = cut === 'cut before' ? 'and nothing was committed' : 'although everything was committed'
  test(`F4 stores each row once when the connection is lost during COMMIT, ${what}`, async () => {
    await using parts = await createConsumerParts('migrated')
    const topic = parts.topics.env.KAFKA_TRADES_TOPIC
    // The first COMMITs write positions; then every third one is lost.
    await using proxy = await startPostgresProxy(parts.databaseUrl, (commit) =>
      commit > 2 && commit % 3 === 0 ? cut : 'pass',
    )
    await produce(topic, 'BTCUSDT', trades(0, 3000))
    await produce(topic, 'BTCUSDT', [Buffer.from('{"e":"trade"')])
    await using consumer = await startConsumerProcess({
      ...parts.env,
      DATABASE_URL: proxy.url,
      // Grows to ten times that when the database is slow.
      BATCH_SIZE: '20',
    })
    await parts.untilTrades(3000)
    // The consumer also reads the dead letter's copy from its topic.
    await until('every message to be in a counter', async () => {
      const { consumed, pending } = (await consumer.status()).counters
      return consumed === 3002 && pending === 0
    })
    const status = await consumer.status()
    assert.ok(proxy.commits[cut] >= 4, JSON.stringify(proxy.commits))
    assert.ok(status.retries >= 4)
    assertConserved(status)
    const { inserted, alreadyThere, deadLettered } = status.counters
    assert.deepEqual([inserted + alreadyThere, deadLettered], [3001, 1])
    // Rows stored by a lost COMMIT already existed at the retry.
    if (cut === 'cut before') assert.equal(inserted, 3000)
    else assert.ok(alreadyThere > 200, `${alreadyThere} already existed`)
    await consumer.stop()
    await parts.assertTradesOnce(0, 2999)
    assert.equal(
      await parts.count(`SELECT sum(next_offset) FROM consumer_offsets WHERE topic = '${topic}'`),
      3001,
    )
    assert.equal(await parts.count('SELECT count(*) FROM dead_letters'), 1)
  })
}
