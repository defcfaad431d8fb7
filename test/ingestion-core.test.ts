import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import { SECOND_UNDER_ID } from '../src/foundation/market/event.ts'
import { RecoveryFold } from '../src/ingestion/checkpoint/recovery-fold.ts'
import { Continuity } from '../src/ingestion/continuity/continuity.ts'
import { Sequence } from '../src/ingestion/continuity/sequence.ts'
import type { Observed } from '../src/ingestion/continuity/verdict.ts'
import type { StampedEvent } from '../src/ingestion/forwarder.ts'
import { EventMessage, type OutgoingMessage, Router } from '../src/ingestion/messages/message.ts'
import { MessageQueue } from '../src/ingestion/messages/message-queue.ts'
import { column } from './support/columns.ts'
import { coreAlone, outgoing } from './support/core-alone.ts'
import { ledgerAlone } from './support/ledger-alone.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const TOPICS = { trades: 't', bookTicker: 'b', depth: 'o', gaps: 'g', checkpoints: 'c', deadLetters: 'd' }
const METADATA = new Map([
  ['t', { id: '1', partitions: 3 }],
  ['b', { id: '2', partitions: 5 }],
])

test('returns messages unchanged and in order over many blocks, and reports full from its limit until half of it is free', () => {
  const limit = 100_000
  const routes = ['BTCUSDT', 'ETHUSDT'].map((symbol) =>
    new Router(TOPICS, METADATA, 'millisecond').route(`${symbol.toLowerCase()}@trade`, symbol, 'trade', 0),
  )
  const sizeOf = (message: OutgoingMessage) =>
    message instanceof EventMessage ? 72 + message.end - message.start : 260 + message.value.length
  const step = fc.record({ push: fc.integer({ min: 0, max: 1500 }), take: fc.integer({ min: 0, max: 2000 }) })
  const steps = fc.array(step, { minLength: 1, maxLength: 12 })
  const scenario = fc.property(steps, fc.integer({ min: 3, max: 60 }), (all, every) => {
    const queue = new MessageQueue(limit)
    const expected: OutgoingMessage[] = []
    const bytes = Buffer.from('0123456789')
    let next = 0
    let full = false
    const check = () => {
      const held = expected.reduce((sum, message) => sum + sizeOf(message), 0)
      full = full ? held > limit / 2 : held >= limit
      const events = expected.filter(({ mark }) => mark !== null).length
      const { length, isFull, oldestQueuedAtMs } = queue
      assert.deepEqual([length, queue.events, queue.bytes, isFull], [expected.length, events, held, full])
      assert.equal(oldestQueuedAtMs, expected[0]?.queuedAtMs ?? null)
    }
    for (const { push, take } of all) {
      for (const end = next + push; next < end; next++) {
        const [route] = next % 2 === 0 ? routes : routes.toReversed()
        assert.ok(route)
        const start = next % 4
        const slice = { bytes, start, end: start + 5 }
        const aheadMs = next % 3 === 0 ? undefined : next - 50
        const message =
          next % every === 0
            ? outgoing({ value: Buffer.from(String(next)), mark: null, queuedAtMs: next })
            : new EventMessage(
                route,
                slice,
                2 ** 39 + next,
                2 ** 40 + next,
                next + 1,
                next + 2,
                next,
                aheadMs,
              )
        expected.push(message)
        queue.push(message)
      }
      check()
      const taken = queue.take(take, 200_000)
      assert.ok(taken.length > 0 || take === 0 || expected.length === 0)
      assert.deepEqual(taken, expected.splice(0, taken.length))
      check()
    }
    while (queue.length > 0) assert.deepEqual(queue.take(700, 1), expected.splice(0, 1))
    check()
  })
  fc.assert(scenario, { numRuns: 60 })
})

function handler() {
  const sent: OutgoingMessage[] = []
  const controls: string[] = []
  const fatal: unknown[] = []
  const router = new Router(TOPICS, METADATA, 'millisecond')
  let us = 1_723_161_256_000_000
  const clock: { aheadMs: number | null } = { aheadMs: null }
  const continuity = new Continuity<StampedEvent>(ledgerAlone().ledger)
  const core = coreAlone({
    stamp: () => ({ ms: Math.floor(++us / 1000), us }),
    clock: new VirtualClock(),
    continuity,
    router,
    clockOffset: clock,
    deadLettersTopic: 'd',
    send: (message) => sent.push(message),
    onFatal: (error) => fatal.push(error),
  })
  const handle = (text: string | Buffer) => {
    const outcome = core.onFrame(typeof text === 'string' ? Buffer.from(text) : text, 0)
    if (typeof outcome === 'object') controls.push(outcome.control)
    return outcome
  }
  return { core, sent, controls, fatal, handle, continuity, clock }
}

