import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import type { Database } from '../src/foundation/store/database.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createTestDatabase, type TestDatabase } from './support/database.ts'
import { createTestTopics, type TestTopics } from './support/kafka.ts'
import { addPartitions, deleteRecords, markValue, produce, readTopic } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { aggTradeValue, bookTickerValue, tradeValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'
import { waitFor } from './support/wait-for.ts'

let topics: TestTopics
let server: TestDatabase
let database: Database
let env: Record<string, string>

beforeEach(async () => {
  topics = await createTestTopics({ prefix: 'consumer' })
  server = await createTestDatabase()
  database = openPostgres({ url: server.url, poolMin: 0, poolMax: 2, applicationName: 'test' })
  env = {
    ...topics.env,
    DATABASE_URL: server.url,
    FLUSH_INTERVAL_MS: '200',
    KAFKA_SESSION_TIMEOUT_MS: '6000',
    BACKOFF_INITIAL_MS: '100',
    BACKOFF_MAX_MS: '1000',
  }
})

afterEach(async () => {
  await database.close()
  await server.drop()
  await topics.delete()
})

const trades = (from: number, to: number, symbol = 'BTCUSDT') =>
  Array.from({ length: to - from }, (_, i) => tradeValue({ s: symbol, t: from + i }))

async function count(sql: string): Promise<number> {
  const { rows } = await database.query<{ n: number }>(`SELECT (${sql})::int AS n`)
  return rows[0]?.n ?? -1
}

const tradeCount = () => count('SELECT count(*) FROM trades')

/** Gives topics created by the test the limits that `topics init` would set. */
async function initTopicsOf(settings: Readonly<Record<string, string>>): Promise<void> {
  await topics.delete()
  await waitFor(
    async () => {
      const command = startTapeline(['topics', 'init'], { env: settings })
      await command.exit()
      return (
        /dead_letters\s+created/.test(command.output()) || /dead_letters\s+present/.test(command.output())
      )
    },
    { timeoutMs: 60_000, what: 'the topics to be recreated' },
  )
}

async function untilTrades(expected: number): Promise<void> {
  await waitFor(async () => (await tradeCount()) >= expected, {
    timeoutMs: 90_000,
    what: `${expected} trades`,
  })
}

async function assertTradesOnce(first: number, last: number): Promise<void> {
  const { rows } = await database.query(
    'SELECT count(*)::int AS rows, count(DISTINCT trade_id)::int AS ids, min(trade_id)::int AS first, max(trade_id)::int AS last FROM trades',
  )
  assert.deepEqual(rows, [{ rows: last - first + 1, ids: last - first + 1, first, last }])
}

test('loses and duplicates nothing when it is killed mid-stream, twice', async () => {
  const settings = { ...env, AUTO_OFFSET_RESET: 'earliest', BATCH_SIZE: '100', DB_POOL_MAX: '1' }
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 60_000))
  for (const atLeast of [2000, 10_000]) {
    await using consumer = await startConsumerProcess(settings)
    await untilTrades(atLeast)
    await consumer.command.kill()
    assert.ok((await tradeCount()) < 60_000, 'it was killed before it had finished')
  }
  await using consumer = await startConsumerProcess(settings)
  await untilTrades(60_000)
  await consumer.stop()
  await assertTradesOnce(0, 59_999)
})

test('loses nothing when it is killed before its very first flush, with AUTO_OFFSET_RESET=latest', async () => {
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 10))
  {
    await using consumer = await startConsumerProcess({
      ...env,
      BATCH_SIZE: '50000',
      FLUSH_INTERVAL_MS: '600000',
      KAFKA_FETCH_MAX_WAIT_MS: '50',
    })
    await consumer.ready()
    await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(10, 110))
    await waitFor(async () => (await consumer.status()).counters.pending === 100, {
      timeoutMs: 60_000,
      what: '100 messages in memory',
    })
    await consumer.command.kill()
  }
  assert.equal(await tradeCount(), 0)
  await using consumer = await startConsumerProcess(env)
  await untilTrades(100)
  await assertTradesOnce(10, 109)
  await consumer.stop()
})

