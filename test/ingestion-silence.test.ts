import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { pino } from 'pino'
import type { FetchTrades, RestOutcome, TradeRequest } from '../src/foundation/binance/trade-rest.ts'
import { WeightBudget } from '../src/foundation/binance/weight-budget.ts'
import { SilenceCheck } from '../src/ingestion/backfill/silence-check.ts'
import { column } from './support/columns.ts'
import { restCaller, restRefused, restTrade } from './support/rest-answers.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const latest = (id: number, last: number): RestOutcome => ({
  kind: 'rows',
  rows: [restTrade(id, { trades: { from: last, to: last } })],
})

/** A silence check over symbols with known streams, with its requests and results. */
function scene(answer: (request: TradeRequest, call: number) => RestOutcome | Promise<RestOutcome>) {
  const clock = new VirtualClock()
  const calls: Array<{ atMs: number; symbol: string; type: string }> = []
  const expected: Array<[stream: string, id: number]> = []
  const delivered = new Map<string, number>()
  const log = pino({ level: 'silent' })
  const fetch: FetchTrades = async (request) => {
    calls.push({ atMs: clock.monotonicMs(), symbol: request.symbol, type: request.type })
    return answer(request, calls.length)
  }
  const budget = new WeightBudget(1200)
  const rest = restCaller(fetch, budget, clock, log)
  const silence = new SilenceCheck(
    {
      rest,
      clock,
      random: () => 0.5,
      backoff: { initialMs: 1000, maxMs: 60_000 },
      hasDeliveredSince: (stream, sinceMs) => (delivered.get(stream) ?? -1) >= sinceMs,
    },
    {
      lastIdOf: (stream) => (stream.startsWith('new') ? null : stream.startsWith('listed') ? -1 : 1),
      expect: (stream, id) => expected.push([stream, id]),
    },
    log,
  )
  silence.start()
  after(() => silence.stop())
  return {
    clock,
    calls,
    expected,
    rest,
    budget,
    silence,
    deliver: (stream: string) => delivered.set(stream, clock.monotonicMs()),
    watch: (symbols: readonly string[], types: readonly string[] = ['trade', 'aggTrade']) => {
      const streams = symbols.flatMap((symbol) => types.map((type) => `${symbol.toLowerCase()}@${type}`))
      silence.watch(symbols, new Set(streams))
    },
  }
}

const MINUTE_MS = 60_000

test('C3 checks streams silent for 15 s, and only those of subscribed types', async () => {
  const { clock, calls, expected, silence, deliver, watch } = scene(() => latest(70, 90))
  watch(['BTCUSDT', 'ETHUSDT', 'NEWUSDT'])
  watch(['BNBUSDT'], ['trade', 'bookTicker'])
  watch(['SOLUSDT'], ['bookTicker'])
  await clock.advance(14_000)
  assert.equal(calls.length, 0)
  deliver('btcusdt@trade')
  for (const type of ['trade', 'aggTrade']) deliver(`ethusdt@${type}`)
  await clock.advance(10 * MINUTE_MS)
  assert.deepEqual(column(calls, 'symbol'), ['BTCUSDT', 'BNBUSDT'])
  assert.deepEqual(expected, [
    ['btcusdt@aggTrade', 70],
    ['bnbusdt@trade', 90],
  ])
  assert.equal(silence.pending, 0)
})

test('C3 checks each symbol once, however often connections are replaced', async () => {
  const symbols = Array.from({ length: 50 }, (_, i) => `S${i}USDT`)
  const { clock, calls, silence, watch } = scene(() => latest(1, 1))
  for (let i = 0; i < 200; i++) {
    watch(symbols)
    await clock.advance(3000)
  }
  assert.equal(calls.length, 0, 'no requests while the connection flaps')
  assert.equal(silence.pending, 50)
  await clock.advance(10 * MINUTE_MS)
  assert.deepEqual(calls.map(({ symbol }) => symbol).sort(), [...symbols].sort())
})

test('C3 retries after a failure until it gets an answer or the stream has delivered', async () => {
  const failing = scene((_, call) => (call < 4 ? { kind: 'failed', reason: 'HTTP 500' } : latest(5, 6)))
  failing.watch(['BTCUSDT'])
  await failing.clock.advance(2 * MINUTE_MS)
  assert.equal(failing.calls.length, 4)
  assert.deepEqual(failing.expected, [
    ['btcusdt@trade', 6],
    ['btcusdt@aggTrade', 5],
  ])
  const heard = scene(() => ({ kind: 'failed', reason: 'HTTP 500' }))
  heard.watch(['BTCUSDT'])
  await heard.clock.advance(16_000)
  const before = heard.calls.length
  for (const type of ['trade', 'aggTrade']) heard.deliver(`btcusdt@${type}`)
  await heard.clock.advance(60 * MINUTE_MS)
  assert.equal(heard.calls.length, before)
  assert.equal(heard.silence.pending, 0)
})

test('C3 and B5 send nothing while banned, and check all symbols after the ban', async () => {
  const symbols = Array.from({ length: 300 }, (_, i) => `S${i}USDT`)
  const { clock, calls, expected, watch } = scene((_, call) =>
    call === 1 ? restRefused(418, 600) : latest(5, 6),
  )
  watch(symbols)
  await clock.advance(10 * MINUTE_MS)
  assert.equal(calls.length, 1)
  await clock.advance(10 * MINUTE_MS)
  assert.equal(calls.length, 301)
  assert.equal(expected.length, 600)
})

test('C3 and B6 pause when a response shows that the IP address has used nearly all its weight', async () => {
  const { clock, calls, watch } = scene((_, call) => ({
    ...latest(5, 6),
    usedWeight: call === 1 ? 5999 : 10,
  }))
  watch(['BTCUSDT', 'ETHUSDT'])
  await clock.advance(70_000)
  assert.equal(calls.length, 1)
  await clock.advance(10_000)
  assert.equal(calls.length, 2)
})

