import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import { KEPT_FRAME_BYTES } from '../src/foundation/binance/stream-frame.ts'
import { type DeadLetterRow, insertDeadLetters } from '../src/foundation/dead-letters/dead-letter.ts'
import { SECOND_UNDER_ID } from '../src/foundation/market/event.ts'
import type { Gap } from '../src/foundation/market/gap.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { epochAt } from '../src/foundation/store/epoch-at.ts'
import { type RetryOutcome, retryDeadLetters } from '../src/tools/dead-letters/retry.ts'
import {
  type DeadLetterFilter,
  listDeadLetters,
  readPayload,
} from '../src/tools/dead-letters/stored-dead-letters.ts'
import { column, columns } from './support/columns.ts'
import { type OpenDatabase, openTestDatabase } from './support/database.ts'
import { bookTickerValue, gapRow, tradeValue } from './support/records.ts'

const TOPICS = { trades: 't', bookTicker: 'q', depth: 'o', gaps: 'g', checkpoints: 'c', deadLetters: 'd' }
const FAILED_AT_MS = 1723161255343

function letter(offset: number, payload: Buffer | null, fields: Partial<DeadLetterRow> = {}): DeadLetterRow {
  return {
    topic: 't',
    topicId: '0f0e0d0c-0b0a-0908-0706-050403020100',
    partition: 0,
    offset,
    origin: 'consumer',
    reason: 'refused by an earlier program',
    key: Buffer.from('BTCUSDT'),
    payload,
    headers: [['schema', 'trade/1']],
    failedAtMs: FAILED_AT_MS,
    ...fields,
  }
}

const frame = (stream: string, data: string) => Buffer.from(`{"stream":"${stream}","data":${data}}`)
const QUOTE = '{"u":7,"s":"BTCUSDT","b":"1.5","B":"2","a":"1.6","A":"3"}'
const rejected = { origin: 'ingestion', topic: 'd', key: null, headers: [] } as const

let server: OpenDatabase
let database: Database
before(async () => {
  server = await openTestDatabase('migrated')
  database = server.database
})
after(() => server[Symbol.asyncDispose]())
beforeEach(async () => {
  await database.query('TRUNCATE trades, book_ticker, gaps, dead_letters')
})

async function retry(filter: DeadLetterFilter = {}, dryRun = false) {
  const outcomes: Array<[offset: number, outcome: RetryOutcome]> = []
  await retryDeadLetters(database, filter, { topics: TOPICS, dryRun }, (key, outcome) =>
    outcomes.push([key.offset, outcome]),
  )
  return outcomes
}
/** The kinds of the outcomes, in the order of the retry. */
const kinds = async () => (await retry()).map(([, { kind }]) => kind)
const letters = async () => {
  const { rows } = await database.query<{ reason: string; attempts: number; resolved: boolean; first: Date }>(
    `SELECT reason, attempts, resolved_at IS NOT NULL AS resolved, first_failed_at AS first
     FROM dead_letters ORDER BY topic, kafka_offset`,
  )
  return rows
}
const tradeIds = async () => {
  const { rows } = await database.query<{ id: number }>(
    'SELECT trade_id::int AS id FROM trades ORDER BY trade_id',
  )
  return rows.map(({ id }) => id)
}
const insertTrades = (...values: readonly string[]) =>
  database.query(
    `INSERT INTO trades (trade_time, symbol, event_type, epoch, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
     VALUES ${values.join()}`,
  )

/** Runs `work` while a table has a constraint. */
async function withRule(table: 'trades' | 'book_ticker', rule: string, work: () => Promise<void>) {
  await database.query(`ALTER TABLE ${table} ADD CONSTRAINT wrong_rule CHECK (${rule}) NOT VALID`)
  try {
    await work()
  } finally {
    await database.query(`ALTER TABLE ${table} DROP CONSTRAINT wrong_rule`)
  }
}

