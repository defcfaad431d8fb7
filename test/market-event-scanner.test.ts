import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  declarationOf,
  EVENT_TYPES,
  type EventType,
  isTickType,
  isTradeType,
  type Role,
  TRADE_TYPES,
} from '../src/foundation/market/event.ts'
import { EventFields, LATE_SOURCES, lateSource } from '../src/foundation/market/event-fields.ts'
import { EventScanner } from '../src/foundation/market/event-scanner.ts'
import { isTimeUs } from '../src/foundation/market/fields.ts'
import { LevelCursor } from '../src/foundation/market/levels.ts'
import { readPayload } from '../src/foundation/market/payload.ts'
import { depthFrames, NO_CAPTURE, NO_DEPTH_CAPTURE, realFrames } from './support/real-capture.ts'

const id = fc.oneof(fc.nat(20), fc.maxSafeNat())
const timeMs = fc.integer({ min: Date.UTC(2017, 0, 1), max: Date.UTC(2100, 0, 1) - 1 })
const symbol = fc.oneof(
  fc.constantFrom('BTCUSDT', '1000SATS', 'N', '币安人生USDT'),
  fc.stringMatching(/^[A-Z]{1,40}$/),
)
const decimal = fc
  .tuple(fc.bigInt({ min: 0n, max: 10n ** 12n - 1n }), fc.option(fc.stringMatching(/^\d{1,8}$/)))
  .map(([whole, fraction]) => (fraction === null ? String(whole) : `${whole}.${fraction}`))
const timeUs = fc.tuple(timeMs, fc.nat(999)).map(([ms, us]) => ms * 1000 + us)
/** The same event in either unit. */
const times = fc.oneof(fc.record({ E: timeMs, T: timeMs }), fc.record({ E: timeUs, T: timeUs }))

/** Mostly so short that its event can be stored. */
const ofLevel = fc.oneof(
  decimal,
  ...Array.from({ length: 6 }, () =>
    fc.tuple(fc.nat(99_999_999), fc.stringMatching(/^\d{8}$/)).map((digits) => digits.join('.')),
  ),
)
const levels = fc.array(fc.tuple(ofLevel, ofLevel), { maxLength: 4 })

/** Whether no level has more than 2⁵³ − 1 units of the fewest decimals that all of them need. */
function levelsFit(event: Record<string, unknown>): boolean {
  const all = [event['b'], event['a'], event['bids'], event['asks']].flatMap(
    (side) => side ?? [],
  ) as string[][]
  return [0, 1].every((at) => {
    const texts = all.map((level) => level[at] ?? '')
    const scale = Math.max(0, ...texts.map((text) => text.replace(/^\d+\.?/, '').replace(/0+$/, '').length))
    return texts.every((text) => {
      const [whole = '', fraction = ''] = text.split('.')
      return BigInt(whole + fraction.padEnd(scale, '0').slice(0, scale)) <= Number.MAX_SAFE_INTEGER
    })
  })
}

/** Events in the declared layout. */
function eventsOf(type: EventType): fc.Arbitrary<Record<string, unknown>> {
  const { layout, eventName } = declarationOf(type)
  const hasRange = layout.some(([, role]) => role === 'firstId')
  const values = fc.record({
    range: fc.tuple(fc.nat(20), fc.oneof(fc.nat(20), fc.nat(2 ** 52))),
    bids: levels,
    asks: levels,
    limit: fc.integer({ min: 1, max: 5000 }),
    times,
    symbol,
    id,
    decimals: fc.tuple(decimal, decimal, decimal, decimal),
    first: fc.nat(1e9),
  })
  return fc.tuple(values, fc.nat(1e6), fc.boolean(), fc.boolean()).map(([some, more, maker, unused]) => {
    const decimals = [...some.decimals]
    const byRole = (role: Role): unknown => {
      if (role === 'type') return eventName
      if (role === 'eventTime') return some.times.E
      if (role === 'tradeTime') return some.times.T
      if (role === 'symbol') return some.symbol
      if (role === 'firstId') return some.range[0]
      if (role === 'id') return hasRange ? some.range[0] + some.range[1] : some.id
      if (role === 'bids') return some.bids
      if (role === 'asks') return some.asks
      if (role === 'limit') return some.limit
      if (role === 'firstTradeId') return some.first
      if (role === 'lastTradeId') return some.first + more
      if (role === 'isBuyerMaker') return maker
      return role === 'unused' ? unused : decimals.pop()
    }
    return Object.fromEntries(layout.map(([name, role]) => [name, byRole(role)]))
  })
}

const anyEvent = fc.oneof(...EVENT_TYPES.map(eventsOf))
const stamped = fc.tuple(anyEvent, timeMs, fc.nat(999)).map(([event, ms, us]) => ({
  ...event,
  ingestion_timestamp: ms,
  ingestion_timestamp_us: ms * 1000 + us,
}))