test("C3 ignores an answer that is older than the stream's latest event", async () => {
  const answer = Promise.withResolvers<RestOutcome>()
  const { clock, expected, deliver, watch } = scene(() => answer.promise)
  watch(['BTCUSDT'])
  await clock.advance(16_000)
  deliver('btcusdt@trade')
  answer.resolve(latest(5_000_000, 6_000_000))
  await clock.advance(1)
  assert.deepEqual(expected, [['btcusdt@aggTrade', 5_000_000]])
})

test('C3 leaves backfill its turns while the exchange answers with errors', async () => {
  const symbols = Array.from({ length: 500 }, (_, i) => `S${i}USDT`)
  const { clock, calls, rest, watch } = scene(({ type }) =>
    type === 'trade' ? { kind: 'rows', rows: [] } : { kind: 'failed', reason: 'HTTP 500' },
  )
  watch(symbols)
  await clock.advance(5 * MINUTE_MS)
  assert.ok(calls.length < 15, `${calls.length} requests to a failing exchange`)
  const page = rest.ask(
    { type: 'trade', symbol: 'BTCUSDT', fromId: 1, limit: 10 },
    'patient',
    AbortSignal.timeout(10_000),
  )
  await clock.advance(1000)
  assert.equal((await page).kind, 'rows')
})

test('C3 gives up on a symbol that the exchange rejects, and on no other', async () => {
  const { clock, calls, expected, silence, watch } = scene(({ symbol }) =>
    symbol === 'GONEUSDT' ? restRefused(400, null, '{"code":-1121,"msg":"Invalid symbol."}') : latest(5, 6),
  )
  watch(['GONEUSDT', 'BTCUSDT'])
  await clock.advance(60 * MINUTE_MS)
  assert.equal(calls.filter(({ symbol }) => symbol === 'GONEUSDT').length, 3)
  assert.equal(expected.length, 2)
  assert.equal(silence.pending, 0)
})

test('B5 sends one request at a time, those for silent symbols before pages of gaps', async () => {
  const waiting: Array<() => void> = []
  const { clock, calls, rest, watch } = scene(
    () => new Promise<RestOutcome>((resolve) => waiting.push(() => resolve(latest(5, 6)))),
  )
  const { signal } = new AbortController()
  const page = (fromId: number) =>
    rest.ask({ type: 'trade', symbol: 'ETHUSDT', fromId, limit: 10 }, 'patient', signal)
  const pages = [page(1), page(11)]
  watch(['BTCUSDT'])
  await clock.advance(20_000)
  assert.equal(calls.length, 1)
  for (let i = 0; i < 3; i++) {
    waiting[i]?.()
    await clock.advance(1)
  }
  await Promise.all(pages)
  assert.deepEqual(column(calls, 'type'), ['trade', 'aggTrade', 'trade'])
})

test('B7 checks all waiting symbols once the region is served again', async () => {
  let isServed = false
  const { clock, calls, rest, silence, watch } = scene(() => (isServed ? latest(5, 6) : restRefused(451)))
  watch(['BTCUSDT', 'ETHUSDT'])
  await clock.advance(16_000)
  const { signal } = new AbortController()
  const page = rest.ask({ type: 'trade', symbol: 'BTCUSDT', fromId: 1, limit: 10 }, 'patient', signal)
  await clock.advance(6 * 60 * MINUTE_MS)
  assert.ok(calls.length > 30 && calls.length < 60, `${calls.length} requests`)
  isServed = true
  await clock.advance(11 * MINUTE_MS)
  assert.equal((await page).kind, 'rows')
  assert.equal(silence.pending, 0)
})

test('B10 stops immediately while the exchange does not answer', async () => {
  const { clock, calls, silence, watch } = scene(() => new Promise<RestOutcome>(() => {}))
  watch(['BTCUSDT'])
  await clock.advance(16_000)
  assert.equal(calls.length, 1)
  await silence.stop()
})

test('N4 a listed symbol that has not traded yet costs one request, and its later trades are expected', async () => {
  let answer: RestOutcome = { kind: 'rows', rows: [] }
  const { clock, calls, expected, silence } = scene(() => answer)
  const streams = new Set(['listedusdt@trade', 'listedusdt@aggTrade'])
  silence.watch(['LISTEDUSDT'], streams)
  await clock.advance(600_000)
  assert.equal(calls.length, 1)
  assert.equal(silence.pending, 0)
  answer = latest(5, 6)
  silence.watch(['LISTEDUSDT'], streams)
  await clock.advance(600_000)
  assert.deepEqual(expected, [
    ['listedusdt@trade', 6],
    ['listedusdt@aggTrade', 5],
  ])
})

test('C3 block trades are requested from their last id, and a refusal of them delays no other check', async () => {
  const { clock, calls, expected, watch } = scene(({ type }) =>
    type === 'blockTrade'
      ? restRefused(401, null, '{"code":-2014,"msg":"API-key format invalid."}')
      : latest(70, 90),
  )
  const symbols = Array.from({ length: 20 }, (_, i) => `S${i}USDT`)
  watch(symbols, ['aggTrade', 'blockTrade'])
  await clock.advance(MINUTE_MS)
  assert.equal(expected.length, 20, 'every aggTrade stream was checked')
  assert.equal(
    new Set(calls.filter(({ type }) => type === 'blockTrade').map(({ symbol }) => symbol)).size,
    20,
  )
  assert.equal(calls.filter(({ type }) => type === 'aggTrade').length, 20, 'each once')
})
