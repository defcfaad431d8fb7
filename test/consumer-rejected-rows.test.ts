import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { findRejected, MAX_REJECTIONS, RejectionLimit } from '../src/consumer/rejected-rows.ts'
import { SECOND_UNDER_ID } from '../src/foundation/market/event.ts'
import type { Gap } from '../src/foundation/market/gap.ts'
import { column } from './support/columns.ts'
import { assertConserved, createConsumerParts, trades } from './support/consumer-parts.ts'
import { produce, readTopic } from './support/messages.ts'
import { aggTradeValue, bookTickerValue, gapRow, tradeValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

test('D2 isolates the refused rows wherever they are, in few statements', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 600 }),
      fc.uniqueArray(fc.nat(599), { maxLength: 10 }),
      async (count, drawn) => {
        const bad = drawn.filter((index) => index < count).sort((one, other) => one - other)
        let statements = 0
        const refused = await findRejected(
          count,
          async (from, to) => {
            statements++
            return bad.some((index) => index >= from && index < to) ? 'refused' : null
          },
          1000,
        )
        assert.deepEqual(column(refused, 'index'), bad)
        assert.ok(statements <= 1 + bad.length * 2 * Math.ceil(Math.log2(count) + 1))
      },
    ),
  )
})

test('D3 tolerates one bad row in a hundred indefinitely, but not 21 in a row or one in ten', () => {
  const untilStop = (share: number) => {
    const limit = new RejectionLimit()
    for (let refusals = 1; refusals <= 10_000; refusals++) {
      if (limit.refused('trades', '23514 x')) return refusals
      limit.accepted('trades', share - 1)
    }
    return null
  }
  assert.equal(untilStop(1), MAX_REJECTIONS + 1)
  assert.equal(untilStop(100), null)
  assert.ok((untilStop(10) ?? 0) > MAX_REJECTIONS)
  const limit = new RejectionLimit()
  for (let i = 0; i < MAX_REJECTIONS; i++) assert.equal(limit.refused('trades', `23514 c${i}`), false)
  for (let i = 0; i < 1000; i++) limit.accepted('book_ticker', 1000)
  for (let i = 0; i < MAX_REJECTIONS - 1; i++) assert.equal(limit.refused('trades', '23514 c0'), false)
  assert.equal(limit.refused('trades', '23514 c0'), true, 'rows of other tables do not compensate')
})

const CHECK = 'ALTER TABLE trades ADD CONSTRAINT no_thirteens CHECK (price <> 13.13)'
const TRIGGER = `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.bid_price = 13.13 THEN RAISE EXCEPTION 'thirteen is refused' USING ERRCODE = '22023'; END IF;
    RETURN NEW; END $$;
  CREATE TRIGGER refuse BEFORE INSERT ON book_ticker FOR EACH ROW EXECUTE FUNCTION refuse()`
const DEFERRED = `CREATE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.status = 'filled' THEN RAISE EXCEPTION 'late refusal' USING ERRCODE = '23000'; END IF;
    RETURN NULL; END $$;
  CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON gaps DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_late()`

const gap = (id: number, status: Gap['status']) =>
  Buffer.from(JSON.stringify(gapRow({ from_id: id, to_id: id, status, closed_at: null })))