/** Stored events that REST or a daily file gave. */
const late = fc
  .tuple(fc.oneof(...TRADE_TYPES.map(eventsOf)), fc.constantFrom(...LATE_SOURCES), timeMs)
  .map(([{ E, ...event }, source, ms]) => ({
    ...event,
    ...{ source, ingestion_timestamp: ms, ingestion_timestamp_us: ms * 1000 },
  }))

/** The result of `JSON.parse` and `payload.ts`: the row, or null for none. */
function parsed(bytes: Buffer, isStamped: boolean): unknown {
  let data: unknown
  try {
    data = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes))
  } catch {
    return null
  }
  const fields = Object(data)
  const type = EVENT_TYPES.find((one) => declarationOf(one).eventName === fields.e) ?? 'bookTicker'
  const event = new EventFields()
  if (readPayload(type, fields, event) !== null) return null
  event.receivedUs = fields.ingestion_timestamp_us
  event.source = lateSource(fields.source) ?? 'stream'
  if (isStamped && !isTimeUs(event.receivedUs)) return null
  return valuesOf(event, isStamped)
}

/** What the fields of an event say, wherever its decimals are. */
function valuesOf(event: EventFields, isStamped: boolean): unknown {
  const { type, id, firstId, receivedUs, source } = event
  assert.equal(event.symbol.bytes.toString(), event.symbol.text)
  const received = isStamped ? { receivedUs, source } : {}
  const shared = { type, id, firstId, symbol: event.symbol.text, ...received }
  const { timeUnit, eventTimeUs } = event
  if (!isTickType(type)) {
    const { bytes } = event
    const bids = levelsOf(bytes, event.bidsStart, event.bidsEnd)
    const asks = levelsOf(bytes, event.asksStart, event.asksEnd)
    assert.deepEqual([bids.length, asks.length], [event.bidCount, event.askCount])
    const more = type === 'depth' ? { timeUnit, eventTimeUs } : { limit: event.limit }
    return { ...shared, bids, asks, ...more }
  }
  const { price, quantity } = event
  if (!isTradeType(type)) return { ...shared, price, quantity, ask: [event.askPrice, event.askQuantity] }
  const { tradeTimeUs, firstTradeId, lastTradeId, isBuyerMaker } = event
  return {
    ...shared,
    price,
    quantity,
    timeUnit,
    eventTimeUs,
    tradeTimeUs,
    firstTradeId,
    lastTradeId,
    isBuyerMaker,
  }
}

function levelsOf(bytes: Buffer, start: number, end: number): string[][] {
  const found: string[][] = []
  const cursor = new LevelCursor()
  cursor.begin(bytes, start, end)
  while (cursor.next())
    found.push([
      bytes.toString('latin1', cursor.priceStart, cursor.priceEnd),
      bytes.toString('latin1', cursor.quantityStart, cursor.quantityEnd),
    ])
  return found
}

/** Reads the bytes among others, as they are in a batch. */
function scan(scanner: EventScanner, bytes: Buffer, isStamped: boolean): unknown {
  const around = Buffer.concat([Buffer.from('9"}'), bytes, Buffer.from('0,"')])
  const [start, end] = [3, 3 + bytes.length]
  const isRead = isStamped ? scanner.readStamped(around, start, end) : scanner.readEvent(around, start, end)
  return isRead ? valuesOf(scanner.fields, isStamped) : null
}

test("reads every event in the exchange's layout as JSON.parse does", () => {
  const scanner = new EventScanner()
  let unfit = 0
  for (const [events, isStamped] of [
    [anyEvent, false],
    [stamped, true],
    [late, true],
  ] as const) {
    fc.assert(
      fc.property(events, (event) => {
        const bytes = Buffer.from(JSON.stringify(event))
        const expected = parsed(bytes, isStamped)
        assert.equal(expected !== null, levelsFit(event))
        if (expected === null) unfit++
        assert.deepEqual(scan(scanner, bytes, isStamped), expected)
      }),
      { numRuns: 2000 },
    )
  }
  assert.ok(unfit > 20 && unfit < 2000, `${unfit} events with a level that does not fit`)
})

/** Random bytes, more often those with a meaning in JSON, numbers and UTF-8. */
const byte = fc.oneof(
  fc.constantFrom(...Buffer.from('{}[]",:.-+eE0123456789\\u tfnM')),
  fc.integer({ min: 0, max: 255 }),
)
const change = fc.record({
  kind: fc.constantFrom('replace', 'insert', 'remove', 'cut', 'double'),
  at: fc.nat(),
  byte,
})

