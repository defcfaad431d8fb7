import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { migrate } from '../src/foundation/store/migrate.ts'
import { column } from './support/columns.ts'
import { assertConserved, type ConsumerParts, createConsumerParts, trades } from './support/consumer-parts.ts'
import { produce, readTopic } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { aggTradeValue, bookTickerValue, tradeValue } from './support/records.ts'
import { type ConsumerProcess, startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

let parts: ConsumerParts
let env: ConsumerParts['env']
let topic: string

beforeEach(async () => {
  parts = await createConsumerParts()
  env = parts.env
  topic = parts.topics.env.KAFKA_TRADES_TOPIC
})

afterEach(() => parts[Symbol.asyncDispose]())

/** A batch that is not full is never written. */
const NEVER_DUE = { FLUSH_INTERVAL_MS: '600000', KAFKA_FETCH_MAX_WAIT_MS: '50' }
const tradeCount = () => parts.count('SELECT count(*) FROM trades')
const untilPending = (consumer: ConsumerProcess, messages: number) =>
  until(`${messages} messages in memory`, async () => (await consumer.status()).counters.pending === messages)

/** Gives topics created by the test the limits that `topics init` would set. */
async function initTopicsOf(settings: Readonly<Record<string, string>>): Promise<void> {
  await parts.topics.delete()
  await until('the topics to be recreated', async () => {
    const command = startTapeline(['topics', 'init'], { env: settings })
    await command.exit()
    return /dead_letters\s+created/.test(command.output()) || /dead_letters\s+present/.test(command.output())
  })
}

test('loses and duplicates nothing when it is killed mid-stream, twice', async () => {
  const settings = { ...env, BATCH_SIZE: '100', DB_POOL_MAX: '1' }
  await produce(topic, 'BTCUSDT', trades(0, 60_000))
  for (const atLeast of [2000, 10_000]) {
    await using consumer = await startConsumerProcess(settings)
    await parts.untilTrades(atLeast)
    await consumer.command.kill()
    assert.ok((await tradeCount()) < 60_000, 'it was killed before it had finished')
  }
  await parts.store(60_000, settings)
  await parts.assertTradesOnce(0, 59_999)
})

test('loses nothing when it is killed before its very first flush, with AUTO_OFFSET_RESET=latest', async () => {
  await produce(topic, 'BTCUSDT', trades(0, 10))
  const latest = { ...env, AUTO_OFFSET_RESET: 'latest' }
  {
    await using consumer = await startConsumerProcess({ ...latest, ...NEVER_DUE, BATCH_SIZE: '50000' })
    await consumer.ready()
    await produce(topic, 'BTCUSDT', trades(10, 110))
    await untilPending(consumer, 100)
    await consumer.command.kill()
  }
  assert.equal(await tradeCount(), 0)
  await parts.store(100, latest)
  await parts.assertTradesOnce(10, 109)
})

test('stores and commits its messages at shutdown', async () => {
  await using consumer = await startConsumerProcess({ ...env, ...NEVER_DUE })
  await consumer.ready()
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await untilPending(consumer, 100)
  await consumer.stop()
  await parts.assertTradesOnce(0, 99)
  assert.equal(await parts.storedOffset(topic), 100)
})

test('stores every good row around a bad one, and each bad message unchanged, in its topic and once in its table', async () => {
  const poison = [
    { reason: 'value is not JSON', value: Buffer.from('{"e":"trade"') },
    { reason: 'p is not a decimal', value: tradeValue({ t: 5, p: 'abc' }) },
    { reason: 'value is not UTF-8', value: Buffer.from([0xff, 0xfe]) },
    { reason: 'value is empty', value: Buffer.alloc(0) },
    { reason: 'value is null', value: null },
  ]
  const bad = poison.map(({ value }) => value)
  await produce(topic, 'BTCUSDT', [...trades(0, 100), ...bad, ...trades(100, 200), aggTradeValue({ a: 7 })])
  await produce(parts.topics.env.KAFKA_BOOK_TICKER_TOPIC, 'BTCUSDT', [
    bookTickerValue(),
    bookTickerValue({ a: 'NaN' }),
  ])
  {
    await using consumer = await startConsumerProcess(env)
    await parts.untilTrades(201)
    await until(
      'the dead letters read from their topic',
      async () => (await consumer.status()).counters.alreadyThere >= 6,
    )
    const status = await consumer.status()
    assertConserved(status)
    const { inserted, deadLettered, alreadyThere, pending } = status.counters
    assert.deepEqual([inserted, deadLettered, alreadyThere, pending], [202, 6, 6, 0])
    await consumer.stop()
  }
  // Redelivers everything: the topic may repeat, the tables may not.
  await parts.database.query('UPDATE consumer_offsets SET next_offset = 0')
  await using consumer = await startConsumerProcess(env)
  await until('the redelivery', async () => (await consumer.status()).counters.consumed >= 214)
  await consumer.stop()
  assert.equal(await tradeCount(), 201)
  const { rows } = await parts.database.query<{ reason: string; payload: Buffer | null }>(
    'SELECT reason, payload FROM dead_letters ORDER BY topic DESC, kafka_offset',
  )
  assert.deepEqual(column(rows, 'reason'), [...poison.map(({ reason }) => reason), 'a is not a decimal'])
  assert.deepEqual(column(rows.slice(0, 5), 'payload'), bad)
  const letters = await readTopic(parts.topics.env.KAFKA_DEAD_LETTERS_TOPIC)
  const ofTrades = letters.filter(({ headers }) => headers['origin_topic'] === topic)
  assert.deepEqual(column(ofTrades.slice(0, 5), 'value'), bad)
})

test('two consumers share the partitions, and the survivor reads those of a killed one', async () => {
  await migrate(parts.database)
  const partitionsOf = async (consumer: ConsumerProcess) =>
    (await consumer.status()).partitions.map(({ topic, partition }) => `${topic}:${partition}`)
  await using first = await startConsumerProcess(env)
  await first.ready()
  await using second = await startConsumerProcess(env)
  // Three of each of the five topics that a consumer reads.
  await until('seven or eight of 15 partitions each', async () => {
    const [one, two] = [await partitionsOf(first), await partitionsOf(second)]
    return Math.min(one.length, two.length) === 7 && new Set([...one, ...two]).size === 15
  })
  await first.command.kill()
  await until('the partitions of the killed one', async () => (await partitionsOf(second)).length === 15)
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await produce(topic, 'BNBUSDT', trades(0, 100, 'BNBUSDT'))
  await parts.untilTrades(200)
  await second.stop()
})

test('writes several large dead letters although their topic limits the size of a batch', async () => {
  const large = Buffer.alloc(900_000, 'x')
  await initTopicsOf(env)
  await produce(topic, 'BTCUSDT', [large])
  await produce(topic, 'BTCUSDT', [large])
  await produce(topic, 'BTCUSDT', [large, ...trades(0, 10)])
  await parts.store(10)
  assert.equal(await parts.count('SELECT count(*) FROM dead_letters'), 3)
})

test('is not blocked by a dead letter with an impossible time or a gap with an unpaired surrogate', async () => {
  await produce(parts.topics.env.KAFKA_DEAD_LETTERS_TOPIC, 'x', [Buffer.from('frame')], {
    headers: { origin: 'ingestion', reason: 'not JSON', time: '99999999999999999' },
  })
  await produce(parts.topics.env.KAFKA_GAPS_TOPIC, 'g', [Buffer.from('{"gap_id":"\\ud800","revision":1}')])
  await produce(topic, 'BTCUSDT', trades(0, 10))
  await using consumer = await startConsumerProcess(env)
  await parts.untilTrades(10)
  await parts.untilRows('SELECT count(*) FROM dead_letters', 2)
  await consumer.stop()
})

test('reports a batch held by the database, and how much was left at shutdown', async () => {
  await using consumer = await startConsumerProcess(env)
  await consumer.ready()
  await parts.database.transaction(async (connection) => {
    await connection.query('LOCK TABLE trades IN ACCESS EXCLUSIVE MODE')
    await produce(topic, 'BTCUSDT', trades(0, 10))
    await until('health to report it', async () =>
      /has not taken a batch for/.test((await consumer.status()).reason),
    )
    consumer.command.signal('SIGTERM')
    await consumer.command.assertExit(1, 12_000)
    assert.match(consumer.command.output(), /10 messages read from Kafka and not stored/)
  })
})