describe('D1 with constraints that refuse rows', () => {
  test("stores every good row around refused ones; each refused one becomes a dead letter with the database's reason", async () => {
    await using parts = await createConsumerParts('migrated')
    const { env } = parts.topics
    for (const sql of [CHECK, TRIGGER, DEFERRED]) await parts.database.query(sql)
    const refused = [700, 701, 1499].map((t) => tradeValue({ t, p: '13.13000000' }))
    const values = [...trades(0, 700), ...refused.slice(0, 2), ...trades(702, 1499), ...refused.slice(2)]
    await produce(env.KAFKA_TRADES_TOPIC, 'BTCUSDT', values)
    const quotes = Array.from({ length: 40 }, (_, u) => bookTickerValue({ u, b: u === 17 ? '13.13' : '1' }))
    await produce(env.KAFKA_BOOK_TICKER_TOPIC, 'BTCUSDT', quotes)
    await produce(env.KAFKA_GAPS_TOPIC, 'g', [gap(1, 'open'), gap(2, 'filled'), gap(3, 'open')])
    await using consumer = await startConsumerProcess(parts.env)
    await parts.untilTrades(1497)
    await until('everything, and the dead letters read from their topic', async () => {
      const { counters } = await consumer.status()
      return counters.consumed === 1500 + 40 + 3 + 5 && counters.pending === 0
    })
    const status = await consumer.status()
    assertConserved(status)
    assert.deepEqual([status.counters.inserted, status.counters.deadLettered], [1497 + 39 + 2, 5])
    await consumer.stop()

    const { rows } = await parts.database.query<{
      topic: string
      offset: number
      reason: string
      payload: Buffer
    }>(
      'SELECT topic, kafka_offset::int AS offset, reason, payload FROM dead_letters ORDER BY topic, kafka_offset',
    )
    assert.deepEqual(
      rows.map(({ topic, offset }) => [topic.split('.').at(-1), offset]),
      [
        ['book_ticker', 17],
        ['gaps', 1],
        ['trades', 700],
        ['trades', 701],
        ['trades', 1499],
      ],
    )
    const [quote, late, ...thirteens] = rows
    assert.match(quote?.reason ?? '', /^refused by the database: 22023 thirteen is refused$/)
    assert.match(late?.reason ?? '', /^refused by the database: 23000 late refusal$/)
    for (const { reason } of thirteens) assert.match(reason, /^refused by the database: 23514 .*no_thirteens/)
    assert.deepEqual(column(thirteens, 'payload'), refused)
    const letters = await readTopic(env.KAFKA_DEAD_LETTERS_TOPIC)
    assert.deepEqual(
      letters.map(({ headers }) => headers['reason']).sort(),
      rows.map(({ reason }) => reason).sort(),
    )
    assert.equal(await parts.storedOffset(env.KAFKA_TRADES_TOPIC), 1500)
  })

  test('D8 rejects an event with the id and time of another stored event, but no redelivered one', async () => {
    await using parts = await createConsumerParts('migrated')
    const { env } = parts.topics
    const event = { a: 7, f: 70, l: 71, q: '1.5' }
    const first = aggTradeValue(event)
    const again = aggTradeValue({ ...event, q: '1.50000000', ingestion_timestamp_us: 1723161255400999 })
    const others = [{ f: 72, l: 72 }, { q: '1.50000001' }, { m: false }].map((other) =>
      aggTradeValue({ ...event, ...other }),
    )
    await produce(env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [first, again, ...trades(0, 200), ...others.slice(0, 2)])
    await using consumer = await startConsumerProcess(parts.env)
    await parts.untilTrades(201)
    // Against rows of an earlier batch, next to redelivered rows.
    await produce(env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [...trades(150, 250), ...others.slice(2), first])
    await parts.untilTrades(251)
    await parts.untilRows('SELECT count(*) FROM dead_letters', 3)
    await until('nothing to be left', async () => (await consumer.status()).counters.pending === 0)
    assertConserved(await consumer.status())
    await consumer.stop()
    const { rows } = await parts.database.query<{ reason: string; payload: Buffer }>(
      'SELECT reason, payload FROM dead_letters ORDER BY kafka_offset',
    )
    assert.deepEqual(
      rows.map(({ payload }) => String(payload)),
      others.map(String),
    )
    assert.deepEqual(new Set(rows.map(({ reason }) => reason)), new Set([SECOND_UNDER_ID]))
    const stored = await parts.database.query<{ q: string }>(
      `SELECT trim_scale(quantity)::text AS q FROM trades WHERE event_type = 'aggTrade'`,
    )
    assert.deepEqual(stored.rows, [{ q: '1.5' }])
  })

  test('D3 stops without filling the dead-letter topic when a constraint refuses everything; after the fix nothing is missing', async () => {
    await using parts = await createConsumerParts('migrated')
    const topic = parts.topics.env.KAFKA_TRADES_TOPIC
    await parts.database.query('ALTER TABLE trades ADD CONSTRAINT nothing_passes CHECK (price < 0) NOT VALID')
    await produce(topic, 'BTCUSDT', trades(0, 2000))
    {
      await using consumer = await startConsumerProcess(parts.env)
      await consumer.command.assertExit(1, 60_000)
      assert.match(consumer.command.output(), /refuses too many rows of trades.*23514.*nothing_passes/)
    }
    assert.equal(await parts.count('SELECT count(*) FROM dead_letters'), 0)
    assert.deepEqual(await readTopic(parts.topics.env.KAFKA_DEAD_LETTERS_TOPIC), [])
    assert.equal(await parts.count('SELECT sum(next_offset) FROM consumer_offsets'), 0)
    await parts.database.query('ALTER TABLE trades DROP CONSTRAINT nothing_passes')
    await parts.store(2000)
    await parts.assertTradesOnce(0, 1999)
  })
})

test('F5 stops and reports it when a table has the wrong columns, and loses nothing', async () => {
  await using parts = await createConsumerParts('migrated')
  await parts.database.query('ALTER TABLE trades RENAME COLUMN quantity TO amount')
  await produce(parts.topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 700))
  {
    await using consumer = await startConsumerProcess(parts.env)
    await consumer.command.assertExit(1, 60_000)
    assert.match(
      consumer.command.output(),
      /Stopped by a defect: column \\"quantity\\" of relation \\"trades\\" does not exist/,
    )
  }
  await parts.database.query('ALTER TABLE trades RENAME COLUMN amount TO quantity')
  await parts.store(700)
  await parts.assertTradesOnce(0, 699)
  assert.equal(await parts.count('SELECT count(*) FROM dead_letters'), 0)
})