const trade = (s: string, t: number) =>
  `{"stream":"${s.toLowerCase()}@trade","data":{"e":"trade","E":1723161255343,"s":"${s}","t":${t},"p":"1.5","q":"2","T":1723161255342,"m":true,"M":true}}`
const quote = (s: string, u: number) =>
  `{"stream":"${s.toLowerCase()}@bookTicker","data":{"u":${u},"s":"${s}","b":"1","B":"2","a":"3","A":"4"}}`

test('L1 the window of a reset and a gap from the first of the new ids are two rows', () => {
  const { ledger, rows } = ledgerAlone()
  const sequence = { symbol: 'BTCUSDT', event_type: 'trade', epoch: 1 } as const
  ledger.reset(sequence, 1_795_920_000_000, 1_795_920_005_000)
  const gap = ledger.open(sequence, { from: 1, to: 9 }, 'refused', { fromMs: 0, toMs: 0 })
  assert.deepEqual(column(rows, 'gap_id'), ['BTCUSDT/trade/1/reset', 'BTCUSDT/trade/1/1'])
  assert.equal(gap.revision, 1)
})

test('S8 a reset without a free epoch ends ingestion with an error that names the symbol', () => {
  const { sent, fatal, handle, continuity } = handler()
  continuity.restore('BTCUSDT', 'trade', { epoch: 1023, last: 1000, last_time: 1, holes: [] })
  for (const id of [1, 2, 3]) handle(trade('BTCUSDT', id))
  assert.deepEqual([sent.length, fatal.length], [0, 1])
  assert.match(String(fatal[0]), /restarted the trade ids of BTCUSDT more than 1023 times/)
})

test('counts every frame in exactly one counter, and sends forwarded and rejected ones', () => {
  const { core, sent, controls, handle } = handler()
  fc.assert(
    fc.property(
      fc.constantFrom(
        trade('BTCUSDT', 1),
        quote('ETHUSDT', 2),
        '{"result":null,"id":1}',
        'garbage',
        '{"stream":"x@depth","data":{}}',
        trade('BTCUSDT', -1),
      ),
      (text) => {
        handle(text)
        const { received, forwarded, duplicate, held, control, ignored, rejected } = core.counters
        assert.equal(received, forwarded + duplicate + held + control + ignored + rejected)
        assert.equal(sent.length, forwarded + rejected)
        assert.equal(sent.filter(({ mark }) => mark !== null).length, forwarded)
        assert.equal(controls.length, control)
      },
    ),
  )
})

test('S10 sends the second of two aggregates under one id to the dead letters, as a frame, once', () => {
  const { core, sent } = handler()
  const T0 = 1795920000000
  const aggregate = (a: number, trade: number, afterMs: number) =>
    Buffer.from(
      `{"stream":"zilbtc@aggTrade","data":{"e":"aggTrade","E":${T0 + afterMs},"s":"ZILBTC","a":${a},"p":"0.00000238","q":"${trade}.5","f":${trade},"l":${trade},"T":${T0 + afterMs},"m":false,"M":true}}`,
    )
  const second = aggregate(11, 101, 5000)
  const frames = [aggregate(10, 99, 0), aggregate(11, 100, 1000), second, aggregate(12, 102, 9000)]
  const sameTime = aggregate(12, 103, 9000)
  // Both connections deliver it, and a third begins later.
  for (const frame of frames) for (const connection of [1, 2]) core.onFrame(Buffer.from(frame), connection)
  for (const frame of [...frames.slice(2), sameTime]) core.onFrame(Buffer.from(frame), 3)
  core.onFrame(Buffer.from(sameTime), 1)
  const ids = sent.flatMap(({ mark }) => (mark === null ? [] : [mark.id]))
  assert.deepEqual(ids, [10, 11, 12])
  const letters = sent.filter(({ topic }) => topic === 'd')
  assert.equal(column(letters, 'value').join(), `${second},${sameTime}`)
  assert.deepEqual(core.reasons('rejected'), { [SECOND_UNDER_ID]: 2 })
  const { received, forwarded, duplicate, held, rejected } = core.counters
  assert.deepEqual([received, forwarded, duplicate, held, rejected], [12, 3, 7, 0, 2])
})