test('stores and commits its messages at shutdown', async () => {
  await using consumer = await startConsumerProcess({
    ...env,
    FLUSH_INTERVAL_MS: '600000',
    KAFKA_FETCH_MAX_WAIT_MS: '50',
  })
  await consumer.ready()
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 100))
  await waitFor(async () => (await consumer.status()).counters.pending === 100, {
    timeoutMs: 60_000,
    what: '100 messages in memory',
  })
  await consumer.stop()
  await assertTradesOnce(0, 99)
  assert.equal(
    await count(
      `SELECT sum(next_offset) FROM consumer_offsets WHERE topic = '${topics.env.KAFKA_TRADES_TOPIC}'`,
    ),
    100,
  )
})

test('stores every good row around a bad one, and each bad message unchanged, in its topic and once in its table', async () => {
  const topic = topics.env.KAFKA_TRADES_TOPIC
  const poison = [
    Buffer.from('{"e":"trade"'),
    tradeValue({ t: 5, p: 'abc' }),
    Buffer.from([0xff, 0xfe]),
    Buffer.alloc(0),
    null,
  ]
  const values = [...trades(0, 100), ...poison, ...trades(100, 200), aggTradeValue({ a: 7 })]
  await produce(topic, 'BTCUSDT', values)
  await produce(topics.env.KAFKA_BOOK_TICKER_TOPIC, 'BTCUSDT', [
    bookTickerValue(),
    bookTickerValue({ a: 'NaN' }),
  ])
  const settings = { ...env, AUTO_OFFSET_RESET: 'earliest' }
  {
    await using consumer = await startConsumerProcess(settings)
    await untilTrades(201)
    await waitFor(async () => (await consumer.status()).counters.alreadyThere >= 6, {
      timeoutMs: 60_000,
      what: 'the dead letters read from their topic',
    })
    const { counters } = await consumer.status()
    assert.deepEqual([counters.inserted, counters.deadLettered, counters.alreadyThere], [202, 6, 6])
    assert.equal(
      counters.consumed,
      counters.inserted + counters.alreadyThere + counters.deadLettered + counters.discarded,
    )
    await consumer.stop()
  }
  // Redelivers everything: the topic may repeat, the tables may not.
  await database.query('UPDATE consumer_offsets SET next_offset = 0')
  await using consumer = await startConsumerProcess(settings)
  await waitFor(async () => (await consumer.status()).counters.consumed >= 214, {
    timeoutMs: 60_000,
    what: 'the redelivery',
  })
  await consumer.stop()
  assert.equal(await tradeCount(), 201)
  const { rows } = await database.query<{ reason: string; payload: Buffer | null }>(
    'SELECT reason, payload FROM dead_letters ORDER BY topic DESC, kafka_offset',
  )
  assert.deepEqual(
    rows.map(({ reason }) => reason),
    [
      'value is not JSON',
      'p is not a decimal',
      'value is not UTF-8',
      'value is empty',
      'value is null',
      'a is not a decimal',
    ],
  )
  assert.deepEqual(
    rows.slice(0, 5).map(({ payload }) => payload),
    poison,
  )
  const letters = await readTopic(topics.env.KAFKA_DEAD_LETTERS_TOPIC)
  assert.deepEqual(
    letters
      .filter(({ headers }) => headers['origin_topic'] === topic)
      .slice(0, 5)
      .map(({ value }) => value),
    poison,
  )
})

test('reads messages again automatically after the database was restored to an earlier state', async () => {
  await using consumer = await startConsumerProcess({ ...env, AUTO_OFFSET_RESET: 'earliest' })
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 1000))
  await untilTrades(1000)
  await database.transaction(async (connection) => {
    await connection.query('DELETE FROM trades WHERE trade_id >= 300')
    await connection.query('UPDATE consumer_offsets SET next_offset = least(next_offset, 300)')
  })
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(1000, 1010))
  await untilTrades(1010)
  await consumer.stop()
  await assertTradesOnce(0, 1009)
})

