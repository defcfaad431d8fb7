import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type StreamType, streamName } from '../src/foundation/market/event.ts'
import { AcknowledgedState } from '../src/ingestion/checkpoint/acknowledged-state.ts'
import { Continuity, type StreamEvent } from '../src/ingestion/continuity/continuity.ts'
import { StreamMerge } from '../src/ingestion/continuity/stream-merge.ts'
import { columns } from './support/columns.ts'
import { ledgerAlone } from './support/ledger-alone.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const SYMBOL = 'BTCUSDT'
const STREAM = 'btcusdt@bookTicker'
const QUOTE = { symbol: SYMBOL, type: 'bookTicker', epoch: 0 } as const
const NOON_MS = Date.UTC(2026, 0, 1, 12)
const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS

function at(text: string): number {
  return Date.parse(`2026-01-01T${text}Z`)
}

function scene(clockAheadMs: () => number | null = () => null) {
  const { ledger, rows } = ledgerAlone(NOON_MS)
  const continuity = new Continuity<StreamEvent>(ledger, clockAheadMs)
  const observe = (type: StreamType, id: number, receiptMs: number) => {
    const stream = streamName(SYMBOL, type)
    continuity.observe({
      stream,
      symbol: SYMBOL,
      type,
      firstId: id,
      id,
      timeMs: receiptMs,
      receiptMs,
      connection: 1,
    })
  }
  const quote = (id: number, receiptMs: number) => observe('bookTicker', id, receiptMs)
  const trade = (id: number, receiptMs: number) => observe('trade', id, receiptMs)
  const windows = () =>
    rows.map(({ from_time, to_time, cause }) => [
      ...[from_time, to_time].map((ms) => new Date(ms ?? 0).toISOString().slice(11, 19)),
      cause,
    ])
  return { continuity, rows, quote, trade, windows }
}

for (const [what, from, to, next, window] of [
  ['ahead', '12:00:01', '14:00:01', '14:00:03', ['12:00:00', '14:00:03']],
  ['back', '12:00:01', '11:10:01', '11:10:03', ['11:10:00', '12:00:03']],
] as const) {
  test(`Q4 a clock set ${what} records a window that covers the outage by both clocks, and names both times`, () => {
    const { continuity, rows, quote, windows } = scene()
    quote(1, at('12:00:00'))
    continuity.interrupted([STREAM], 'reconnect')
    continuity.clockStepped({ fromMs: at(from) + 0.25, toMs: at(to) + 0.25 })
    continuity.interrupted([STREAM], 'reconnect')
    quote(2, at(next))
    quote(3, at(next) + 1)
    assert.deepEqual(windows(), [[...window, 'clock']])
    assert.equal(rows[0]?.reason, `the clock jumped from 2026-01-01T${from}.000Z to 2026-01-01T${to}.000Z`)
  })
}

test('Q4 two steps before the next quote are combined; the forward one may be a suspend', () => {
  const { continuity, quote, windows } = scene()
  quote(1, at('12:00:00'))
  continuity.clockStepped({ fromMs: at('12:00:01'), toMs: at('14:00:01') })
  continuity.clockStepped({ fromMs: at('14:00:02'), toMs: at('11:10:02') })
  quote(2, at('11:10:04'))
  assert.deepEqual(windows(), [['09:10:00', '14:00:04', 'clock']])
})

test('Q4 a fast clock is corrected during a suspend, which hides part of the step', () => {
  const { continuity, quote, windows } = scene(() => 2 * HOUR_MS)
  quote(1, at('14:00:00'))
  continuity.clockStepped({ fromMs: at('14:00:01'), toMs: at('12:11:01') })
  quote(2, at('12:11:02'))
  assert.deepEqual(windows(), [['12:00:00', '14:11:02', 'clock']])
})

test('Q4 ids missing over a clock step have it as their cause', () => {
  const { continuity, rows, trade } = scene()
  trade(1, NOON_MS + 1)
  continuity.clockStepped({ fromMs: NOON_MS, toMs: NOON_MS - MINUTE_MS })
  trade(9, NOON_MS + 9)
  assert.deepEqual(columns(rows, 'cause', 'from_id', 'to_id'), [['clock', 2, 8]])
})

/** State after a quote at this time of the instance's clock, so far ahead of the exchange's. */
function left(lastReceipt: string, clockAheadMs: number | null) {
  const memory = new AcknowledgedState()
  memory.event({
    ...QUOTE,
    firstId: 1,
    id: 1,
    timeMs: at(lastReceipt),
    clockAheadMs: clockAheadMs ?? undefined,
  })
  return memory.snapshot(SYMBOL).bookTicker ?? assert.fail()
}

test('P5 a quote acknowledged after a clock step is remembered with the clock that stamped it', () => {
  const memory = new AcknowledgedState()
  const clocks = [8 * 60 * MINUTE_MS, 0, undefined].map((clockAheadMs, id) => {
    memory.event({ ...QUOTE, firstId: id, id, timeMs: at('12:00:00') + id, clockAheadMs })
    return memory.snapshot(SYMBOL).bookTicker?.clock_ahead
  })
  assert.deepEqual(clocks, [8 * 60 * MINUTE_MS, 0, 0])
})

