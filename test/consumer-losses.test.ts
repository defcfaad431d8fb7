import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type FirstAfterLoss, retentionGaps } from '../src/consumer/retention-gaps.ts'
import { GAP } from '../src/foundation/market/gap.ts'
import { type LastStored, lastStored } from '../src/foundation/store/last-stored.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { type ConsumerParts, createConsumerParts, trades } from './support/consumer-parts.ts'
import { createTestDatabase, databaseKinds } from './support/database.ts'
import { recreateTopic } from './support/kafka.ts'
import { deleteRecords, produce } from './support/messages.ts'
import { bookTickerValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'

const NOON = Date.UTC(2026, 0, 1, 12)
const last = (fields: Partial<LastStored>): LastStored => ({
  symbol: 'BTCUSDT',
  eventType: 'trade',
  epoch: 0,
  id: 100,
  timeMs: NOON,
  ...fields,
})
const first = (fields: Partial<FirstAfterLoss>): FirstAfterLoss => ({
  symbol: 'BTCUSDT',
  eventType: 'trade',
  epoch: 0,
  id: 200,
  timeMs: NOON + 5000,
  cause: 'retention',
  ...fields,
})

/** Stores what there is, until the table has so many rows. */
async function store(parts: ConsumerParts, rows: number): Promise<void> {
  await using consumer = await startConsumerProcess(parts.env)
  await parts.untilTrades(rows)
  await consumer.stop()
}

test('P7 names the ids between two trades of one epoch, and files them under it', () => {
  const [gap, ...others] = retentionGaps([first({ epoch: 2 })], [last({ epoch: 2 })], NOON)
  assert.deepEqual(others, [])
  assert.deepEqual([gap?.epoch, gap?.from_id, gap?.to_id], [2, 101, 199])
  assert.deepEqual(GAP.parse(gap), gap)
})

test('P7 claims no ids across epochs, and still names the window and where each epoch broke off', () => {
  for (const [from, to] of [
    [last({ epoch: 0, id: 5_000_000 }), first({ epoch: 1, id: 40 })],
    // The ids alone would look as if nothing was missing, or as if they followed each other.
    [last({ epoch: 0, id: 100 }), first({ epoch: 1, id: 101 })],
    [last({ epoch: 0, id: 100 }), first({ epoch: 3, id: 200 })],
    // Who counts the epochs has begun anew.
    [last({ epoch: 1, id: 100 }), first({ epoch: 0, id: 200 })],
  ] as const) {
    const [gap, ...others] = retentionGaps([to], [from], NOON)
    assert.deepEqual(others, [])
    assert.deepEqual([gap?.epoch, gap?.from_id, gap?.to_id], [to.epoch, null, null])
    assert.deepEqual([gap?.from_time, gap?.to_time], [from.timeMs, to.timeMs])
    assert.match(
      gap?.reason ?? '',
      new RegExp(`ids after ${from.id} of epoch ${from.epoch} and before ${to.id} of epoch ${to.epoch}$`),
    )
    assert.deepEqual(GAP.parse(gap), gap)
  }
})

test('P7 takes what is delivered again for no loss, in whatever epoch', () => {
  assert.deepEqual(retentionGaps([first({ id: 101 })], [last({})], NOON), [])
  assert.deepEqual(retentionGaps([first({ id: 50 })], [last({})], NOON), [])
  assert.deepEqual(retentionGaps([first({ epoch: 0, timeMs: NOON })], [last({ epoch: 1 })], NOON), [])
})

test('P7 writes one row for a symbol that shows in two partitions of a batch', () => {
  assert.deepEqual(
    retentionGaps([first({ id: 200 }), first({ id: 300 })], [last({})], NOON).map(({ to_id }) => to_id),
    [199],
  )
})

for (const { name, ...options } of databaseKinds()) {
  describe(`on the ${name} TimescaleDB`, options, () => {
    test('P7 takes the highest id of the highest epoch for the last, not the highest id of all', async () => {
      const server = await createTestDatabase(name)
      const database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
      try {
        await migrate(database)
        await database.query(
          `INSERT INTO trades SELECT timestamptz '2026-01-01' + at * interval '6 hours', NULL, symbol, type, epoch, id, 1, 1, NULL,
             NULL, true, '2026-01-02', 'stream'
           FROM (VALUES (0, 'BTCUSDT', 'trade', 0, 900), (1, 'BTCUSDT', 'trade', 0, 901), (2, 'BTCUSDT', 'trade', 1, 3),
             (3, 'BTCUSDT', 'trade', 2, 7), (9, 'BTCUSDT', 'trade', 2, 8), (8, 'BTCUSDT', 'trade', 2, 6),
             (10, 'BTCUSDT', 'trade', 0, 902), (4, 'BTCUSDT', 'aggTrade', 0, 55), (5, 'BTCUSDT', 'aggTrade', 0, 54),
             (6, 'ETHUSDT', 'trade', 1, 2)) AS row (at, symbol, type, epoch, id)`,
        )
        const asked = [
          { symbol: 'BTCUSDT', eventType: 'trade' },
          { symbol: 'BTCUSDT', eventType: 'aggTrade' },
          { symbol: 'ETHUSDT', eventType: 'trade' },
          { symbol: 'BNBUSDT', eventType: 'trade' },
        ] as const
        const found = await lastStored(database, asked)
        assert.deepEqual(
          found.map(({ symbol, eventType, epoch, id }) => [symbol, eventType, epoch, id]),
          [
            ['BTCUSDT', 'trade', 2, 8],
            ['BTCUSDT', 'aggTrade', 0, 55],
            ['ETHUSDT', 'trade', 1, 2],
          ],
        )
        assert.equal(found[0]?.timeMs, Date.UTC(2026, 0, 3, 6))
      } finally {
        await database.close()
        await server.drop()
      }
    })
  })
}

test('P7 names what retention took over a reset of the ids as a window, and then again by its ids', async () => {
  await using parts = await createConsumerParts()
  await migrate(parts.database)
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  const later = { headers: { epoch: '1' } }
  await produce(topic, 'BTCUSDT', trades(1000, 1010))
  await store(parts, 10)
  await produce(topic, 'BTCUSDT', trades(1010, 1020))
  await produce(topic, 'BTCUSDT', trades(0, 20), later)
  await deleteRecords(topic, 2, 30)
  await store(parts, 20)
  await produce(topic, 'BTCUSDT', trades(20, 40), later)
  await deleteRecords(topic, 2, 50)
  await store(parts, 30)
  const { rows } = await parts.database.query(
    'SELECT epoch, from_id::int, to_id::int, cause, reason FROM gaps ORDER BY from_id NULLS FIRST',
  )
  assert.deepEqual(rows, [
    {
      epoch: 1,
      from_id: null,
      to_id: null,
      cause: 'retention',
      reason: 'left Kafka before it was stored; ids after 1009 of epoch 0 and before 10 of epoch 1',
    },
    { epoch: 1, from_id: 20, to_id: 29, cause: 'retention', reason: 'left Kafka before it was stored' },
  ])
})

test('P8 names what stood unread in a topic that was deleted and made again, also of a symbol that trades later', async () => {
  await using parts = await createConsumerParts()
  await migrate(parts.database)
  const { KAFKA_TRADES_TOPIC: topic, KAFKA_BOOK_TICKER_TOPIC: quotes } = parts.topics.env
  const quoteAt = (ms: number) => [bookTickerValue({ u: ms, ingestion_timestamp_us: (NOON + ms) * 1000 })]
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await produce(topic, 'ETHUSDT', trades(0, 10, 'ETHUSDT'))
  await produce(topic, 'BNBUSDT', trades(0, 10, 'BNBUSDT'))
  await produce(quotes, 'BTCUSDT', quoteAt(0))
  await store(parts, 120)
  await produce(topic, 'BTCUSDT', trades(100, 150))
  await recreateTopic(topic, 4)
  await recreateTopic(quotes, 3)
  await produce(topic, 'BTCUSDT', trades(150, 160), { partitions: 4 })
  await produce(topic, 'BNBUSDT', trades(10, 20, 'BNBUSDT'), { partitions: 4 })
  await produce(quotes, 'BTCUSDT', quoteAt(7000))
  await store(parts, 140)
  await produce(topic, 'ETHUSDT', trades(20, 30, 'ETHUSDT'), { partitions: 4 })
  await store(parts, 150)
  const { rows } = await parts.database.query(
    `SELECT symbol, event_type, from_id::int, to_id::int, (extract(epoch FROM to_time - from_time))::int AS seconds, cause, status
     FROM gaps ORDER BY event_type DESC, symbol`,
  )
  const known = { cause: 'recreated', status: 'unrecoverable' }
  assert.deepEqual(rows, [
    { symbol: 'BTCUSDT', event_type: 'trade', from_id: 100, to_id: 149, seconds: 0, ...known },
    { symbol: 'ETHUSDT', event_type: 'trade', from_id: 10, to_id: 19, seconds: 0, ...known },
    { symbol: 'BTCUSDT', event_type: 'bookTicker', from_id: null, to_id: null, seconds: 7, ...known },
  ])
})

test('P8 goes on in a topic that is made again while it runs, and names what it had not stored', async () => {
  await using parts = await createConsumerParts()
  await migrate(parts.database)
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  await using consumer = await startConsumerProcess(parts.env)
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await parts.untilTrades(100)
  await recreateTopic(topic, 3)
  await produce(topic, 'BTCUSDT', trades(130, 140))
  await parts.untilTrades(110)
  await consumer.stop()
  const { rows } = await parts.database.query('SELECT from_id::int, to_id::int, cause FROM gaps')
  assert.deepEqual(rows, [{ from_id: 100, to_id: 129, cause: 'recreated' }])
})