test('records messages that expired before they were stored, and continues', async () => {
  const settings = { ...env, AUTO_OFFSET_RESET: 'earliest' }
  const topic = topics.env.KAFKA_TRADES_TOPIC
  {
    await using consumer = await startConsumerProcess(settings)
    await produce(topic, 'BTCUSDT', trades(0, 100))
    await untilTrades(100)
    await consumer.stop()
  }
  await produce(topic, 'BTCUSDT', trades(100, 200))
  await produce(topic, 'ETHUSDT', trades(0, 10, 'ETHUSDT'))
  await deleteRecords(topic, 2, 150)
  await using consumer = await startConsumerProcess(settings)
  await untilTrades(160)
  await waitFor(async () => (await database.query('SELECT FROM gaps')).rowCount === 1, {
    timeoutMs: 60_000,
    what: 'a row of the ledger',
  })
  await consumer.stop()
  const { rows } = await database.query(
    'SELECT symbol, event_type, from_id::int, to_id::int, cause, status FROM gaps',
  )
  assert.deepEqual(rows, [
    {
      symbol: 'BTCUSDT',
      event_type: 'trade',
      from_id: 100,
      to_id: 149,
      cause: 'retention',
      status: 'open',
    },
  ])
  await startTapeline(['verify'], { env: { DATABASE_URL: server.url } }).assertExit(0)
})

test('two consumers share the partitions, and the survivor reads those of a killed one', async () => {
  await migrate(database)
  const settings = { ...env, AUTO_OFFSET_RESET: 'earliest' }
  const partitionsOf = async (consumer: Awaited<ReturnType<typeof startConsumerProcess>>) =>
    (await consumer.status()).partitions.map(({ topic, partition }) => `${topic}:${partition}`)
  await using first = await startConsumerProcess(settings)
  await first.ready()
  await using second = await startConsumerProcess(settings)
  await waitFor(
    async () => {
      const [one, two] = [await partitionsOf(first), await partitionsOf(second)]
      return one.length === 6 && two.length === 6 && new Set([...one, ...two]).size === 12
    },
    { timeoutMs: 60_000, what: 'six partitions each' },
  )
  await first.command.kill()
  await waitFor(async () => (await partitionsOf(second)).length === 12, {
    timeoutMs: 60_000,
    what: 'the partitions of the killed one',
  })
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 100))
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BNBUSDT', trades(0, 100, 'BNBUSDT'))
  await untilTrades(200)
  await second.stop()
})

test('refuses messages of another source than its rows', async () => {
  await migrate(database)
  await database.query("INSERT INTO meta (key, value) VALUES ('source', 'binance')")
  await produce(topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('simulated', topics.env)])
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 10))
  await using consumer = await startConsumerProcess({ ...env, AUTO_OFFSET_RESET: 'earliest' })
  await consumer.command.assertExit(1, 60_000)
  assert.match(consumer.command.output(), /hold data of \\"binance\\", not of \\"simulated\\"/)
  assert.equal(await tradeCount(), 0)
})

test('C9 refuses topics that do not match the checkpoints', async () => {
  const other = { ...topics.env, KAFKA_BOOK_TICKER_TOPIC: 'other.quotes' }
  await produce(topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('simulated', other)])
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 10))
  await using consumer = await startConsumerProcess({ ...env, AUTO_OFFSET_RESET: 'earliest' })
  await consumer.command.assertExit(1, 60_000)
  assert.match(consumer.command.output(), /belong to other\.quotes, not to/)
  assert.equal(await tradeCount(), 0)
})

test('refuses messages in another time unit than its rows', async () => {
  await produce(topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [
    markValue('binance', topics.env, 'microsecond'),
  ])
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 10))
  {
    await using consumer = await startConsumerProcess({ ...env, AUTO_OFFSET_RESET: 'earliest' })
    await untilTrades(10)
    await consumer.stop()
  }
  const marks = await database.query(
    "SELECT key, value FROM meta WHERE key IN ('source', 'time_unit') ORDER BY key",
  )
  assert.deepEqual(marks.rows, [
    { key: 'source', value: 'binance' },
    { key: 'time_unit', value: 'microsecond' },
  ])
  await produce(topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('binance', topics.env)])
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(10, 20))
  await using consumer = await startConsumerProcess({ ...env, AUTO_OFFSET_RESET: 'earliest' })
  await consumer.command.assertExit(1, 60_000)
  assert.match(consumer.command.output(), /hold times in microseconds, not in milliseconds/)
  assert.equal(await tradeCount(), 10)
})

test('stops at a message of a newer schema, and reads it after the upgrade', async () => {
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 10))
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(10, 20), { headers: { schema: 'trade/3' } })
  await using consumer = await startConsumerProcess({ ...env, AUTO_OFFSET_RESET: 'earliest' })
  await consumer.command.assertExit(1, 60_000)
  assert.match(consumer.command.output(), /schema trade\/3, this program supports trade\/2/)
  const stored = await tradeCount()
  assert.equal(
    await count(
      `SELECT sum(next_offset) FROM consumer_offsets WHERE topic = '${topics.env.KAFKA_TRADES_TOPIC}'`,
    ),
    stored,
  )
  assert.equal(await count('SELECT count(*) FROM dead_letters'), 0)
})

