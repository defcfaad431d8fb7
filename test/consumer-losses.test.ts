import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { afterLoss, type LosingFirst } from '../src/consumer/retention-gaps.ts'
import { GAP, type Gap } from '../src/foundation/market/gap.ts'
import { type LastStored, lastStored } from '../src/foundation/store/last-stored.ts'
import { columns } from './support/columns.ts'
import { type ConsumerParts, createConsumerParts, trades } from './support/consumer-parts.ts'
import { databaseKinds, openTestDatabase } from './support/database.ts'
import { recreateTopic } from './support/kafka.ts'
import { deleteRecords, produce, readTopic } from './support/messages.ts'
import { bookTickerValue, gapRow } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

const NOON = Date.UTC(2026, 0, 1, 12)
const STREAM = { symbol: 'BTCUSDT', eventType: 'trade', epoch: 0 } as const
const last = (fields: Partial<LastStored>): LastStored => ({ ...STREAM, id: 100, timeMs: NOON, ...fields })
const first = (fields: Partial<LosingFirst>): LosingFirst => {
  const { id = 200, firstId = id } = fields
  return { ...STREAM, timeMs: NOON + 5000, cause: 'retention', loss: 'loss', ...fields, id, firstId }
}

test('P7 requests the ids between two trades of one epoch, for that epoch', () => {
  const { windows, lost } = afterLoss([first({ epoch: 2 })], [last({ epoch: 2 })], NOON)
  assert.deepEqual(windows, [])
  assert.deepEqual(
    lost.map(({ key, lost: { epoch, range } }) => [key, epoch, range]),
    [['loss:BTCUSDT trade', 2, { from: 101, to: 199 }]],
  )
})

test('P7 requests no ids across epochs, and records the window and the last and first ids of the epochs', () => {
  for (const [from, to] of [
    [last({ epoch: 0, id: 5_000_000 }), first({ epoch: 1, id: 40 })],
    // By ids alone nothing seems missing, or they seem consecutive.
    [last({ epoch: 0, id: 100 }), first({ epoch: 1, id: 101 })],
    [last({ epoch: 0, id: 100 }), first({ epoch: 3, id: 200 })],
    // The epochs start again at 0.
    [last({ epoch: 1, id: 100 }), first({ epoch: 0, id: 200 })],
  ] as const) {
    const { windows, lost } = afterLoss([to], [from], NOON)
    const [gap, ...others] = windows
    assert.deepEqual(others, [])
    assert.deepEqual([gap?.epoch, gap?.from_id, gap?.to_id], [to.epoch, null, null])
    assert.deepEqual([gap?.from_time, gap?.to_time], [from.timeMs, to.timeMs])
    assert.match(
      gap?.reason ?? '',
      new RegExp(`ids after ${from.id} of epoch ${from.epoch} and before ${to.id} of epoch ${to.epoch}$`),
    )
    assert.deepEqual(GAP.parse(gap), gap)
    assert.deepEqual(
      lost.map(({ lost: { epoch, range } }) => [epoch, range]),
      [[from.epoch, null]],
    )
  }
})

test('P7 records the update ids between two changes of an order book: nobody has them any more', () => {
  const depth = { eventType: 'depth', epoch: 1 } as const
  const { windows, lost } = afterLoss(
    [first({ ...depth, firstId: 190, id: 200 })],
    [last({ ...depth, id: 100 })],
    NOON,
  )
  assert.deepEqual(lost, [])
  const [gap, ...others] = windows
  assert.deepEqual(others, [])
  assert.deepEqual(
    [gap?.event_type, gap?.status, gap?.epoch, gap?.from_id, gap?.to_id],
    ['depth', 'unrecoverable', 1, 101, 189],
  )
  assert.deepEqual([gap?.from_time, gap?.to_time], [NOON, NOON + 5000])
  assert.deepEqual(GAP.parse(gap), gap)
  for (const joined of [first({ ...depth, firstId: 101, id: 200 }), first({ ...depth, firstId: 90, id: 95 })])
    assert.deepEqual(afterLoss([joined], [last({ ...depth, id: 100 })], NOON), { windows: [], lost: [] })
  const again = afterLoss([first({ ...depth, epoch: 2 })], [last({ ...depth, id: 100 })], NOON)
  assert.deepEqual([again.windows[0]?.from_id, again.windows[0]?.epoch], [null, 2])
})