test('stores a refused message once its database rule is fixed, and keeps it until then', async () => {
  await insertDeadLetters(database, [letter(9, tradeValue({ t: 1, p: '61837.63' }))])
  await withRule('trades', 'price < 50000', async () => {
    assert.deepEqual(await kinds(), ['failed'])
    const [row] = await letters()
    assert.match(row?.reason ?? '', /^refused by the database: 23514 .*wrong_rule/)
    assert.deepEqual([row?.attempts, row?.resolved, row?.first.getTime()], [2, false, FAILED_AT_MS])
  })
  assert.deepEqual(await retry(), [[9, { kind: 'stored' }]])
  assert.deepEqual(await tradeIds(), [1])
  assert.deepEqual(await retry(), [], 'a resolved message is not retried')
  // The consumer reads the message again, and still refuses it.
  assert.equal(await insertDeadLetters(database, [letter(9, tradeValue({ t: 1, p: '61837.63' }))]), 0)
  assert.deepEqual(
    columns(await letters(), 'attempts', 'resolved'),
    [[2, true]],
    'a redelivery reverts nothing',
  )
})

test('a message that is still bad keeps its single row, with the current reason and one more attempt', async () => {
  await insertDeadLetters(database, [
    letter(1, tradeValue({ p: 'abc' })),
    letter(2, Buffer.from([0xff, 0xfe])),
    letter(3, null),
    letter(4, tradeValue({ t: 4 })),
  ])
  assert.deepEqual(await kinds(), ['failed', 'failed', 'failed', 'stored'])
  assert.deepEqual(columns(await letters(), 'reason', 'attempts', 'resolved'), [
    ['p is not a decimal', 2, false],
    ['value is not UTF-8', 2, false],
    ['value is null', 2, false],
    ['refused by an earlier program', 1, true],
  ])
})

test('an event with the id of another stored event stays a dead letter, whatever its source', async () => {
  const T = 1723161255342
  const second = `{"e":"trade","E":${T + 4000},"s":"BTCUSDT","t":1,"p":"61837.63","q":"5","T":${T + 4000},"m":true,"M":true}`
  await insertDeadLetters(database, [
    letter(1, tradeValue({ t: 1 })),
    letter(2, tradeValue({ t: 1, q: '0.03' })),
    letter(3, tradeValue({ t: 1, q: '0.02' })),
    letter(4, frame('btcusdt@trade', second), { ...rejected, topic: 'u' }),
  ])
  assert.deepEqual(await retry(), [
    [1, { kind: 'stored' }],
    [2, { kind: 'failed', reason: SECOND_UNDER_ID }],
    [3, { kind: 'already there' }],
    [4, { kind: 'failed', reason: SECOND_UNDER_ID }],
  ])
  assert.deepEqual(await tradeIds(), [1])
})

test('accepts a REST row that ingestion rejected, but no stream event that claims to be one', async () => {
  const row = (t: number) =>
    frame(
      'btcusdt@trade',
      `{"e":"trade","s":"BTCUSDT","t":${t},"p":"61837.63","q":"5","T":1723161255342,"m":true,"source":"backfill"}`,
    )
  const reason = 'source is a member that only Tapeline writes'
  await insertDeadLetters(database, [
    letter(1, row(1), { ...rejected, reason: SECOND_UNDER_ID }),
    letter(2, row(2), { ...rejected, reason }),
  ])
  assert.deepEqual(
    (await retry()).map(([, outcome]) => outcome),
    [{ kind: 'stored' }, { kind: 'failed', reason }],
  )
  assert.deepEqual(await tradeIds(), [1])
})

test('retries and resolves two messages that had the same offset separately', async () => {
  await insertDeadLetters(database, [
    letter(1, tradeValue({ t: 1 })),
    letter(1, tradeValue({ t: 2, p: 'abc' })),
    letter(1, tradeValue({ t: 3 })),
  ])
  const outcomes = await retry({
    keys: [{ topic: 't', partition: 0, offset: 1 }],
  })
  assert.deepEqual(outcomes.map(([, { kind }]) => kind).sort(), ['failed', 'stored', 'stored'])
  assert.deepEqual(await tradeIds(), [1, 3])
  const { rows } = await database.query(
    `SELECT convert_from(payload, 'UTF8')::jsonb ->> 't' AS id, attempts, resolved_at IS NOT NULL AS resolved FROM dead_letters ORDER BY 1`,
  )
  assert.deepEqual(rows, [
    { id: '1', attempts: 1, resolved: true },
    { id: '2', attempts: 2, resolved: false },
    { id: '3', attempts: 1, resolved: true },
  ])
  const listed = await listDeadLetters(database, {}, 10, 100)
  assert.deepEqual(await readPayload(database, listed[0] ?? assert.fail()), tradeValue({ t: 2, p: 'abc' }))
})

