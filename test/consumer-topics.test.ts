import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { migrate } from '../src/foundation/store/migrate.ts'
import { type ConsumerParts, createConsumerParts, trades } from './support/consumer-parts.ts'
import { addPartitions, deleteRecords, markValue, produce } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { startConsumerProcess } from './support/services.ts'
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

const tradeCount = () => parts.count('SELECT count(*) FROM trades')

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