test('P7 a redelivered message is no loss of ids, in any epoch', () => {
  for (const one of [first({ id: 101 }), first({ id: 50 })]) {
    const { windows, lost } = afterLoss([one], [last({})], NOON)
    assert.deepEqual([windows, lost.map(({ lost: { range } }) => range)], [[], [null]])
  }
  assert.deepEqual(afterLoss([first({ epoch: 0, timeMs: NOON })], [last({ epoch: 1 })], NOON).windows, [])
})

test('P7 requests ids once for a symbol that occurs in two partitions of a batch', () => {
  assert.deepEqual(
    afterLoss([first({ id: 200 }), first({ id: 300 })], [last({})], NOON).lost.map(
      ({ lost: { range } }) => range?.to,
    ),
    [199],
  )
})

for (const { name, ...options } of databaseKinds()) {
  describe(`on the ${name} TimescaleDB`, options, () => {
    test('P7 takes the latest trade by time as the last, and within one second the highest id of the highest epoch', async () => {
      await using server = await openTestDatabase('migrated', name)
      const { database } = server
      await database.query(
        `INSERT INTO trades SELECT timestamptz '2026-01-01' + at * interval '6 hours', NULL, symbol, type, epoch, id, 1, 1, NULL,
           NULL, true, '2026-01-02', 'stream'
         FROM (VALUES (0, 'BTCUSDT', 'trade', 0, 900), (1, 'BTCUSDT', 'trade', 0, 901), (2, 'BTCUSDT', 'trade', 1, 3),
           (3, 'BTCUSDT', 'trade', 2, 7), (9, 'BTCUSDT', 'trade', 2, 8), (8, 'BTCUSDT', 'trade', 2, 6),
           (9.00004, 'BTCUSDT', 'trade', 1, 902), (4, 'BTCUSDT', 'aggTrade', 0, 55), (4.00004, 'BTCUSDT', 'aggTrade', 0, 54),
           (6, 'ETHUSDT', 'trade', 1, 2)) AS row (at, symbol, type, epoch, id)`,
      )
      const asked = [
        { symbol: 'BTCUSDT', eventType: 'trade' },
        { symbol: 'BTCUSDT', eventType: 'aggTrade' },
        { symbol: 'ETHUSDT', eventType: 'trade' },
        { symbol: 'BNBUSDT', eventType: 'trade' },
      ] as const
      const timeMs = Date.UTC(2026, 0, 10)
      const found = await lastStored(
        database,
        asked.map((one) => ({ ...one, timeMs })),
      )
      assert.deepEqual(columns(found, 'symbol', 'eventType', 'epoch', 'id'), [
        ['BTCUSDT', 'trade', 2, 8],
        ['BTCUSDT', 'aggTrade', 0, 55],
        ['ETHUSDT', 'trade', 1, 2],
      ])
      assert.equal(found[0]?.timeMs, Date.UTC(2026, 0, 3, 6))

      await database.query(
        `INSERT INTO trades SELECT timestamptz '2026-02-01' + day * interval '1 day', NULL, 'XRPUSDT', 'trade', 0, day, 1, 1, NULL,
           NULL, true, '2026-02-01', 'stream' FROM generate_series(0, 59) AS day`,
      )
      const chunksLocked = await database.transaction(async (connection) => {
        const near = { symbol: 'XRPUSDT', eventType: 'trade', timeMs: Date.UTC(2026, 2, 31, 12) } as const
        assert.equal((await lastStored(connection, [near]))[0]?.id, 59)
        const { rows } = await connection.query<{ n: number }>(
          `SELECT count(DISTINCT relation)::int AS n FROM pg_locks JOIN pg_class ON pg_class.oid = relation
           WHERE pid = pg_backend_pid() AND relname LIKE '\\_hyper%chunk'`,
        )
        return rows[0]?.n ?? 0
      })
      assert.ok(chunksLocked <= 5, `searching a recently traded symbol locked ${chunksLocked} days`)
    })
  })
}

