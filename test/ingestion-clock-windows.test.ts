import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Gap } from '../src/foundation/market/gap.ts'
import { AcknowledgedState, streamMemory } from '../src/ingestion/checkpoint/acknowledged-state.ts'
import { Continuity, type StreamEvent } from '../src/ingestion/continuity/continuity.ts'
import { GapLedger } from '../src/ingestion/continuity/gap-ledger.ts'
import { StreamMerge } from '../src/ingestion/continuity/stream-merge.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const SYMBOL = 'BTCUSDT'
const NOON_MS = Date.UTC(2026, 0, 1, 12)
const MINUTE_MS = 60_000

function at(text: string): number {
  return Date.parse(`2026-01-01T${text}Z`)
}

function scene(aheadMs: number | null = null) {
  const rows: Gap[] = []
  const ledger = new GapLedger(
    (gap) => rows.push(gap),
    () => {},
    () => NOON_MS,
  )
  const continuity = new Continuity<StreamEvent>(
    ledger,
    () => {},
    () => aheadMs,
  )
  const quote = (id: number, receiptMs: number) =>
    continuity.observe({
      stream: 'btcusdt@bookTicker',
      symbol: SYMBOL,
      type: 'bookTicker',
      id,
      timeMs: receiptMs,
      receiptMs,
      connection: 1,
    })
  const windows = () =>
    rows.map(({ from_time, to_time, cause }) => [
      ...[from_time, to_time].map((ms) => new Date(ms ?? 0).toISOString().slice(11, 19)),
      cause,
    ])
  return { continuity, rows, quote, windows }
}

for (const [what, from, to, next, window] of [
  ['ahead', '12:00:01', '14:00:01', '14:00:03', ['12:00:00', '14:00:03']],
  ['back', '12:00:01', '11:10:01', '11:10:03', ['11:10:00', '12:00:03']],
] as const) {
  test(`Q4 a clock that is set ${what} enters a window that holds the outage by both clocks, and names them`, () => {
    const { continuity, rows, quote, windows } = scene()
    quote(1, at('12:00:00'))
    continuity.interrupted(['btcusdt@bookTicker'], 'reconnect')
    continuity.clockStepped({ fromMs: at(from), toMs: at(to) })
    continuity.interrupted(['btcusdt@bookTicker'], 'reconnect')
    quote(2, at(next))
    quote(3, at(next) + 1)
    assert.deepEqual(windows(), [[...window, 'clock']])
    assert.equal(rows[0]?.reason, `the clock went from 2026-01-01T${from}.000Z to 2026-01-01T${to}.000Z`)
  })
}

test('Q4 two steps before the next quote count together', () => {
  const { continuity, quote, windows } = scene()
  quote(1, at('12:00:00'))
  continuity.clockStepped({ fromMs: at('12:00:01'), toMs: at('14:00:01') })
  continuity.clockStepped({ fromMs: at('14:00:02'), toMs: at('11:10:02') })
  quote(2, at('11:10:04'))
  assert.deepEqual(windows(), [['11:10:00', '12:00:04', 'clock']])
})

test('Q4 ids that are missing over a step of the clock have it as their cause', () => {
  const { continuity, rows } = scene()
  const trade = (id: number) =>
    continuity.observe({
      stream: 'btcusdt@trade',
      symbol: SYMBOL,
      type: 'trade',
      id,
      timeMs: NOON_MS + id,
      receiptMs: NOON_MS + id,
      connection: 1,
    })
  trade(1)
  continuity.clockStepped({ fromMs: NOON_MS, toMs: NOON_MS - MINUTE_MS })
  trade(9)
  assert.deepEqual(
    rows.map(({ cause, from_id, to_id }) => [cause, from_id, to_id]),
    [['clock', 2, 8]],
  )
})

test('Q5 an instance that starts with an earlier clock enters the outage by the clock of the exchange', () => {
  const memory = new AcknowledgedState()
  // The clock was 8 h ahead until the end.
  memory.event({ symbol: SYMBOL, type: 'trade', epoch: 0, id: 7, timeMs: at('12:00:00') })
  memory.event({ symbol: SYMBOL, type: 'bookTicker', epoch: 0, id: 1, timeMs: at('20:00:00') })
  const { continuity, rows, quote, windows } = scene(0)
  continuity.restore(
    'btcusdt@bookTicker',
    SYMBOL,
    'bookTicker',
    streamMemory(memory.snapshot(SYMBOL), 'bookTicker'),
  )
  quote(2, at('12:00:05'))
  assert.deepEqual(windows(), [['12:00:00', '20:00:05', 'clock']])
  assert.equal(
    rows[0]?.reason,
    'the clock went back between two instances: from 2026-01-01T20:00:00.000Z to 2026-01-01T12:00:05.000Z',
  )
})

test('Q5 and so does one whose own clock is now the wrong one', () => {
  const memory = new AcknowledgedState()
  memory.event({ symbol: SYMBOL, type: 'trade', epoch: 0, id: 7, timeMs: at('12:00:00') })
  memory.event({ symbol: SYMBOL, type: 'bookTicker', epoch: 0, id: 1, timeMs: at('12:00:00') })
  const { continuity, quote, windows } = scene(-50 * MINUTE_MS)
  continuity.restore(
    'btcusdt@bookTicker',
    SYMBOL,
    'bookTicker',
    streamMemory(memory.snapshot(SYMBOL), 'bookTicker'),
  )
  quote(2, at('11:10:05'))
  assert.deepEqual(windows(), [['11:10:00', '12:00:05', 'clock']])
})

test('C2 the last quote is remembered as it came, also after the clock was set back', () => {
  const memory = new AcknowledgedState()
  memory.event({ symbol: SYMBOL, type: 'bookTicker', epoch: 0, id: 1, timeMs: at('12:00:00') })
  memory.event({ symbol: SYMBOL, type: 'bookTicker', epoch: 0, id: 2, timeMs: at('11:10:00') })
  assert.deepEqual(memory.snapshot(SYMBOL).bookTicker, { last_update_id: 2, last_receipt: at('11:10:00') })
})

test('P3 what two connections hold for each other is passed on before the clock counts as set', () => {
  const passed: number[] = []
  const merge = new StreamMerge<StreamEvent>(new VirtualClock(), ({ id }) => passed.push(id))
  const event = { stream: 'btcusdt@trade', symbol: SYMBOL, type: 'trade', timeMs: 0, receiptMs: 0 } as const
  merge.opened(1, [event.stream])
  merge.offer({ ...event, id: 10, connection: 1 }, 0)
  merge.opened(2, [event.stream])
  merge.offer({ ...event, id: 13, connection: 2 }, 0)
  assert.deepEqual([passed, merge.held], [[10], 1])
  merge.flush()
  assert.deepEqual([passed, merge.held], [[10, 13], 0])
  merge.stop()
})