test('reads corrupted bytes as JSON.parse does, or not at all', () => {
  const scanner = new EventScanner()
  let read = 0
  fc.assert(
    fc.property(
      fc.oneof(stamped, late),
      fc.array(change, { minLength: 1, maxLength: 3 }),
      (event, changes) => {
        const isStamped = 'source' in event || changes.length % 2 === 0
        const { ingestion_timestamp, ingestion_timestamp_us, ...bare } = event
        let bytes = Buffer.from(JSON.stringify(isStamped ? event : bare))
        for (const { kind, at: place, byte: value } of changes) {
          const at = place % (bytes.length + 1)
          const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)]
          const one = Buffer.from([value])
          if (kind === 'replace') bytes = Buffer.concat([before, one, after.subarray(1)])
          if (kind === 'insert') bytes = Buffer.concat([before, one, after])
          if (kind === 'remove') bytes = Buffer.concat([before, after.subarray(1)])
          if (kind === 'cut') bytes = Buffer.from(before)
          if (kind === 'double') bytes = Buffer.concat([before, after.subarray(0, 1), after])
        }
        const row = scan(scanner, bytes, isStamped)
        if (row === null) return
        read++
        assert.deepEqual(row, parsed(bytes, isStamped), bytes.toString())
      },
    ),
    { numRuns: 30_000 },
  )
  assert.ok(read > 1000, `${read} of the changed events are still readable`)
})

const GOOD =
  '{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":1,"p":"61837.63","q":"0.02","T":1723161255342,"m":true,"M":true}'

test('leaves any other layout to JSON.parse', () => {
  const scanner = new EventScanner()
  assert.notEqual(scan(scanner, Buffer.from(GOOD), false), null)
  const others: Readonly<Record<string, readonly string[]>> = {
    '"t":1,': [
      ...['9007199254740992', '9007199254740993', '90071992547409910', '01', '1e3', '-1', '"1"'],
      '1,"t":2',
    ].map((id) => `"t":${id},`),
    '"61837.63"': ['1234567890123', '1.123456789', '1.', '.5', 'NaN', '-1', ''].map((text) => `"${text}"`),
    '"BTCUSDT"': ['btcusdt', '', 'BTC\\u0055SDT', 'A'.repeat(41)].map((text) => `"${text}"`),
    '"T":1723161255342': ['"T":1723161255342000', '"T":0'],
    '"M":true}': ['"M":true,"X":1}', '"M":null}', '"M":true} '],
    '{"e"': ['{ "e"'],
    '"trade"': ['"trades"'],
  }
  for (const [from, changes] of Object.entries(others)) {
    assert.ok(GOOD.includes(from), `${from} occurs in the event`)
    for (const to of changes) {
      const bytes = Buffer.from(GOOD.replace(from, to))
      assert.equal(scan(scanner, bytes, false), null, bytes.toString())
    }
  }
  assert.equal(scan(scanner, Buffer.alloc(0), false), null)
  const latin1 = Buffer.from(GOOD.replace('BTCUSDT', 'BTC\xc4USDT'), 'latin1')
  assert.equal(scan(scanner, latin1, false), null, 'not UTF-8')
})

const DIFF =
  '{"e":"depthUpdate","E":1723161255343,"s":"BTCUSDT","U":7,"u":9,"b":[["1.0","2"],["3","0.0"]],"a":[]}'

test('leaves depth in any other layout to JSON.parse', () => {
  const scanner = new EventScanner()
  assert.notEqual(scan(scanner, Buffer.from(DIFF), false), null)
  const others: Readonly<Record<string, readonly string[]>> = {
    '"U":7': ['"U":10', '"U":-7', '"U":"7"'],
    '["1.0","2"]': [
      '["1.0","2",[]]',
      '["1.0"]',
      '["-1.0","2"]',
      '["1.0",2]',
      '["1.0", "2"]',
      '',
      '["1.0","2"],',
    ],
    '"a":[]': ['"a":[[]]', '"a":null', '"a":[],"b":[]', '"a":['],
  }
  for (const [from, changes] of Object.entries(others)) {
    assert.ok(DIFF.includes(from), `${from} occurs in the event`)
    for (const to of changes) {
      const bytes = Buffer.from(DIFF.replace(from, to))
      assert.equal(scan(scanner, bytes, false), null, bytes.toString())
    }
  }
})

test('reads recorded depth updates, which chain', { skip: NO_DEPTH_CAPTURE }, async () => {
  const scanner = new EventScanner()
  let [diffs, levels, last] = [0, 0, 0]
  for await (const { line } of depthFrames()) {
    if (!line.includes('@depth@100ms"')) continue
    const bytes = Buffer.from(line.slice(line.indexOf('"data":') + 7, -1))
    const row = scan(scanner, bytes, false)
    assert.notEqual(row, null, line)
    assert.deepEqual(row, parsed(bytes, false))
    const { firstId, id, bidCount, askCount } = scanner.fields
    if (diffs > 0) assert.equal(firstId, last + 1)
    last = id
    diffs++
    levels += bidCount + askCount
  }
  assert.equal(diffs, 3451)
  assert.ok(levels > 30 * diffs, `${levels} levels`)
})

test('reads every event of a minute of the real market', { skip: NO_CAPTURE }, async () => {
  const scanner = new EventScanner()
  let lines = 0
  for await (const { line } of realFrames()) {
    lines++
    const bytes = Buffer.from(line.slice(line.indexOf('"data":') + 7, -1))
    const row = scan(scanner, bytes, false)
    assert.notEqual(row, null, line)
    assert.deepEqual(row, parsed(bytes, false))
  }
  assert.equal(lines, 14_273)
})
