import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { planConnections } from '../src/foundation/binance/connection-plan.ts'
import { memberText } from '../src/foundation/binance/json-member.ts'
import {
  type EventFrame,
  FRAME_MAX_BYTES,
  type Frame,
  FrameReader,
  withReceiptStamp,
} from '../src/foundation/binance/stream-frame.ts'

const TRADE =
  '{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}'

const DIFF =
  '{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":50093239189,"u":50093239202,"b":[["61737.63000000","0.00000000"],["61730.17000000","1.50000000"]],"a":[]}'

function interpret(text: string): Frame {
  return new FrameReader(null).read(Buffer.from(text))
}

const rejected = (reason: string): Frame => ({ kind: 'rejected', reason })

function eventOf(text: string): EventFrame {
  const frame = interpret(text)
  return frame.kind === 'event' ? frame : assert.fail(`${frame.kind} for ${text}`)
}

function eventJson(text: string): string {
  const { bytes, start, end } = eventOf(text).data
  return bytes.toString('utf8', start, end)
}

test('keeps the data object byte for byte, in any layout of the envelope', () => {
  const reordered = TRADE.replace('{"e":"trade",', '{ "note" : "a } brace \\" and {", "e":"trade",').replace(
    '"M":true',
    '"M":true,"new":{"x":[1,{}]}',
  )
  for (const data of [TRADE, reordered, TRADE.replaceAll(',', ' ,\n ')]) {
    for (const envelope of [
      `{"stream":"btcusdt@trade","data":${data}}`,
      `{"data":${data},"stream":"btcusdt@trade"}`,
      ` { "stream" : "btcusdt@trade" , "data" : ${data} , "more" : { "data": 1 } } `,
      `{"stream":"btcusdt@trade","data":${data},"tail":{}}`,
      `{"stream":"btcusdt@trade","data":{"old":1},"data":${data}}`,
    ]) {
      assert.equal(eventJson(envelope), data)
    }
  }
})

test("reads an event identically in the exchange's layout and in any other", () => {
  const quote =
    '{"u":50093239212,"s":"币安人生USDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}'
  const aggTrade = TRADE.replace('"e":"trade"', '"e":"aggTrade"')
    .replace('"t":3735683259', '"a":7')
    .replace('"T":', '"f":10,"l":12,"T":')
  for (const [stream, data] of [
    ['btcusdt@trade', TRADE],
    ['btcusdt@aggTrade', aggTrade],
    ['币安人生usdt@bookTicker', quote],
    ['btcusdt@depth@100ms', DIFF],
  ] as const) {
    const read = (text: string) => {
      const { stream, event } = eventOf(text)
      const { type, symbol, id, eventTimeMs, tradeTimeMs, firstTradeId, lastTradeId, isBuyerMaker } = event
      if (type === 'depth') {
        const { firstId, bytes, bidsStart, bidsEnd, asksStart, asksEnd } = event
        const sides = [bytes.toString('utf8', bidsStart, bidsEnd), bytes.toString('utf8', asksStart, asksEnd)]
        return { stream, type, symbol: symbol.text, firstId, id, eventTimeMs, sides }
      }
      const { price, quantity, askPrice, askQuantity } = event
      const shared = { stream, type, symbol: symbol.text, id, price, quantity }
      if (type === 'bookTicker') return { ...shared, askPrice, askQuantity }
      return { ...shared, eventTimeMs, tradeTimeMs, firstTradeId, lastTradeId, isBuyerMaker }
    }
    const expected = read(`{"stream":"${stream}","data":${data}}`)
    assert.equal(expected.stream, stream)
    assert.deepEqual(read(`{"stream":"${stream}", "data":${data}}`), expected)
    assert.deepEqual(read(`{"stream":"${stream}","data":${data.replaceAll(',', ', ')}}`), expected)
    assert.deepEqual(read(`{"data":${data},"stream":"${stream}"}`), expected)
  }
})

test('counts the events with an unknown layout', () => {
  const reader = new FrameReader(null)
  const read = (text: string) => reader.read(Buffer.from(text)).kind
  assert.equal(read(`{"stream":"btcusdt@trade","data":${TRADE}}`), 'event')
  assert.equal(reader.parsedEvents, 0)
  assert.equal(read(`{"stream":"btcusdt@trade","data":${TRADE.replace('{', '{ ')}}`), 'event')
  assert.equal(read(`{"stream":"btcusdt@trade","data":{"e":"trade"}}`), 'rejected')
  assert.equal(read('{"result":null,"id":1}'), 'control')
  assert.equal(reader.parsedEvents, 1)
})

test('finds any member as JSON.parse does', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 })),
      fc.constantFrom(undefined, 1, 3),
      (object, indent) => {
        const json = JSON.stringify(object, null, indent)
        for (const [key, value] of Object.entries(object)) {
          assert.deepEqual(JSON.parse(memberText(json, key) ?? 'null'), JSON.parse(JSON.stringify(value)))
        }
        assert.equal(memberText('{}', 'x'), null)
      },
    ),
  )
})

test('F2 takes time linear in the frame size when white space follows a value', () => {
  // Quadratic parsing of 4 MiB would take days.
  const space = ' '.repeat(4 << 20)
  assert.equal(memberText(`{"x":1${space},"data":{"t":1}${space}}`, 'data'), '{"t":1}')
})