test('a trade filled from REST meanwhile is not duplicated, and its dead letter is resolved', async () => {
  await insertDeadLetters(database, [letter(1, tradeValue({ t: 5 }))])
  await insertTrades(`(to_timestamp(1723161255.342), 'BTCUSDT', 'trade', 0, 5, 61837.63, 0.02, true, now())`)
  await database.query("UPDATE trades SET source = 'backfill'")
  assert.deepEqual(await retry(), [[1, { kind: 'already there' }]])
  assert.deepEqual(await tradeIds(), [5])
  assert.equal((await letters())[0]?.resolved, true)
})

test('stores a trade in microseconds exactly, and recognises its duplicate by every digit', async () => {
  const times = { E: 1723161255343007, T: 1723161255342999 }
  const headers = { headers: [['schema', 'trade/2']] as Array<[string, string]> }
  const { E, T } = times
  const event = `{"e":"trade","E":${E},"s":"BTCUSDT","t":7,"p":"1","q":"2","T":${T},"m":true,"M":true}`
  await insertDeadLetters(database, [
    letter(1, tradeValue({ t: 5, ...times }), headers),
    letter(2, tradeValue({ t: 5, ...times }), headers),
    letter(3, tradeValue({ t: 5, ...times, T: times.T - 1 }), headers),
    letter(4, tradeValue({ t: 6 }), headers),
    letter(5, frame('btcusdt@trade', event), rejected),
  ])
  assert.deepEqual(
    [...(await retry())].sort(([one], [other]) => one - other),
    [
      [1, { kind: 'stored' }],
      [2, { kind: 'already there' }],
      [3, { kind: 'failed', reason: 'another event is stored under its id' }],
      [4, { kind: 'failed', reason: 'T is not a time in microseconds' }],
      [5, { kind: 'stored' }],
    ],
  )
  const { rows } = await database.query<{ time: string }>(
    "SELECT trade_id || ' ' || trade_time::text || ' ' || event_time::text AS time FROM trades ORDER BY trade_id",
  )
  const at = '2024-08-08 23:54:15.342999+00 2024-08-08 23:54:15.343007+00'
  assert.deepEqual(column(rows, 'time'), [`5 ${at}`, `7 ${at}`])
})

test("a dry run reports the outcome, including the database's rules, and changes nothing", async () => {
  await insertDeadLetters(database, [letter(1, tradeValue({ t: 1 })), letter(2, tradeValue({ p: 'x' }))])
  const before = await letters()
  assert.deepEqual(await retry({}, true), [
    [1, { kind: 'stored' }],
    [2, { kind: 'failed', reason: 'p is not a decimal' }],
  ])
  assert.deepEqual(await letters(), before)
  assert.deepEqual(await tradeIds(), [])
})

test('commits row and mark together: if the mark fails, the row is not stored', async () => {
  await insertDeadLetters(database, [letter(1, tradeValue({ t: 1 }))])
  await database.query(
    `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no mark today'; END $$`,
  )
  await database.query(
    'CREATE TRIGGER refuse BEFORE UPDATE ON dead_letters FOR EACH ROW EXECUTE FUNCTION refuse()',
  )
  try {
    await assert.rejects(retry(), /no mark today/)
  } finally {
    await database.query('DROP FUNCTION refuse CASCADE')
  }
  assert.deepEqual(await tradeIds(), [])
  assert.deepEqual(await retry(), [[1, { kind: 'stored' }]])
})