test('rereads a partition that lost its tail, and skips no message that took the lost offsets', async () => {
  const settings = { ...env, AUTO_OFFSET_RESET: 'earliest' }
  const topic = topics.env.KAFKA_TRADES_TOPIC
  await produce(topic, 'BTCUSDT', trades(0, 120))
  {
    await using consumer = await startConsumerProcess(settings)
    await untilTrades(120)
    await consumer.stop()
  }
  // As after an unclean election: the table is ahead of the partition.
  await database.query(
    `UPDATE consumer_offsets SET next_offset = 150 WHERE topic = '${topic}' AND partition = 2`,
  )
  {
    await using consumer = await startConsumerProcess(settings)
    await consumer.command.waitForLine(/A partition lost its tail/, 60_000)
    await waitFor(
      async () =>
        (await count(
          `SELECT next_offset FROM consumer_offsets WHERE topic = '${topic}' AND partition = 2`,
        )) === 120,
      {
        timeoutMs: 60_000,
        what: 'the offset to be reset',
      },
    )
    await consumer.stop()
  }
  await produce(topic, 'BTCUSDT', trades(120, 200))
  await using consumer = await startConsumerProcess(settings)
  await untilTrades(200)
  await consumer.stop()
  await assertTradesOnce(0, 199)
})

test('reads partitions added to a topic while it runs', async () => {
  const topic = topics.env.KAFKA_TRADES_TOPIC
  await using consumer = await startConsumerProcess(env)
  await consumer.ready()
  await addPartitions(topic, 6)
  await waitFor(async () => (await consumer.status()).partitions.length === 15, {
    timeoutMs: 60_000,
    what: 'the new partitions',
  })
  await produce(topic, 'BTCUSDT', trades(0, 50), { partitions: 6 })
  await produce(topic, 'ETHUSDT', trades(0, 50, 'ETHUSDT'), { partitions: 6 })
  await untilTrades(100)
  await consumer.stop()
})

test('writes several large dead letters although their topic limits the size of a batch', async () => {
  const large = Buffer.alloc(900_000, 'x')
  await initTopicsOf(env)
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [large])
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [large])
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [large, ...trades(0, 10)])
  await using consumer = await startConsumerProcess({ ...env, AUTO_OFFSET_RESET: 'earliest' })
  await untilTrades(10)
  await consumer.stop()
  assert.equal(await count('SELECT count(*) FROM dead_letters'), 3)
})

test('is not blocked by a dead letter with an impossible time or a gap with an unpaired surrogate', async () => {
  await produce(topics.env.KAFKA_DEAD_LETTERS_TOPIC, 'x', [Buffer.from('frame')], {
    headers: { origin: 'ingestion', reason: 'not JSON', time: '99999999999999999' },
  })
  await produce(topics.env.KAFKA_GAPS_TOPIC, 'g', [Buffer.from('{"gap_id":"\\ud800","revision":1}')])
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 10))
  await using consumer = await startConsumerProcess({ ...env, AUTO_OFFSET_RESET: 'earliest' })
  await untilTrades(10)
  await waitFor(async () => (await count('SELECT count(*) FROM dead_letters')) === 2, {
    timeoutMs: 60_000,
    what: 'two dead letters',
  })
  await consumer.stop()
})

test('reports a batch held by the database, and how much was left at shutdown', async () => {
  await using consumer = await startConsumerProcess(env)
  await consumer.ready()
  const held = Promise.withResolvers<void>()
  const locking = database.transaction(async (connection) => {
    await connection.query('LOCK TABLE trades IN ACCESS EXCLUSIVE MODE')
    await held.promise
  })
  try {
    await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 10))
    await waitFor(async () => /has not taken a batch for/.test((await consumer.status()).reason), {
      timeoutMs: 60_000,
      what: 'health to report it',
    })
    consumer.command.signal('SIGTERM')
    await consumer.command.assertExit(1, 12_000)
    assert.match(consumer.command.output(), /10 messages read from Kafka and not stored/)
  } finally {
    held.resolve()
    await locking
  }
})
