import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { EventType } from '../src/foundation/market/event.ts'
import { ABSENT, EventFields } from '../src/foundation/market/event-fields.ts'
import { isDecimal, isId, isSymbol, isTime, isTimeUs } from '../src/foundation/market/fields.ts'
import { normalise, subtract } from '../src/foundation/market/id-ranges.ts'
import { type Fields, readPayload } from '../src/foundation/market/payload.ts'
import type { TimeUnit } from '../src/foundation/market/time-unit.ts'

const TRADE = {
  ...{ e: 'trade', E: 1723161255343, s: 'BTCUSDT', t: 3735683259 },
  ...{ p: '61837.63000000', q: '0.02000000', T: 1723161255342, m: true, M: true },
}
const AGG = { ...TRADE, e: 'aggTrade', a: 7, f: 10, l: 12 }
const QUOTE = {
  ...{ u: 50093239212, s: 'BTCUSDT', b: '61837.63000000', B: '3.78826000' },
  ...{ a: '61837.64000000', A: '1.54698000' },
}

test('accepts every decimal that NUMERIC(20,8) stores exactly, and no other text', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 10n ** 20n - 1n }), (scaled) => {
      const digits = scaled.toString().padStart(9, '0')
      assert.ok(isDecimal(`${digits.slice(0, -8)}.${digits.slice(-8)}`))
    }),
  )
  const words = ['abc', 'NaN', '1e3', '-1', '+1', '1.', '.5', '', ' 1', '1 ', '1,0', '١', 'Infinity']
  for (const text of [...words, '1234567890123', '0.123456789', '9'.repeat(30)])
    assert.equal(isDecimal(text), false, text)
  assert.equal(isDecimal(1.5), false)
})

test('accepts ids up to 2^53 − 1, and times of 2017 to 2099 only in their unit', () => {
  assert.ok(isId(0) && isId(Number.MAX_SAFE_INTEGER))
  for (const id of [-1, 1.5, 2 ** 53, '1', null, Number.NaN]) assert.equal(isId(id), false, String(id))
  assert.ok(isTime(1723161255342, 'millisecond') && isTimeUs(1723161255342000))
  assert.equal(isTime(1723161255342000, 'millisecond'), false, 'microseconds instead of milliseconds')
  assert.equal(isTime(1723161255, 'millisecond'), false, 'seconds instead of milliseconds')
  assert.equal(isTimeUs(1723161255342), false, 'milliseconds instead of microseconds')
})

test("accepts symbols in the exchange's spelling, including non-ASCII ones, but nothing that could break a key", () => {
  for (const symbol of ['BTCUSDT', '1000SATSUSDT', '币安人生USDT']) assert.ok(isSymbol(symbol), symbol)
  for (const symbol of ['btcusdt', 'BTC\0USDT', 'BTC USDT', '', 'A'.repeat(41), 'BTC"', '\ud800', null]) {
    assert.equal(isSymbol(symbol), false, String(symbol))
  }
})

/** The fields that were read, or why there are none. */
function read(type: EventType, data: Fields, unit?: TimeUnit): EventFields | string {
  const event = new EventFields()
  return readPayload(type, data, event, unit) ?? event
}

test('accepts times in either unit, both of an event in the same one', () => {
  const inMicroseconds = { ...TRADE, E: TRADE.E * 1000 + 7, T: TRADE.T * 1000 + 999 }
  for (const [given, unit, scale] of [
    [inMicroseconds, 'microsecond', 1],
    [TRADE, 'millisecond', 1000],
  ] as const) {
    const event = read('trade', given)
    assert.ok(typeof event !== 'string')
    assert.deepEqual(
      [event.timeUnit, event.eventTimeUs, event.tradeTimeUs],
      [unit, given.E * scale, given.T * scale],
    )
    assert.deepEqual(
      [event.symbol.text, event.id, event.price, event.quantity, event.isBuyerMaker],
      [given.s, given.t, given.p, given.q, given.m],
    )
  }
  assert.equal(read('trade', TRADE, 'microsecond'), 'T is not a time in microseconds')
  assert.equal(read('trade', inMicroseconds, 'millisecond'), 'T is not a time in milliseconds')
  assert.equal(read('trade', { ...TRADE, T: TRADE.T * 1000 }), 'E is not a time in microseconds')
  assert.equal(read('trade', { ...TRADE, E: TRADE.E * 1000 }), 'E is not a time in milliseconds')
})

test('names the invalid field', () => {
  assert.equal(read('trade', { ...TRADE, p: 'abc' }), 'p is not a decimal')
  assert.equal(read('trade', { ...TRADE, q: undefined }), 'q is not a decimal')
  assert.equal(read('trade', { ...TRADE, t: 2 ** 53 }), 't is not an id')
  assert.equal(read('trade', { ...TRADE, m: 'true' }), 'm is not a boolean')
  assert.equal(read('trade', { ...TRADE, s: 'BTC\0' }), 's is not a symbol')
  assert.equal(read('trade', { ...TRADE, e: 'aggTrade' }), 'e is not trade')
  assert.equal(read('aggTrade', { ...AGG, f: 13 }), 'f is above l')
  assert.equal(read('bookTicker', { ...QUOTE, A: 1.5 }), 'A is not a decimal')
})

test('accepts invalidated aggTrades; only a backfilled trade may lack its event time', () => {
  const invalidated = read('aggTrade', { ...AGG, f: -1, l: -1 })
  assert.ok(typeof invalidated !== 'string')
  assert.deepEqual([invalidated.firstTradeId, invalidated.lastTradeId], [ABSENT, ABSENT])
  assert.equal(read('aggTrade', { ...AGG, f: -1 }), 'f is not an id')
  assert.equal(read('trade', { ...TRADE, E: undefined }), 'E is not a time in milliseconds')
  const backfilled = read('trade', { ...TRADE, E: undefined, source: 'backfill' })
  assert.ok(typeof backfilled !== 'string')
  assert.equal(backfilled.eventTimeUs, ABSENT)
})

test('subtracts id ranges like sets of ids', () => {
  const range = fc
    .tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 8 }))
    .map(([from, length]) => ({ from, to: from + length }))
  const idsOf = (ranges: ReadonlyArray<{ from: number; to: number }>) =>
    new Set(ranges.flatMap(({ from, to }) => Array.from({ length: to - from + 1 }, (_, i) => from + i)))
  fc.assert(
    fc.property(fc.array(range), fc.array(range), (left, right) => {
      assert.deepEqual(
        [...idsOf(normalise(left))].sort((a, b) => a - b),
        [...idsOf(left)].sort((a, b) => a - b),
      )
      assert.deepEqual(
        [...idsOf(subtract(left, right))].sort((a, b) => a - b),
        [...idsOf(left).difference(idsOf(right))].sort((a, b) => a - b),
      )
    }),
  )
})