test('S10 makes no dead letter of an event that an earlier instance may have forwarded', () => {
  const sequence = new Sequence<Observed>({ epoch: 0, last: 100, last_time: 5000, holes: [] })
  const kinds = [99, 101, 101, 50, 102].map(
    (id, i) => sequence.observe({ firstId: id, id, timeMs: 6000 + i, connection: 1 }).kind,
  )
  assert.deepEqual(kinds, ['duplicate', 'next', 'second', 'held', 'next'])
  assert.deepEqual(sequence.takeSecond(), [])
})

test('routes by stream type and by Java murmur2 of the symbol', () => {
  const { sent, handle } = handler()
  assert.equal(handle(trade('BTCUSDT', 1)), 'event')
  handle(trade('BNBUSDT', 1))
  handle(quote('BTCUSDT', 1))
  const places = sent.map(({ topic, partition, key, headers }) =>
    [topic, partition, key, ...[...headers].map((header) => header.join('='))].join(' '),
  )
  assert.deepEqual(places, [
    't 2 BTCUSDT schema=trade/1',
    't 0 BNBUSDT schema=trade/1',
    'b 3 BTCUSDT schema=bookTicker/1 clock_ahead=',
  ])
})

test('sends a rejected frame to the dead letters unchanged, including invalid UTF-8', () => {
  const { sent, controls, handle, core } = handler()
  const bytes = Buffer.from([0x7b, 0xff, 0x00, 0x7d])
  assert.equal(handle(bytes), 'other')
  assert.deepEqual([sent[0]?.topic, sent[0]?.value, sent[0]?.key], ['d', bytes, null])
  assert.deepEqual(core.reasons('rejected'), { 'not UTF-8': 1 })
  // It is copied into a separate buffer: data read with it is not kept in memory.
  bytes.fill(0)
  assert.equal(sent[0]?.value.toString('latin1'), '{\xff\0}')
  handle('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}')
  assert.deepEqual(controls, ['serverShutdown'])
})

test('sends a long held event unchanged, without keeping its receive buffer', () => {
  const { core, sent, handle } = handler()
  handle(trade('BTCUSDT', 1000))
  // Restarted ids are accepted at the third.
  for (const [i, id] of [1, 2, 3].entries()) {
    const bytes = Buffer.from(trade('BTCUSDT', id).replace('"T":1723161255342', `"T":172316125${6000 + i}`))
    handle(bytes)
    bytes.fill(0)
    if (i === 1) assert.equal(core.counters.held, 2)
  }
  const events = sent.filter(({ mark }) => mark !== null)
  const ids = events.map(({ value }) => JSON.parse(value.toString()).t)
  assert.deepEqual(ids, [1000, 1, 2, 3])
})

test('P5 the first quote of a symbol carries the clock offset, for a start without a checkpoint of it', () => {
  const { handle, sent, clock } = handler()
  clock.aheadMs = 55.4
  for (const u of [1, 2]) handle(quote('BTCUSDT', u))
  const fold = new RecoveryFold(['BTCUSDT'], new Map(), assert.fail)
  for (const [offset, { topic, key, value, headers }] of sent.entries())
    fold.event('bookTicker', topic, new FetchedMessage(offset, key, [...headers], value))
  assert.equal(fold.memory.snapshot('BTCUSDT').bookTicker?.clock_ahead, 55)
})

test('gives the first quote after an outage its ledger row and the clock offset', () => {
  const { handle, sent, continuity, clock } = handler()
  handle(quote('BTCUSDT', 1))
  continuity.interrupted(['btcusdt@bookTicker'], 'reconnect')
  handle(quote('BTCUSDT', 2))
  handle(quote('BTCUSDT', 3))
  continuity.interrupted(['btcusdt@bookTicker'], 'reconnect')
  clock.aheadMs = -400.6
  handle(quote('BTCUSDT', 4))
  const texts = (wanted: string) =>
    sent.map(({ headers }) => [...headers].find(([name]) => String(name) === wanted)?.[1].toString())
  const causes = texts('outage').map((row) => row && JSON.parse(row).cause)
  assert.deepEqual(causes, [undefined, 'reconnect', undefined, 'reconnect'])
  assert.deepEqual(texts('clock_ahead'), ['', '', undefined, '-401'])
  // As a start reads them: an offset of before the outage does not count for an unknown one.
  const marks = sent.map(({ mark }) => mark?.clockAheadMs)
  assert.deepEqual(marks, [null, null, undefined, -401])
})

test('shows a stream with its last id', () => {
  const { core, handle } = handler()
  handle(trade('BTCUSDT', 7))
  handle(trade('BTCUSDT', 8))
  const shown = { events: 2, lastSeenAgeMs: 250, lastId: 8, quiet: false }
  assert.deepEqual(core.rates.status(['btcusdt@trade'], 250), { 'btcusdt@trade': shown })
})