for (const [what, last, beforeMs, next, nowMs, window] of [
  ['set right', '20:00:00', 8 * HOUR_MS, '12:00:05', 0, ['12:00:00', '20:00:05', 'clock']],
  [
    'corrected by less than the downtime',
    '12:01:00',
    MINUTE_MS,
    '12:01:30',
    0,
    ['12:00:00', '12:02:30', 'clock'],
  ],
  ['set wrong', '12:00:00', 0, '11:10:05', -50 * MINUTE_MS, ['11:10:00', '12:00:05', 'clock']],
  ['set ahead', '12:00:00', 0, '20:00:05', 8 * HOUR_MS, ['12:00:00', '20:00:05', 'clock']],
  [
    "corrected before the exchange's time was requested",
    '20:00:00',
    8 * HOUR_MS,
    '12:04:00',
    null,
    ['12:00:00', '20:04:00', 'clock'],
  ],
  [
    'set wrong after a receipt whose clock is unknown',
    '12:03:00',
    null,
    '11:35:00',
    -50 * MINUTE_MS,
    ['11:13:00', '12:25:00', 'clock'],
  ],
  ['left alone', '12:00:00', 0, '12:00:05', 900, ['12:00:00', '12:00:05', 'restart']],
] as const) {
  test(`Q5 a clock ${what} between two instances: the window covers the outage by both clocks`, () => {
    const { continuity, quote, windows } = scene(() => nowMs)
    continuity.restoreQuotes(SYMBOL, left(last, beforeMs))
    quote(2, at(next))
    quote(3, at(next) + 1)
    assert.deepEqual(windows(), [window])
  })
}

test('C2 the last quote keeps its original receipt time, also after the clock was set back', () => {
  const memory = new AcknowledgedState()
  memory.event({ ...QUOTE, firstId: 1, id: 1, timeMs: at('12:00:00') })
  memory.event({ ...QUOTE, firstId: 2, id: 2, timeMs: at('11:10:00') })
  assert.deepEqual(memory.snapshot(SYMBOL).bookTicker, {
    last_update_id: 2,
    last_receipt: at('11:10:00'),
    clock_ahead: null,
  })
})

test('P3 events that two connections hold back are released before the clock counts as set', () => {
  const passed: number[] = []
  const merge = new StreamMerge<StreamEvent>(
    new VirtualClock(),
    { deliver: ({ id }) => passed.push(id) < 0 },
    { patienceMs: () => Number.POSITIVE_INFINITY },
    { interrupted() {} },
  )
  const event = { stream: 'btcusdt@trade', symbol: SYMBOL, type: 'trade', timeMs: 0, receiptMs: 0 } as const
  merge.opened(1, [event.stream])
  merge.offer({ ...event, firstId: 10, id: 10, connection: 1 }, 0)
  merge.opened(2, [event.stream])
  merge.offer({ ...event, firstId: 13, id: 13, connection: 2 }, 0)
  assert.deepEqual([passed, merge.held], [[10], 1])
  merge.flush()
  assert.deepEqual([passed, merge.held], [[10, 13], 0])
  merge.stop()
})

test('Q4 a restart of update ids is named as such, also when the clock was set meanwhile', () => {
  const { continuity, quote, windows } = scene()
  for (let id = 5000; id < 5600; id++) quote(id, at('12:00:00'))
  continuity.interrupted([STREAM], 'reconnect')
  continuity.clockStepped({ fromMs: at('12:00:01'), toMs: at('14:00:01') })
  for (let id = 1; id <= 101; id++) quote(id, at('14:00:03'))
  assert.deepEqual(windows(), [['12:00:00', '14:00:03', 'reset']])
})

test('Q4 the window of restarted update ids ends at the first of them, though the clock may have gone back', () => {
  const { continuity, quote, windows } = scene(() => 2 * HOUR_MS)
  for (let id = 5000; id < 5600; id++) quote(id, at('14:00:00'))
  continuity.clockStepped({ fromMs: at('14:00:01'), toMs: at('14:00:03') })
  for (let id = 1; id <= 101; id++) quote(id, at('14:00:04'))
  assert.deepEqual(windows(), [['12:00:00', '14:00:04', 'reset']])
})

test('C3 S5 gaps of a silent stream and of a reset have the times of the trades around them', () => {
  const { continuity, rows, trade } = scene()
  trade(100, at('12:00:00'))
  continuity.expect('btcusdt@trade', 105, at('12:00:20'))
  for (const [id, time] of [
    [3, '12:01:00'],
    [4, '12:01:01'],
    [6, '12:01:02'],
  ] as const)
    trade(id, at(time))
  const found = rows.filter(({ status, from_id }) => status === 'open' && from_id !== null)
  assert.deepEqual(columns(found, 'cause', 'from_id', 'to_id', 'from_time', 'to_time'), [
    ['silent', 101, 105, at('12:00:00'), at('12:00:20')],
    ['reset', 5, 5, at('12:00:20'), at('12:01:02')],
  ])
})
