import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { migrate } from '../src/foundation/store/migrate.ts'
import { column } from './support/columns.ts'
import { assertConserved, type ConsumerParts, createConsumerParts, trades } from './support/consumer-parts.ts'
import { addPartitions, deleteRecords, markValue, produce, readTopic } from './support/messages.ts'
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

test('reads messages again automatically after the database was restored to an earlier state', async () => {
  await using consumer = await startConsumerProcess(env)
  await produce(topic, 'BTCUSDT', trades(0, 1000))
  await parts.untilTrades(1000)
  await parts.database.transaction(async (connection) => {
    await connection.query('DELETE FROM trades WHERE trade_id >= 300')
    await connection.query('UPDATE consumer_offsets SET next_offset = least(next_offset, 300)')
  })
  await produce(topic, 'BTCUSDT', trades(1000, 1010))
  await parts.untilTrades(1010)
  await consumer.stop()
  await parts.assertTradesOnce(0, 1009)
})

test('records messages that expired before they were stored, and continues', async () => {
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await parts.store(100)
  await produce(topic, 'BTCUSDT', trades(100, 200))
  await produce(topic, 'ETHUSDT', trades(0, 10, 'ETHUSDT'))
  await deleteRecords(topic, 2, 150)
  await using consumer = await startConsumerProcess(env)
  await parts.untilTrades(160)
  await parts.untilRows('SELECT count(*) FROM gaps', 1)
  await consumer.stop()
  const { rows } = await parts.database.query(
    'SELECT symbol, event_type, from_id::int, to_id::int, cause, status FROM gaps',
  )
  const open = { from_id: 100, to_id: 149, cause: 'retention', status: 'open' }
  assert.deepEqual(rows, [{ symbol: 'BTCUSDT', event_type: 'trade', ...open }])
  await startTapeline(['verify'], { env: { DATABASE_URL: parts.databaseUrl } }).assertExit(0)
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

/** Fails unless a consumer stops with this line, and `trades` has this many rows then. */
async function assertRefused(line: RegExp, rows: number): Promise<void> {
  await using consumer = await startConsumerProcess(env)
  await consumer.command.assertExit(1, 60_000)
  assert.match(consumer.command.output(), line)
  assert.equal(await tradeCount(), rows)
}

const mark = (...args: Parameters<typeof markValue>) =>
  produce(parts.topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue(...args)])

test('refuses messages of another source than its rows', async () => {
  await migrate(parts.database)
  await parts.database.query("INSERT INTO meta (key, value) VALUES ('source', 'binance')")
  await mark('simulated', parts.topics.env)
  await produce(topic, 'BTCUSDT', trades(0, 10))
  await assertRefused(/hold data of \\"binance\\", not of \\"simulated\\"/, 0)
})

test('C9 refuses topics that do not match the checkpoints', async () => {
  await mark('simulated', { ...parts.topics.env, KAFKA_BOOK_TICKER_TOPIC: 'other.quotes' })
  await produce(topic, 'BTCUSDT', trades(0, 10))
  await assertRefused(/belong to other\.quotes, not to/, 0)
})

test('refuses messages in another time unit than its rows', async () => {
  await mark('binance', parts.topics.env, 'microsecond')
  await produce(topic, 'BTCUSDT', trades(0, 10))
  await parts.store(10)
  const marks = await parts.database.query(
    "SELECT key, value FROM meta WHERE key IN ('source', 'time_unit') ORDER BY key",
  )
  assert.deepEqual(marks.rows, [
    { key: 'source', value: 'binance' },
    { key: 'time_unit', value: 'microsecond' },
  ])
  await mark('binance', parts.topics.env)
  await produce(topic, 'BTCUSDT', trades(10, 20))
  await assertRefused(/hold times in microseconds, not in milliseconds/, 10)
})

test('stops at a message of a newer schema, and reads it after the upgrade', async () => {
  await produce(topic, 'BTCUSDT', trades(0, 10))
  await produce(topic, 'BTCUSDT', trades(10, 20), { headers: { schema: 'trade/3' } })
  await using consumer = await startConsumerProcess(env)
  await consumer.command.assertExit(1, 60_000)
  assert.match(consumer.command.output(), /schema trade\/3, this program supports trade\/2/)
  assert.equal(await parts.storedOffset(topic), await tradeCount())
  assert.equal(await parts.count('SELECT count(*) FROM dead_letters'), 0)
})

test('rereads a partition that lost its tail, and skips no message that took the lost offsets', async () => {
  await produce(topic, 'BTCUSDT', trades(0, 120))
  await parts.store(120)
  // As after an unclean election: the table is ahead of the partition.
  await parts.database.query(
    `UPDATE consumer_offsets SET next_offset = 150 WHERE topic = '${topic}' AND partition = 2`,
  )
  {
    await using consumer = await startConsumerProcess(env)
    await consumer.command.waitForLine(/A partition lost its tail/, 60_000)
    await until('the offset to be reset', async () => (await parts.storedOffset(topic)) === 120)
    await consumer.stop()
  }
  await produce(topic, 'BTCUSDT', trades(120, 200))
  await parts.store(200)
  await parts.assertTradesOnce(0, 199)
})

test('reads partitions added to a topic while it runs', async () => {
  await using consumer = await startConsumerProcess(env)
  await consumer.ready()
  await addPartitions(topic, 6)
  await until('the new partitions', async () => (await consumer.status()).partitions.length === 15)
  await produce(topic, 'BTCUSDT', trades(0, 50), { partitions: 6 })
  await produce(topic, 'ETHUSDT', trades(0, 50, 'ETHUSDT'), { partitions: 6 })
  await parts.untilTrades(100)
  await consumer.stop()
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