test('three concurrent retries store each message once, and each reports only its own work', async () => {
  const count = 120
  const ids = [...Array(count).keys()]
  await insertDeadLetters(
    database,
    ids.map((t) => letter(t, tradeValue({ t }))),
  )
  const all = (await Promise.all([retry(), retry(), retry()])).flat()
  assert.equal(all.filter(([, { kind }]) => kind === 'stored').length, count)
  assert.ok(all.every(([, { kind }]) => kind === 'stored' || kind === 'taken'))
  assert.deepEqual(await tradeIds(), ids)
  assert.ok((await letters()).every(({ resolved, attempts }) => resolved && attempts === 1))
})

test('retries exactly the messages of the filter', async () => {
  await insertDeadLetters(database, [
    letter(1, tradeValue({ t: 1 })),
    letter(2, tradeValue({ t: 2, s: 'ETHUSDT' }), { key: null }),
    letter(3, tradeValue({ t: 3 }), { reason: 'P IS ODD', partition: 1 }),
    letter(4, tradeValue({ t: 4 }), { failedAtMs: FAILED_AT_MS + 60_000 }),
  ])
  const meant = async (filter: DeadLetterFilter) => (await retry(filter, true)).map(([offset]) => offset)
  assert.deepEqual(await meant({ symbol: 'ETHUSDT' }), [2], 'by the payload, as the message has no key')
  assert.deepEqual(await meant({ reason: 'p is' }), [3])
  assert.deepEqual(await meant({ since: new Date(FAILED_AT_MS + 1) }), [4])
  assert.deepEqual(await meant({ topic: 'other' }), [])
  assert.deepEqual(await meant({ keys: [{ topic: 't', partition: 1, offset: 3 }] }), [3])
  assert.deepEqual(await meant({}), [1, 2, 4, 3], 'in the order of partition and offset')
})

test('turns a rejected frame into its event, with the time of its receipt', async () => {
  await insertDeadLetters(database, [
    letter(1, frame('btcusdt@bookTicker', QUOTE), rejected),
    letter(2, frame('btcusdt@trade', '{"e":"trade","p":"abc"}'), rejected),
    letter(3, Buffer.from('{"result":null,"id":1}'), rejected),
  ])
  // A further failure changes the time of the last failure, but not the receipt time.
  await withRule('book_ticker', 'bid_price > 100', async () => {
    assert.equal((await kinds())[0], 'failed')
  })
  assert.deepEqual(await retry(), [
    [1, { kind: 'stored' }],
    [2, { kind: 'failed', reason: 's is not a symbol' }],
    [3, { kind: 'failed', reason: 'frame is no market data' }],
  ])
  const { rows } = await database.query(
    'SELECT symbol, update_id::int AS id, ingestion_timestamp AS received FROM book_ticker',
  )
  assert.deepEqual(rows, [{ symbol: 'BTCUSDT', id: 7, received: new Date(FAILED_AT_MS) }])
})

test('stores a trade of a rejected frame under the epoch of its time', async () => {
  const at = (epoch: number, seconds: number) =>
    `('${new Date(FAILED_AT_MS - seconds * 1000).toISOString()}', 'BTCUSDT', 'trade', ${epoch}, 9, 1, 1, true, now())`
  await insertTrades(at(0, 3000), at(1, 1000), at(2, -1000))
  assert.equal(await epochAt(database, 'BTCUSDT', 'trade', FAILED_AT_MS * 1000), 1)
  assert.equal(await epochAt(database, 'BTCUSDT', 'trade', (FAILED_AT_MS - 2_000_000) * 1000), 0)
  assert.equal(await epochAt(database, 'ETHUSDT', 'trade', FAILED_AT_MS * 1000), 0)
})