test('F1 rejects every frame above the size limit, and only those, whatever its content', () => {
  const filled = (before: string, unit: string, after: string) => {
    const room = FRAME_MAX_BYTES - before.length - after.length
    return before + unit.repeat(Math.floor(room / unit.length)) + ' '.repeat(room % unit.length) + after
  }
  for (const [before, unit, after] of [
    ['{"stream":"btcusdt@trade","x":1', ' ', `,"data":${TRADE}}`],
    ['{"stream":"btcusdt@trade",', '"x":1,', `"data":${TRADE}}`],
    [`{"data":${TRADE.slice(0, -1)},"x":"`, '\\"', '"},"stream":"btcusdt@trade"}'],
    ['{"stream":"btcusdt@trade","x":[', '[],', `1],"data":${TRADE}}`],
  ] as const) {
    const text = filled(before, unit, after)
    assert.equal(text.length, FRAME_MAX_BYTES)
    assert.equal(interpret(text).kind, 'event', before)
    assert.deepEqual(interpret(`${text} `), rejected('frame is longer than 65536 bytes'))
  }
})

test('F1 rejects members that only Tapeline writes, in any spelling', () => {
  const frame = (data: string) => interpret(`{"stream":"btcusdt@trade","data":${data}}`)
  const added = (member: string) => TRADE.replace('"M":true', `"M":true,${member}`)
  const withoutTime = TRADE.replace('"E":1723161255343,', '')
  for (const data of [
    added('"source":"backfill"'),
    added('"source":null'),
    withoutTime.replace('"M":true', '"M":true,"\\u0073ource":"backfill"'),
    `{"source":"backfill",${TRADE.slice(1)}`,
  ])
    assert.deepEqual(frame(data), rejected('source is a member that only Tapeline writes'))
  for (const name of ['ingestion_timestamp', 'ingestion_timestamp_us'])
    assert.equal(frame(added(`"${name}":1723161255400123`)).kind, 'rejected', name)
  // Nested members are not checked.
  assert.equal(frame(added('"Z":{"source":"backfill"}')).kind, 'event')
})

test('appends both receipt times and changes nothing else', () => {
  const stamped = withReceiptStamp(TRADE, 1723161255400, 1723161255400123)
  assert.ok(stamped.startsWith(TRADE.slice(0, -1)))
  assert.deepEqual(JSON.parse(stamped), {
    ...JSON.parse(TRADE),
    ingestion_timestamp: 1723161255400,
    ingestion_timestamp_us: 1723161255400123,
  })
})

test('rejects events that cannot be stored, with the reason, and forwards unknown fields', () => {
  const frame = (data: string, stream = 'btcusdt@trade') => interpret(`{"stream":"${stream}","data":${data}}`)
  const wrong = frame(TRADE.replace('"61837.63000000"', '"abc"'))
  assert.deepEqual(wrong, rejected('p is not a decimal'))
  assert.deepEqual(frame('[]'), rejected('data is not an object'))
  assert.deepEqual(frame(TRADE, 'ethusdt@trade'), rejected('s is not the symbol of the stream'))
  assert.deepEqual(frame(TRADE, 'btcusdt@aggTrade'), rejected('e is not aggTrade'))
  assert.deepEqual(frame(TRADE, 'btcusdt@depth'), { kind: 'ignored', reason: 'stream type not taken' })
  const latin1 = Buffer.from(
    `{"stream":"btcusdt@trade","data":${TRADE.replace('}', ',"x":"\xff"}')}}`,
    'latin1',
  )
  assert.deepEqual(new FrameReader(null).read(latin1), rejected('not UTF-8'))
  assert.deepEqual(interpret('not json'), rejected('not JSON'))
  assert.deepEqual(interpret('17'), rejected('not an object'))
  assert.equal(frame(TRADE.replace('"M":true', '"M":true,"Z":[1]')).kind, 'event')
})

test('classifies every frame as one of the four kinds, whatever its content', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.json().map((json) => `{"stream":"btcusdt@trade","data":${json}}`),
      ),
      (text) => {
        assert.match(interpret(text).kind, /^(event|control|ignored|rejected)$/)
      },
    ),
  )
})

const EDGE_CASES = resolve(import.meta.dirname, '../../shared/data/binance/edge-case-frames.ndjson')
const EXPECTED: Record<string, string> = {
  serverShutdown_combined: 'control serverShutdown',
  serverShutdown_raw: 'control serverShutdown',
  subscribe_ack: 'control answer',
  list_subscriptions: 'control answer',
  error_flat_with_id: 'control error',
  error_flat_invalid_json: 'control error',
  error_wrapped: 'control error',
  truncated_json: 'rejected',
}

test('classifies the documented frames correctly', {
  skip: existsSync(EDGE_CASES) ? false : 'the captured frames are not next to this checkout',
}, () => {
  for (const line of readFileSync(EDGE_CASES, 'utf8').trim().split('\n')) {
    const { case: name, raw } = JSON.parse(line) as { case: string; raw: string }
    const frame = interpret(raw)
    assert.equal(
      frame.kind === 'control' ? `control ${frame.control}` : frame.kind,
      EXPECTED[name] ?? 'event',
      name,
    )
  }
})

test('subscribes to every stream once, within the limits of streams per connection and characters per URL', () => {
  const symbols = Array.from({ length: 1500 }, (_, i) => `${i % 7 === 0 ? '币' : 'sym'}${i}usdt@bookTicker`)
  const plans = planConnections('wss://host:9443', symbols, 'microsecond')
  assert.equal(plans.length, 2)
  const asked = plans.flatMap(({ url, subscriptions }) => [
    ...decodeURIComponent(url)
      .replace('wss://host:9443/stream?streams=', '')
      .replace('&timeUnit=MICROSECOND', '')
      .split('/'),
    ...subscriptions.flat(),
  ])
  assert.deepEqual(asked, symbols)
  for (const { url, streams, subscriptions } of plans) {
    assert.ok(url.length <= 7000 && streams.length <= 1024 && new URL(url).search.length <= 7000)
    assert.ok(subscriptions.every((chunk) => chunk.length <= 200))
  }
})
