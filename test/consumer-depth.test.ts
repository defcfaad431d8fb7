import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Keyframes } from '../src/consumer/keyframes.ts'
import { isoOfUs } from '../src/foundation/market/time-unit.ts'
import { snapshotHorizon } from '../src/foundation/order-book/book-rows.ts'
import { OrderBook, SIDE_NAMES } from '../src/foundation/order-book/order-book.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { column } from './support/columns.ts'
import { assertConserved, type ConsumerParts, createConsumerParts, trades } from './support/consumer-parts.ts'
import { createTestDatabase, databaseKinds } from './support/database.ts'
import { createTopics, deleteTopic } from './support/kafka.ts'
import { produce } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { NO_RECORDED_DEPTH, recordedDepth, recordedDepthValues } from './support/recorded-depth.ts'
import { eventValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

/** The order books of a test, and where they come from. */
type Parts = ConsumerParts & { readonly depth: string }

async function partsOn(stack: AsyncDisposableStack, kind: 'native' | 'embedded'): Promise<Parts> {
  const server = await createTestDatabase(kind)
  stack.defer(() => server.drop())
  const parts = stack.use(await createConsumerParts('empty', server))
  return { ...parts, depth: parts.topics.env.KAFKA_DEPTH_TOPIC }
}

const diff = (U: number, u: number, b: readonly unknown[], a: readonly unknown[] = [], fields = {}) =>
  eventValue('depth', { U, u, b, a, E: 1723161255000 + u, ...fields })

const snapshot = (lastUpdateId: number, bids: readonly unknown[], asks: readonly unknown[], limit = 2) =>
  eventValue('depthSnapshot', { lastUpdateId, bids, asks, limit })

const stored = (parts: Parts) =>
  parts.count('SELECT (SELECT count(*) FROM depth_updates) + (SELECT count(*) FROM depth_snapshots)')

for (const { name: kind, ...options } of databaseKinds()) {
  test(`stores changes and snapshots of order books once, with the ${kind} database`, options, async () => {
    await using stack = new AsyncDisposableStack()
    const parts = await partsOn(stack, kind)
    const messages = [
      diff(1, 9, [
        ['100.50', '1'],
        ['99.25000000', '0.00000000'],
      ]),
      snapshot(
        9,
        [
          ['100.50', '1'],
          ['100', '2.5'],
        ],
        [['101', '3']],
      ),
      diff(
        10,
        12,
        [],
        [
          ['101', '0'],
          ['12345678.12345678', '0.00000001'],
        ],
      ),
      diff(13, 13, [], []),
      // Too many digits for one number, so the whole change is set aside.
      diff(14, 14, [['123456789.12345678', '1']]),
      eventValue('depth', { U: 15, u: 15, b: [['1', 'x']] }),
    ]
    await produce(parts.depth, 'BTCUSDT', messages)
    await using consumer = await startConsumerProcess(parts.env)
    await until('four rows', async () => (await stored(parts)) === 4)
    const letters = 'SELECT count(*) FROM dead_letters'
    await parts.untilRows(letters, 2)
    const { rows: reasons } = await parts.database.query<{ reason: string }>(
      'SELECT reason FROM dead_letters ORDER BY kafka_offset',
    )
    assert.deepEqual(column(reasons, 'reason'), ['a level does not fit', 'b is not a list of levels'])
    const levels = await parts.database.query(
      `SELECT last_update_id::int AS u, side, level::int, price, quantity FROM depth_levels WHERE symbol = 'BTCUSDT'
       ORDER BY last_update_id, side, level`,
    )
    assert.deepEqual(levels.rows, [
      { u: 9, side: 'bid', level: 1, price: '100.50', quantity: '1' },
      { u: 9, side: 'bid', level: 2, price: '99.25', quantity: '0' },
      { u: 12, side: 'ask', level: 1, price: '101.00000000', quantity: '0.00000000' },
      { u: 12, side: 'ask', level: 2, price: '12345678.12345678', quantity: '0.00000001' },
      { u: 13, side: null, level: null, price: null, quantity: null },
    ])
    const { rows } = await parts.database.query(
      'SELECT last_update_id::int AS id, kind, level_limit, bid_horizon, ask_horizon FROM depth_snapshots',
    )
    const horizons = { bid_horizon: '100.00000000', ask_horizon: null }
    assert.deepEqual(rows, [{ id: 9, kind: 'rest', level_limit: 2, ...horizons }])
    const status = await consumer.status()
    assertConserved(status)
    assert.deepEqual([status.rows.depth, status.rows.depthSnapshot], [{ BTCUSDT: 3 }, { BTCUSDT: 1 }])
    await consumer.stop()

    // Redelivers everything.
    await parts.database.query('UPDATE consumer_offsets SET next_offset = 0')
    await using again = await startConsumerProcess(parts.env)
    await until('the redelivery', async () => (await again.status()).counters.consumed >= 6)
    await until('it to be stored', async () => (await again.status()).counters.pending === 0)
    assertConserved(await again.status())
    assert.equal(await stored(parts), 4)
    assert.equal(await parts.count(letters), 2)
  })

  test(`stores five recorded minutes of an order book whose changes chain, with the ${kind} database`, {
    skip: NO_RECORDED_DEPTH,
    ...options,
  }, async () => {
    await using stack = new AsyncDisposableStack()
    const parts = await partsOn(stack, kind)
    await produce(parts.depth, 'BTCUSDT', recordedDepthValues())
    await using consumer = await startConsumerProcess(parts.env)
    await until('all rows', async () => (await stored(parts)) >= 3452)
    await consumer.stop()
    const { rows } = await parts.database.query(
      `SELECT count(*)::int AS diffs, count(*) FILTER (WHERE first_update_id = before + 1)::int AS joined FROM (
         SELECT first_update_id, lag(last_update_id) OVER (ORDER BY last_update_id) AS before FROM depth_updates) AS diff`,
    )
    assert.deepEqual(rows, [{ diffs: 3451, joined: 3450 }])

    await assertBooks(parts)

    // The same books from keyframes, which are made once.
    assert.deepEqual([await keyframesOf(parts), await keyframesOf(parts)], [3, 0])
    const { rows: anchors } = await parts.database.query<{ from: number }>(
      `SELECT anchor_update_id::float8 AS "from" FROM depth_snapshots WHERE kind = 'derived'`,
    )
    const { diffs, anchor } = recordedDepth()
    assert.deepEqual(new Set(column(anchors, 'from')), new Set([anchor.lastUpdateId]))
    await assertBooks(parts)

    // A change that arrives late, with ids that others cover.
    await parts.database.query(
      `INSERT INTO depth_updates SELECT event_time, symbol, epoch, last_update_id, last_update_id, bids, asks, ingestion_timestamp
       FROM depth_updates WHERE last_update_id = $1`,
      [diffs[1500]?.lastUpdateId],
    )
    await assertBooks(parts)

    // No book is known from a hole to the next snapshot.
    const [gone, after] = diffs.slice(2000)
    await parts.database.query("DELETE FROM depth_snapshots WHERE kind = 'derived'")
    await parts.database.query('DELETE FROM depth_updates WHERE last_update_id = $1', [gone?.lastUpdateId])
    assert.equal(await keyframesOf(parts), 1)
    await assert.rejects(
      parts.database.query('SELECT FROM book_at($1, $2)', ['BTCUSDT', isoOfUs(after?.eventTimeUs ?? 0)]),
      {
        code: 'P0002',
        message: new RegExp(
          `^The update ids ${gone?.firstUpdateId} to ${gone?.lastUpdateId} of BTCUSDT are missing`,
        ),
        hint: 'No later snapshot is stored yet',
      },
    )
  })
}

/** Stores the keyframes that are due, as a consumer that has just started. @returns how many */
async function keyframesOf({ database }: Parts): Promise<number> {
  const keyframes = new Keyframes(database, createLogger('test', 'silent'), 1000)
  await keyframes.round()
  return keyframes.made
}

/** Fails unless the books in SQL are those rebuilt from the recorded frames. */
async function assertBooks({ database }: Parts): Promise<void> {
  const { diffs, anchor } = recordedDepth()
  const [bidHorizon, askHorizon] = [snapshotHorizon(anchor.bids, 1000), snapshotHorizon(anchor.asks, 1000)]
  const book = new OrderBook()
  book.reset({ ...anchor, bidHorizon, askHorizon })
  for (const [i, one] of diffs.entries()) {
    book.apply(one)
    if (i % 500 !== 40) continue
    const { rows: levels } = await database.query<Record<'side' | 'price' | 'quantity' | 'horizon', string>>(
      'SELECT side, price, quantity, horizon FROM book_at($1, $2, 10)',
      ['BTCUSDT', isoOfUs(one.eventTimeUs)],
    )
    for (const name of SIDE_NAMES) {
      const ours = levels.filter(({ side }) => `${side}s` === name)
      assert.deepEqual(
        ours.map(({ price, quantity }) => ({ price, quantity })),
        book.levels(name, 10),
      )
      assert.equal(ours[0]?.horizon, book.horizon(name))
    }
  }
}

test('runs without the topic of order books, and reads it once it exists', async () => {
  await using stack = new AsyncDisposableStack()
  const parts = stack.use(await createConsumerParts())
  const { KAFKA_DEPTH_TOPIC: depth, KAFKA_TRADES_TOPIC: topic } = parts.topics.env
  await deleteTopic(depth)
  await produce(topic, 'BTCUSDT', trades(0, 100))
  await using consumer = await startConsumerProcess(parts.env)
  await parts.untilTrades(100)
  await consumer.ready()
  assert.doesNotMatch(consumer.command.output(), /topic is missing/)
  await createTopics([depth], 3)
  await produce(depth, 'BTCUSDT', [diff(1, 9, [])])
  await parts.untilRows('SELECT count(*) FROM depth_updates', 1)
  await produce(topic, 'BTCUSDT', trades(100, 200))
  await parts.untilTrades(200)
  await consumer.until('nine more partitions', ({ partitions }) => partitions.length === 15)
  await consumer.stop()
})

test('stores a change of an order book that is retried from the dead letters', async () => {
  await using stack = new AsyncDisposableStack()
  const parts = stack.use(await createConsumerParts())
  const depth = parts.topics.env.KAFKA_DEPTH_TOPIC
  await produce(depth, 'BTCUSDT', [diff(1, 9, []), diff(10, 12, [['123456789.12345678', '1']])])
  await using consumer = await startConsumerProcess(parts.env)
  await parts.untilRows('SELECT count(*) FROM dead_letters', 1)
  await consumer.stop()
  const retry = () => startTapeline(['dead-letters', 'retry'], { env: parts.env })
  {
    await using command = retry()
    await command.assertExit(1)
    assert.match(command.output(), /a level does not fit/)
  }
  const fixed = diff(10, 12, [['123456789.5', '1']])
  await parts.database.query('UPDATE dead_letters SET payload = $1', [fixed])
  await using command = retry()
  await command.assertExit(0)
  assert.equal(await parts.count('SELECT count(*) FROM depth_updates'), 2)
})
