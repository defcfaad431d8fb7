import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { type ConsumerParts, createConsumerParts, trades } from './support/consumer-parts.ts'
import { databaseKinds } from './support/database.ts'
import { committedOffsets, forgetGroup } from './support/groups.ts'
import { deleteRecords, produce } from './support/messages.ts'
import { dropDatabase, dumpDatabase, restoreDatabase } from './support/postgres-dump.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

const [native] = databaseKinds()

/** A database with the content of a dump. */
async function restored(parts: ConsumerParts, dump: Buffer) {
  const name = `restored_${new URL(parts.databaseUrl).pathname.slice(1)}`
  const url = await restoreDatabase(parts.databaseUrl, name, dump)
  const database = openPostgres({ url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  return {
    database,
    env: { ...parts.env, DATABASE_URL: url },
    async [Symbol.asyncDispose]() {
      await database.close()
      await dropDatabase(parts.databaseUrl, name)
    },
  }
}

test("P1 restores the rows that a restored dump lacks, although Kafka's commits are ahead", {
  skip: native?.skip ?? false,
}, async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  await produce(topic, 'BTCUSDT', trades(0, 400))
  await parts.store(400)
  const dump = await dumpDatabase(parts.databaseUrl)
  await produce(topic, 'BTCUSDT', trades(400, 1500))
  await parts.store(1500)
  assert.equal((await committedOffsets(parts.topics.env.KAFKA_GROUP_ID)).get(`${topic}:2`), 1500)

  await using copy = await restored(parts, dump)
  const ids = async () => {
    const counts = 'count(*)::int AS rows, count(DISTINCT trade_id)::int AS ids'
    return (await copy.database.query(`SELECT ${counts} FROM trades`)).rows
  }
  assert.deepEqual(await ids(), [{ rows: 400, ids: 400 }])
  await using consumer = await startConsumerProcess(copy.env)
  await until('the rows missing in the dump', async () => (await consumer.status()).counters.inserted >= 1100)
  await consumer.stop()
  assert.deepEqual(await ids(), [{ rows: 1500, ids: 1500 }])
})

test('D7 restores dead letters that a restored dump lacks, once, although the originals have expired', {
  skip: native?.skip ?? false,
}, async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  const letters = 'SELECT count(*) FROM dead_letters'
  const all =
    'SELECT topic, topic_id, partition, kafka_offset, origin, reason, key, payload, headers, failed_at FROM dead_letters ORDER BY kafka_offset'
  const bad = [Buffer.from('{'), Buffer.from('[]'), null]
  const headers = { schema: 'trade/1', epoch: '2' }
  const untilLetters = async (wanted: number) => {
    await using consumer = await startConsumerProcess(parts.env)
    await until(`${wanted} dead letters`, async () => (await parts.count(letters)) === wanted)
    await consumer.stop()
  }
  await produce(topic, 'BTCUSDT', bad, { headers })
  await untilLetters(3)
  const dump = await dumpDatabase(parts.databaseUrl)
  await produce(topic, 'BTCUSDT', bad, { headers })
  await untilLetters(6)
  const { rows: before } = await parts.database.query(all)
  await deleteRecords(topic, 2, 6)

  await using copy = await restored(parts, dump)
  assert.equal((await copy.database.query(all)).rowCount, 3)
  // All copies are read again, including those in the dump.
  await copy.database.query('UPDATE consumer_offsets SET next_offset = 0 WHERE topic = $1', [
    parts.topics.env.KAFKA_DEAD_LETTERS_TOPIC,
  ])
  await using consumer = await startConsumerProcess(copy.env)
  const counters = await until('the dead letters to be read again, and stored', async () => {
    const { counters: now } = await consumer.status()
    return now.consumed >= 6 && now.pending === 0 && now
  })
  assert.deepEqual([counters.deadLettered, counters.alreadyThere], [3, 3])
  await consumer.stop()
  assert.deepEqual((await copy.database.query(all)).rows, before)
})

test('P2 skips and repeats nothing when the group is renamed or the broker has forgotten it', async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  const latest = { ...parts.env, AUTO_OFFSET_RESET: 'latest' }
  await produce(topic, 'BTCUSDT', trades(0, 300))
  await parts.store(300)

  await produce(topic, 'BTCUSDT', trades(300, 500))
  const renamed = { ...latest, KAFKA_GROUP_ID: `${parts.topics.env.KAFKA_GROUP_ID}-renamed` }
  assert.deepEqual((await parts.store(500, renamed)).consumed, 200)

  await produce(topic, 'BTCUSDT', trades(500, 900))
  await until('the broker to forget the group', () =>
    forgetGroup(parts.topics.env.KAFKA_GROUP_ID).then(() => true),
  )
  assert.deepEqual((await parts.store(900, latest)).consumed, 400)
  await parts.assertTradesOnce(0, 899)
})

test('P3 reads everything again into an empty database, although the group has commits', async () => {
  await using parts = await createConsumerParts('migrated')
  await produce(parts.topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 300))
  await parts.store(300)
  await parts.database.query('TRUNCATE trades, consumer_offsets')
  await parts.store(300, { ...parts.env, AUTO_OFFSET_RESET: 'latest' })
  await parts.assertTradesOnce(0, 299)
})

test("P7 records a symbol's expired messages when it trades again, hours later and at another consumer", async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await produce(topic, 'ETHUSDT', trades(0, 10, 'ETHUSDT'))
  await parts.store(110)
  await produce(topic, 'BTCUSDT', trades(100, 200))
  await produce(topic, 'ETHUSDT', trades(10, 20, 'ETHUSDT'))
  await produce(topic, 'BTCUSDT', trades(200, 210))
  await deleteRecords(topic, 2, 220)
  await parts.store(120)
  await produce(topic, 'ETHUSDT', trades(20, 30, 'ETHUSDT'))
  await using consumer = await startConsumerProcess(parts.env)
  await parts.untilTrades(130)
  await parts.untilRows("SELECT count(*) FROM gaps WHERE status = 'open'", 2)
  await consumer.stop()
  const { rows } = await parts.database.query(
    'SELECT symbol, from_id::int, to_id::int, cause FROM gaps ORDER BY symbol',
  )
  assert.deepEqual(rows, [
    { symbol: 'BTCUSDT', from_id: 100, to_id: 199, cause: 'retention' },
    { symbol: 'ETHUSDT', from_id: 10, to_id: 19, cause: 'retention' },
  ])
})