/** Reads the requests to reopen gaps from the ledger topic, once there are this many. */
async function requests(parts: ConsumerParts, count: number) {
  const messages = await until(`${count} requests`, async () => {
    const read = await readTopic(parts.topics.env.KAFKA_GAPS_TOPIC)
    return read.length >= count && read
  })
  const brief = messages.map(({ value }) => {
    const { symbol, epoch, from_id, to_id, cause, status } = GAP.parse(JSON.parse(String(value)))
    return { symbol, epoch, ids: `${from_id}..${to_id}`, cause, status }
  })
  return brief.sort((one, other) => (one.symbol < other.symbol ? -1 : 1))
}

test('P7 records expired messages across an id reset as a window, and then requests ids again', async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  const later = { headers: { epoch: '1' } }
  await produce(topic, 'BTCUSDT', trades(1000, 1010))
  await parts.store(10)
  await produce(topic, 'BTCUSDT', trades(1010, 1020))
  await produce(topic, 'BTCUSDT', trades(0, 20), later)
  await deleteRecords(topic, 2, 30)
  await parts.store(20)
  await produce(topic, 'BTCUSDT', trades(20, 40), later)
  await deleteRecords(topic, 2, 50)
  await using consumer = await startConsumerProcess(parts.env)
  await parts.untilTrades(30)
  assert.deepEqual(await requests(parts, 1), [
    { symbol: 'BTCUSDT', epoch: 1, ids: '20..29', cause: 'retention', status: 'open' },
  ])
  await parts.untilRows("SELECT count(*) FROM gaps WHERE status = 'open'", 1)
  await consumer.stop()
  const { rows } = await parts.database.query(
    'SELECT epoch, from_id::int, to_id::int, cause, reason FROM gaps ORDER BY from_id NULLS FIRST',
  )
  const reason = 'left Kafka before it was stored; ids after 1009 of epoch 0 and before 10 of epoch 1'
  assert.deepEqual(rows, [
    { epoch: 1, from_id: null, to_id: null, cause: 'retention', reason },
    { epoch: 1, from_id: 20, to_id: 29, cause: 'retention', reason: null },
  ])
})

test('P8 records the unread part of a recreated topic, also for a symbol that trades later', async () => {
  await using parts = await createConsumerParts('migrated')
  const { KAFKA_TRADES_TOPIC: topic, KAFKA_BOOK_TICKER_TOPIC: quotes } = parts.topics.env
  const quoteAt = (ms: number) => [bookTickerValue({ u: ms, ingestion_timestamp_us: (NOON + ms) * 1000 })]
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await produce(topic, 'ETHUSDT', trades(0, 10, 'ETHUSDT'))
  await produce(topic, 'BNBUSDT', trades(0, 10, 'BNBUSDT'))
  await produce(quotes, 'BTCUSDT', quoteAt(0))
  await parts.store(120)
  await produce(topic, 'BTCUSDT', trades(100, 150))
  await recreateTopic(topic, 4)
  await recreateTopic(quotes, 3)
  await produce(topic, 'BTCUSDT', trades(150, 160), { partitions: 4 })
  await produce(topic, 'BNBUSDT', trades(10, 20, 'BNBUSDT'), { partitions: 4 })
  await produce(quotes, 'BTCUSDT', quoteAt(7000))
  await parts.store(140)
  await produce(topic, 'ETHUSDT', trades(20, 30, 'ETHUSDT'), { partitions: 4 })
  await using consumer = await startConsumerProcess(parts.env)
  await parts.untilTrades(150)
  const known = { epoch: 0, cause: 'recreated', status: 'open' }
  assert.deepEqual(await requests(parts, 2), [
    { symbol: 'BTCUSDT', ids: '100..149', ...known },
    { symbol: 'ETHUSDT', ids: '10..19', ...known },
  ])
  await consumer.stop()
  const { rows } = await parts.database.query(
    `SELECT symbol, from_id, (extract(epoch FROM to_time - from_time))::int AS seconds, cause, status
     FROM gaps WHERE event_type = 'bookTicker'`,
  )
  const window = { from_id: null, seconds: 7, cause: 'recreated', status: 'unrecoverable' }
  assert.deepEqual(rows, [{ symbol: 'BTCUSDT', ...window }])
})

test('P8 continues in a topic that is recreated while it runs, and records the unstored part', async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  await using consumer = await startConsumerProcess(parts.env)
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await parts.untilTrades(100)
  await recreateTopic(topic, 3)
  await produce(topic, 'BTCUSDT', trades(130, 140))
  await parts.untilTrades(110)
  const asked = { symbol: 'BTCUSDT', epoch: 0, ids: '100..129', cause: 'recreated', status: 'open' }
  assert.deepEqual(await requests(parts, 1), [asked])
  await consumer.stop()
})