test('stores a trade of a long inactive symbol under its epoch, also when retention has dropped its rows', async () => {
  const daysBefore = (days: number) => new Date(FAILED_AT_MS - days * 86_400_000).toISOString()
  await insertTrades(
    `('${daysBefore(40)}', 'BTCUSDT', 'trade', 0, 900, 1, 1, true, now())`,
    `('${daysBefore(30)}', 'BTCUSDT', 'trade', 1, 9, 1, 1, true, now())`,
  )
  assert.equal(await epochAt(database, 'BTCUSDT', 'trade', FAILED_AT_MS * 1000), 1)
  assert.equal(await epochAt(database, 'BTCUSDT', 'trade', (FAILED_AT_MS - 35 * 86_400_000) * 1000), 0)
  await database.query(
    `INSERT INTO gaps (gap_id, revision, symbol, event_type, epoch, from_time, to_time, cause, status, detected_at, updated_at)
     VALUES ('ETHUSDT/trade/2/5', 1, 'ETHUSDT', 'trade', 2, '${daysBefore(21)}', '${daysBefore(20)}', 'reset', 'unrecoverable', now(), now())`,
  )
  assert.equal(await epochAt(database, 'ETHUSDT', 'trade', FAILED_AT_MS * 1000), 2)
  assert.equal(await epochAt(database, 'ETHUSDT', 'trade', (FAILED_AT_MS - 20.5 * 86_400_000) * 1000), 0)
  assert.equal(await epochAt(database, 'ETHUSDT', 'aggTrade', FAILED_AT_MS * 1000), 0)
})

test('reports that a truncated frame, or one with other topic settings, cannot be retried, and leaves it unchanged', async () => {
  const long = frame('btcusdt@trade', `{"e":"trade","x":"${'x'.repeat(KEPT_FRAME_BYTES)}"}`)
  await insertDeadLetters(database, [
    letter(1, long.subarray(0, KEPT_FRAME_BYTES), rejected),
    letter(2, tradeValue(), { topic: 'elsewhere' }),
    letter(3, tradeValue(), { headers: [['schema', 'trade/9']] }),
  ])
  const before = await letters()
  const outcomes = await retry()
  assert.deepEqual(
    outcomes.map(([, outcome]) => outcome.kind),
    ['hopeless', 'hopeless', 'hopeless'],
  )
  assert.match(
    JSON.stringify(outcomes),
    /cut at 800000 bytes.*is not a topic of these settings.*schema trade\/9/,
  )
  assert.deepEqual(await letters(), before)
})

test('a refusal at commit fails that one message, not the command', async () => {
  await insertDeadLetters(database, [
    letter(1, tradeValue({ t: 1 })),
    letter(2, bookTickerValue(), { topic: 'u' }),
  ])
  await database.query(
    `CREATE TABLE quoted (id bigint PRIMARY KEY, other bigint REFERENCES quoted DEFERRABLE INITIALLY DEFERRED)`,
  )
  await database.query(
    `CREATE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
       INSERT INTO quoted VALUES (NEW.trade_id, NEW.trade_id + 1); RETURN NEW; END $$`,
  )
  await database.query(
    'CREATE TRIGGER refuse_late BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION refuse_late()',
  )
  try {
    const outcomes = await retry()
    assert.deepEqual(
      outcomes.map(([, { kind }]) => kind),
      ['failed', 'hopeless'],
    )
    assert.match(JSON.stringify(outcomes), /refused by the database: 23503/)
  } finally {
    await database.query('DROP FUNCTION refuse_late CASCADE')
    await database.query('DROP TABLE quoted')
  }
  assert.deepEqual(await tradeIds(), [])
})

test('retries quotes and gaps like trades; an older revision of a gap reverts nothing', async () => {
  const revision = (n: number, status: Gap['status']) =>
    Buffer.from(JSON.stringify(gapRow({ revision: n, status, closed_at: null })))
  await insertDeadLetters(database, [
    letter(1, revision(2, 'filled'), { topic: 'g', headers: [['schema', 'gap/1']] }),
    letter(2, revision(1, 'open'), { topic: 'g', headers: [['schema', 'gap/1']] }),
    letter(3, bookTickerValue(), { topic: 'q', headers: [] }),
  ])
  assert.deepEqual(await kinds(), ['stored', 'already there', 'stored'])
  const { rows } = await database.query('SELECT revision, status FROM gaps')
  assert.deepEqual(rows, [{ revision: 2, status: 'filled' }])
})
