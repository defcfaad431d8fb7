import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Batch } from '../src/consumer/batch.ts'
import type { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import { Decoder, type TopicKind } from '../src/foundation/kafka/message-decoder.ts'
import { exchangeTimeMs } from '../src/foundation/market/event.ts'
import { ABSENT } from '../src/foundation/market/event-fields.ts'
import type { Gap } from '../src/foundation/market/gap.ts'
import { isTapelineError } from '../src/foundation/runtime/errors.ts'
import { column, columns } from './support/columns.ts'
import {
  aggTradeValue,
  bookTickerValue,
  eventsOf,
  eventValue,
  gapRow,
  record,
  tradeValue,
} from './support/records.ts'

const SCHEMA = { schema: 'trade/1' }
const PARTITION = { topic: 't', topicId: '00000000-0000-0000-0000-000000000001', partition: 0 }

/** Decodes as the batch builder does. */
function decodeInto(batch: Batch, kind: Exclude<TopicKind, 'deadLetters'>, message: FetchedMessage) {
  const decoder = new Decoder()
  const reason = decoder.decode(kind, message)
  if (reason === null) batch.add(kind, decoder, PARTITION, message)
  return reason
}

test('gives each kind of poison message its reason, and adds no row for it', () => {
  const poison: Array<[string, Buffer | null]> = [
    ['value is not JSON', Buffer.from('{"e":"trade"')],
    ['value is not an object', Buffer.from('[1]')],
    ['value is not UTF-8', Buffer.from([0x7b, 0xff, 0x7d])],
    ['value is empty', Buffer.alloc(0)],
    ['value is null', null],
    ['s is not a symbol', tradeValue({ s: 'BTC\0USDT' })],
    ['s is not a symbol', tradeValue({ s: undefined })],
    ['p is not a decimal', tradeValue({ p: 'abc' })],
    ['p is not a decimal', tradeValue({ p: 'NaN' })],
    ['q is not a decimal', tradeValue({ q: '1'.repeat(30) })],
    ['q is not a decimal', tradeValue({ q: 1.5 })],
    ['t is not an id', Buffer.from(tradeValue().toString().replace('"t":1,', '"t":9007199254740993,'))],
    ['T is not a time in milliseconds', tradeValue({ T: 1723161255342000 })],
    ['E is not a time in milliseconds', tradeValue({ E: 'now' })],
    ['m is not a boolean', tradeValue({ m: 1 })],
    [
      'ingestion_timestamp_us is not a time in microseconds',
      tradeValue({ ingestion_timestamp_us: undefined }),
    ],
    ['source is neither backfill nor archive', tradeValue({ source: 'elsewhere' })],
  ]
  for (const [reason, value] of poison) {
    const batch = new Batch(0)
    assert.equal(decodeInto(batch, 'trades', record(value, null, SCHEMA)), reason)
    assert.equal(batch.rowCount('trades'), 0, reason)
  }
})

test('keeps decimals unchanged, and knows which fields an event does not have', () => {
  const batch = new Batch(0)
  assert.equal(decodeInto(batch, 'trades', record(tradeValue({ p: '0.10000000' }), null, SCHEMA)), null)
  assert.equal(
    decodeInto(batch, 'trades', record(aggTradeValue({ a: 5, f: 8, l: 9 }), null, { schema: 'aggTrade/1' })),
    null,
  )
  assert.equal(decodeInto(batch, 'trades', record(aggTradeValue({ a: 6, f: -1, l: -1 }))), null)
  for (const source of ['backfill', 'archive'])
    assert.equal(decodeInto(batch, 'trades', record(tradeValue({ E: undefined, source }))), null)
  const rows = columns(eventsOf(batch, 'trades'), 'price', 'firstTradeId', 'eventTimeUs', 'source')
  const US = 1_723_161_255_343_000
  assert.deepEqual(rows, [
    ['0.10000000', ABSENT, US, 'stream'],
    ['61837.63000000', 8, US, 'stream'],
    ['61837.63000000', ABSENT, US, 'stream'],
    ['61837.63000000', ABSENT, ABSENT, 'backfill'],
    ['61837.63000000', ABSENT, ABSENT, 'archive'],
  ])
})

test('knows the event and receipt times of its live rows, without removed ones', () => {
  const batch = new Batch(0)
  const US = 1_723_161_255_000_000
  const values = [
    tradeValue({ E: 1_723_161_255_001, ingestion_timestamp_us: US + 1 }),
    tradeValue({ E: undefined, source: 'backfill', ingestion_timestamp_us: US + 2 }),
    tradeValue({ E: 1_723_161_255_003, ingestion_timestamp_us: US + 3 }),
    aggTradeValue({ E: 1_723_161_255_004, ingestion_timestamp_us: US + 4 }),
  ]
  for (const value of values) assert.equal(decodeInto(batch, 'trades', record(value)), null)
  const quote = bookTickerValue({ ingestion_timestamp_us: US + 5 })
  assert.equal(decodeInto(batch, 'bookTicker', record(quote)), null)
  const { trades, book_ticker: quotes } = batch.origins
  assert.deepEqual(trades.eventMs, [1_723_161_255_001, Number.NaN, 1_723_161_255_003, 1_723_161_255_004])
  assert.deepEqual(trades.receivedUs, [US + 1, Number.NaN, US + 3, US + 4])
  assert.deepEqual([quotes.eventMs, quotes.receivedUs], [[Number.NaN], [US + 5]])
  batch.removeRow('trades', 0)
  assert.deepEqual(trades.receivedUs, [Number.NaN, US + 3, US + 4])
  assert.equal(trades.eventMs.length, 3)
})

test('gives a batch every revision of a gap, and no row that does not fit the schema', () => {
  const gap = (revision: number, status: Gap['status']) =>
    record(Buffer.from(JSON.stringify(gapRow({ revision, status }))), null, { schema: 'gap/1' })
  const batch = new Batch(0)
  for (const one of [gap(1, 'open'), gap(3, 'filled'), gap(2, 'open')])
    assert.equal(decodeInto(batch, 'gaps', one), null)
  assert.deepEqual(columns(batch.gaps, 'revision', 'status'), [
    [1, 'open'],
    [3, 'filled'],
    [2, 'open'],
  ])
  assert.equal(
    decodeInto(batch, 'gaps', record(Buffer.from('{"gap_id":"x"}'))),
    'revision does not fit gap/1',
  )
})

test('stops at a schema newer than it knows instead of rejecting the message', () => {
  assert.throws(
    () => decodeInto(new Batch(0), 'trades', record(tradeValue(), null, { schema: 'trade/3' })),
    (error) => isTapelineError(error, 'SCHEMA'),
  )
  for (const schema of ['bookTicker/1', 'trade', 'trade/x', '']) {
    assert.equal(
      decodeInto(new Batch(0), 'trades', record(tradeValue(), null, { schema })),
      'schema is not one of this topic',
    )
  }
})

test('decodes depth updates and snapshots, and rejects those that no book can use', () => {
  const decoder = new Decoder()
  const decode = (
    type: 'depth' | 'depthSnapshot',
    fields: object = {},
    headers: Record<string, string> = {},
  ) => decoder.decode('depth', record(eventValue(type, { ...fields }), null, headers))
  const depth = { schema: 'depth/1', epoch: '2' }
  assert.equal(decode('depth', { U: 5, u: 9 }, depth), null)
  const { firstId, id, epoch, bidCount, askCount, eventTimeUs } = decoder.event
  assert.deepEqual([firstId, id, epoch, bidCount, askCount], [5, 9, 2, 1, 0])
  assert.deepEqual([eventTimeUs, exchangeTimeMs(decoder.event)], [1_723_161_255_343_000, 1_723_161_255_343])
  assert.equal(decode('depthSnapshot', { lastUpdateId: 9 }, { schema: 'depthSnapshot/1' }), null)
  assert.deepEqual([decoder.event.firstId, decoder.event.id, decoder.event.limit], [9, 9, 5000])
  assert.equal(exchangeTimeMs(decoder.event), null)
  // Without a header the event's name tells the type.
  for (const type of ['depth', 'depthSnapshot'] as const) {
    assert.equal(decode(type), null)
    assert.equal(decoder.event.type, type)
  }
  const wrong: Array<[string, object]> = [
    ['U is above u', { U: 10, u: 9 }],
    ['U is not an id', { U: undefined }],
    ['b is not a list of levels', { b: [['1', '2', '3']] }],
    ['b is not a list of levels', { b: [['-1', '2']] }],
    ['a is not a list of levels', { a: [['1', 2]] }],
    ['a is not a list of levels', { a: null }],
    ['a level does not fit', { b: [['90071992.54740992', '1']] }],
    ['a level does not fit', { b: [['1.00000000', '90071992.54740992']] }],
    // The decimals of one side count for the other, too: a book has both.
    ['a level does not fit', { b: [['123456789', '1']], a: [['0.00000001', '1']] }],
    ['e is not depthUpdate', { e: 'depth' }],
    ['E is not a time in milliseconds', { E: undefined, source: 'backfill' }],
  ]
  for (const [reason, fields] of wrong) assert.equal(decode('depth', fields, depth), reason)
  assert.equal(decode('depth', {}, { ...depth, epoch: 'x' }), 'epoch is not a number from 0 to 1023')
  const fitting = {
    b: [['90071992.54740991', '999999999999.00000000']],
    a: [['123456789.50000000', '1.000']],
  }
  assert.equal(decode('depth', { ...fitting, a: [] }, depth), null)
  assert.equal(decode('depth', { ...fitting, b: [] }, depth), null)
  assert.equal(decode('depth', fitting, depth), 'a level does not fit')
  const snapshot = { schema: 'depthSnapshot/1' }
  assert.equal(
    decode('depthSnapshot', { asks: [['1', '90071992.54740992']] }, snapshot),
    'a level does not fit',
  )
  for (const limit of [0, 5001, '5'])
    assert.equal(decode('depthSnapshot', { limit }, snapshot), 'limit is not a number of levels')
  assert.equal(decode('depth', {}, { schema: 'trade/1' }), 'schema is not one of this topic')
  assert.throws(
    () => decode('depth', {}, { schema: 'depth/3' }),
    (error) => isTapelineError(error, 'SCHEMA'),
  )
})

test('D5 stores the epoch of an id sequence, and rejects an invalid one', () => {
  const batch = new Batch(0)
  const decode = (headers: Readonly<Record<string, string>>) =>
    decodeInto(batch, 'trades', record(tradeValue(), null, { ...SCHEMA, ...headers }))
  for (const headers of [{}, { epoch: '0' }, { epoch: '3' }, { epoch: '1023' }])
    assert.equal(decode(headers), null)
  assert.deepEqual(column(eventsOf(batch, 'trades'), 'epoch'), [0, 0, 3, 1023])
  for (const epoch of ['', '-1', '1.5', '1e3', ' 1', 'x', '1024', '2147483648', '99999999999999999999'])
    assert.equal(decode({ epoch }), 'epoch is not a number from 0 to 1023', epoch)
  assert.equal(batch.rows.trades.length, 4)
})

test('D6 reads no value longer than any event, and survives any nesting of JSON', () => {
  const decode = (value: string) =>
    decodeInto(new Batch(0), 'trades', record(Buffer.from(value), null, SCHEMA))
  const trade = tradeValue().toString().slice(0, -1)
  const nested = (depth: number) => `${trade},"x":${'['.repeat(depth)}${']'.repeat(depth)}}`
  assert.equal(decode(nested(200_000)), null)
  assert.equal(decode('['.repeat(500_000)), 'value is not JSON')
  assert.equal(decode(nested(300_000)), 'value is longer than 524288 bytes')
})

test('D6 uses the last value of a duplicate field, since ingestion appends its times', () => {
  const batch = new Batch(0)
  const twice = Buffer.from(tradeValue().toString().replace('"t":1,', '"t":1,"t":2,'))
  assert.equal(decodeInto(batch, 'trades', record(twice, null, SCHEMA)), null)
  assert.deepEqual(column(eventsOf(batch, 'trades'), 'id'), [2])
})