test('P8 stores messages read from a topic before it was recreated', async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  await using consumer = await startConsumerProcess(parts.env)
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await parts.untilTrades(100)
  await parts.database.transaction(async (connection) => {
    await connection.query('LOCK TABLE trades IN SHARE MODE')
    await produce(topic, 'BTCUSDT', trades(100, 150))
    await until(
      'the consumer to hold 50 messages',
      async () => (await consumer.status()).counters.pending === 50,
      30_000,
    )
    await recreateTopic(topic, 3)
    await produce(topic, 'BTCUSDT', trades(170, 180))
    await consumer.command.waitForLine(/A topic was recreated/, 60_000)
  })
  await parts.untilTrades(160)
  const asked = { symbol: 'BTCUSDT', epoch: 0, ids: '150..169', cause: 'recreated', status: 'open' }
  assert.deepEqual(await requests(parts, 1), [asked])
  await consumer.stop()
})

test('L6 reopens a filled gap whose trades were lost, and the lost ids next to it, but nothing stored or unrecoverable', async () => {
  await using parts = await createConsumerParts('migrated')
  const { KAFKA_TRADES_TOPIC: topic, KAFKA_GAPS_TOPIC: gaps } = parts.topics.env
  const row = (from_id: number, to_id: number, status: Gap['status']) =>
    Buffer.from(JSON.stringify(gapRow({ from_id, to_id, status, revision: 2 })))
  const backfilled = (from: number, to: number) =>
    trades(from, to).map((value) =>
      Buffer.from(JSON.stringify({ ...JSON.parse(String(value)), source: 'backfill' })),
    )
  await produce(topic, 'BTCUSDT', [...trades(0, 20), ...backfilled(50, 60), ...trades(100, 110)])
  await parts.store(40)
  // The first half of 20..59 was filled but not read; so was 120..129 among live trades; REST does
  // not have 130..139.
  await produce(topic, 'BTCUSDT', [
    ...backfilled(20, 50),
    ...trades(110, 120),
    ...backfilled(120, 130),
    ...trades(140, 200),
  ])
  await produce(gaps, 'BTCUSDT', [
    row(20, 59, 'filled'),
    row(120, 129, 'filled'),
    row(130, 139, 'unrecoverable'),
  ])
  await deleteRecords(topic, 2, 140)
  // An earlier loss of a symbol that cannot be requested blocks no other.
  const other = { symbol: 'AAAUSDT', eventType: 'trade', epoch: 0, range: { from: 1, to: 2 } }
  await parts.database.query("INSERT INTO meta (key, value) VALUES ('lost:AAAUSDT', $1)", [
    JSON.stringify({ ...other, fromMs: NOON, toMs: NOON, cause: 'retention', detectedMs: NOON }),
  ])
  await parts.database.query(
    "ALTER TABLE meta ADD CONSTRAINT never_asked CHECK (key <> 'asked:lost:AAAUSDT')",
  )
  await using consumer = await startConsumerProcess(parts.env)
  await parts.untilTrades(50)
  await parts.untilRows("SELECT count(*) FROM gaps WHERE status = 'open'", 4)
  await parts.untilRows("SELECT count(*) FROM meta WHERE key LIKE 'settled:%'", 1)
  await consumer.stop()
  const { rows } = await parts.database.query(
    `SELECT gap_id, from_id::int, to_id::int, status, revision FROM gaps ORDER BY from_id`,
  )
  assert.deepEqual(rows, [
    { gap_id: 'BTCUSDT/trade/0/20', from_id: 20, to_id: 49, status: 'open', revision: 4 },
    { gap_id: 'BTCUSDT/trade/0/110/retention', from_id: 110, to_id: 119, status: 'open', revision: 4 },
    { gap_id: 'BTCUSDT/trade/0/120', from_id: 120, to_id: 129, status: 'open', revision: 4 },
    { gap_id: 'BTCUSDT/trade/0/130', from_id: 130, to_id: 139, status: 'unrecoverable', revision: 2 },
    { gap_id: 'BTCUSDT/trade/0/140/retention', from_id: 140, to_id: 189, status: 'open', revision: 4 },
  ])
})
