import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { pino } from 'pino'
import type { BookOutcome, RestBook } from '../src/foundation/binance/depth-rest.ts'
import { refusalOf } from '../src/foundation/binance/refusal.ts'
import { WeightBudget } from '../src/foundation/binance/weight-budget.ts'
import { Decoder } from '../src/foundation/kafka/message-decoder.ts'
import { EventFields } from '../src/foundation/market/event-fields.ts'
import { type Anchor, anchorOf, type Chain, needOf } from '../src/ingestion/anchors/anchor-need.ts'
import { Anchors } from '../src/ingestion/anchors/anchors.ts'
import { PriceSample } from '../src/ingestion/anchors/price-sample.ts'
import type { OutgoingMessage } from '../src/ingestion/messages/message.ts'
import { column } from './support/columns.ts'
import { record } from './support/records.ts'
import { restCaller, restRows } from './support/rest-answers.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS

/** A book with this many levels per side around 100, one unit apart. */
function book(lastUpdateId: number, levels: number, middle = 10_000): RestBook {
  const side = (step: number): RestBook['bids'] =>
    Array.from({ length: levels }, (_, i) => [(middle + step * (i + 1)).toFixed(2), '1.5'])
  return { lastUpdateId, bids: side(-1), asks: side(1) }
}

interface Request {
  readonly atMs: number
  readonly symbol: string
  readonly limit: number
}

/** Snapshots of symbols whose updates are described by `chains`. */
function scene(
  symbols: readonly string[],
  {
    weight = 1200,
    hours = 12,
    answer,
  }: {
    weight?: number
    hours?: number
    answer?: (request: Request) => BookOutcome
  } = {},
) {
  const clock = new VirtualClock()
  const lines: string[] = []
  const log = pino({ level: 'info' }, { write: (line: string) => lines.push(JSON.parse(line).msg) })
  const requests: Request[] = []
  const sent: OutgoingMessage[] = []
  const prices = new PriceSample()
  const chains = new Map<string, Chain>()
  const held = new Set<string>()
  const activity = new Map(symbols.map((symbol, i) => [`${symbol.toLowerCase()}@depth@100ms`, -i]))
  const chainOf = (stream: string) => chains.get(stream) ?? { epoch: 0, joinedFrom: 100, lastId: 500 }
  const rest = restCaller(async () => restRows(1, 1), new WeightBudget(weight), clock, log)
  const live = new Set(symbols)
  const anchors = new Anchors(
    {
      ...{ clock, random: () => 0.5, backoff: { initialMs: 1000, maxMs: MINUTE_MS }, rest, prices },
      fetch: async (symbol, limit) => {
        const request = { atMs: clock.monotonicMs(), symbol, limit }
        requests.push(request)
        return answer?.(request) ?? { kind: 'book', book: book(400, limit) }
      },
      weightPerMinute: weight,
      maxAgeMs: hours * HOUR_MS,
    },
    {
      symbols: () => live,
      chainOf,
      activityOf: (stream) => activity.get(stream) ?? 0,
      isTaken: (symbol) => !held.has(symbol),
      placeOf: (symbol) => ({ topic: 'depth', partition: 0, key: Buffer.from(symbol), headers: new Map() }),
      stamp: () => ({ ms: 1_795_920_000_000, us: 1_795_920_000_000_000 }),
      send: (message) => sent.push(message),
      whenRoom: async () => {},
    },
    log,
  )
  anchors.start()
  after(() => anchors.stop())
  const price = (symbol: string, bid: number) => {
    const event = new EventFields()
    event.begin('trade', 'microsecond')
    event.symbol = { text: symbol, bytes: Buffer.from(symbol) }
    event.addDecimal(bid.toFixed(2))
    if (prices.isOpen) prices.note(event, clock.monotonicMs())
  }
  return { clock, anchors, requests, sent, chains, held, live, rest, lines, price }
}

const CHAIN: Chain = { epoch: 0, joinedFrom: 100, lastId: 500 }
const LIMITS = { levels: 5000, maxAgeMs: 12 * HOUR_MS, nowMs: HOUR_MS }
const deep = (fields: Partial<Anchor> = {}): Anchor => ({
  ...anchorOf(book(400, 5000), 5000, CHAIN, 0),
  ...fields,
})

test('A1 a snapshot is needed without one, after a hole, beyond the edge, near it, with few levels, and by age', () => {
  const need = (anchor: Anchor | null, chain = CHAIN, best: number | null = null, nowMs = HOUR_MS) =>
    needOf(anchor, chain, best === null ? null : { bid: best, ask: best }, { ...LIMITS, nowMs })
  assert.equal(need(null), 'missing')
  assert.equal(need(deep()), null)
  assert.equal(need(deep(), { ...CHAIN, joinedFrom: 401 }), null, 'the next update continues it')
  assert.equal(need(deep(), { ...CHAIN, joinedFrom: 402 }), 'missing')
  assert.equal(need(deep(), { ...CHAIN, epoch: 1 }), 'missing')
  // Bids from 9,999 to 5,000, asks from 10,001 to 15,000.
  const prices = [4999, 5000, 6249, 6250, 10_000, 13_750, 13_751, 15_001]
  const expected = ['outside', 'edge', 'edge', null, null, null, 'edge', 'outside']
  assert.deepEqual(
    prices.map((price) => need(deep(), CHAIN, price)),
    expected,
  )
  assert.equal(need(anchorOf(book(400, 500), 500, CHAIN, 0)), 'shallow')
  assert.equal(need(anchorOf(book(400, 499), 500, CHAIN, 0), CHAIN, 1), null, 'a complete side has no edge')
  assert.equal(need(deep(), CHAIN, null, 12 * HOUR_MS), 'age')
  // REST has returned a book of the ids before a reset: the updates never reach it.
  const ahead = deep({ lastUpdateId: 9_000_000, lastId: 450 })
  assert.deepEqual([need(ahead, CHAIN, null, 59_000), need(ahead)], [null, 'missing'])
  assert.equal(need(deep({ lastUpdateId: 600, lastId: 500 })), null, 'no update has come since')
})

test('A3 the first pass takes 500 levels, the busiest first, then 5,000; at most half of the weight', async () => {
  const symbols = Array.from({ length: 60 }, (_, i) => `S${i}USDT`)
  const { clock, requests, anchors, lines } = scene(symbols)
  await clock.advance(10 * MINUTE_MS)
  const first = requests.slice(0, 60)
  assert.deepEqual(column(first, 'symbol'), symbols)
  assert.ok(requests.every(({ limit }, i) => limit === (i < 60 ? 500 : 5000)))
  // 600 a minute: 24 of the first kind, or 2 of the second.
  const weightIn = (fromMs: number) =>
    requests
      .filter(({ atMs }) => atMs >= fromMs && atMs < fromMs + MINUTE_MS)
      .reduce((sum, { limit }) => sum + (limit === 500 ? 25 : 250), 0)
  for (let at = 0; at < 9 * MINUTE_MS; at += 1000)
    assert.ok(weightIn(at) <= 600, `${weightIn(at)} from ${at}`)
  assert.deepEqual(
    [anchors.status().needs['missing'], anchors.status().needs['shallow']],
    [0, 60 - (requests.length - 60)],
  )
  assert.equal(lines.filter((line) => line.startsWith('Requesting a first snapshot')).length, 1)
  assert.equal(lines.filter((line) => line.startsWith('DEPTH_SNAPSHOT_HOURS')).length, 0)
})

test('A3 a weight too small for 5,000 levels uses fewer, and an age that cannot be kept is said once', async () => {
  const small = scene(['BTCUSDT'], { weight: 120 })
  await small.clock.advance(5 * MINUTE_MS)
  assert.deepEqual(column(small.requests, 'limit'), [500, 1000])
  const many = scene(
    Array.from({ length: 300 }, (_, i) => `S${i}USDT`),
    { hours: 1 },
  )
  await many.clock.advance(MINUTE_MS)
  const warnings = many.lines.filter((line) => line.startsWith('DEPTH_SNAPSHOT_HOURS'))
  const expected =
    'DEPTH_SNAPSHOT_HOURS=1 cannot be kept: 300 snapshots of 5000 levels take 2.1 hours with half of REST_WEIGHT_PER_MINUTE=1200'
  assert.deepEqual(warnings, [expected])
})

test('A4 a snapshot older than the first update after a hole is not used, and requested again with backoff', async () => {
  let id = 90
  const { clock, requests, sent, anchors, chains } = scene(['BTCUSDT'], {
    answer: ({ limit }) => ({ kind: 'book', book: book(id, limit) }),
  })
  await clock.advance(30_000)
  assert.equal(sent.length, 0)
  assert.ok(requests.length > 3 && requests.length < 10, `${requests.length} requests`)
  assert.equal(anchors.stale, requests.length)
  assert.deepEqual(anchors.status().withoutAnchor, [
    { symbol: 'BTCUSDT', problem: 'REST has update 90, the first one recorded is 100' },
  ])
  id = 99
  await clock.advance(MINUTE_MS)
  assert.equal(sent.length, 2, '500 levels, then 5,000')
  assert.equal(anchors.status().withoutAnchor.length, 0)
  // A hole.
  chains.set('btcusdt@depth@100ms', { epoch: 0, joinedFrom: 700, lastId: 800 })
  id = 750
  await clock.advance(5000)
  assert.deepEqual(column(requests.slice(-2), 'limit'), [500, 5000])
})

test('A4 an answer older than the snapshot that it would replace is not used: readers begin with the newest', async () => {
  const { clock, requests, sent, anchors } = scene(['BTCUSDT'], {
    answer: ({ limit }) => ({
      kind: 'book',
      book: book(limit === 500 || requests.length > 3 ? 400 : 399, limit),
    }),
  })
  await clock.advance(MINUTE_MS / 2)
  assert.deepEqual(column(requests, 'limit'), [500, 5000])
  await clock.advance(4 * MINUTE_MS)
  assert.deepEqual(column(requests, 'limit'), [500, 5000, 5000, 5000])
  assert.deepEqual([sent.length, anchors.stale], [2, 2])
})

test('A5 a snapshot is a message that readers decode, in the topic and with the key of the updates', async () => {
  const { clock, sent } = scene(['BTCUSDT'])
  await clock.advance(3000)
  const [message] = sent
  assert.ok(message !== undefined && message.mark === null)
  assert.deepEqual([message.topic, String(message.key), message.snapshotOf], ['depth', 'BTCUSDT', 'BTCUSDT'])
  const decoder = new Decoder()
  assert.equal(decoder.decode('depth', record(message.value)), null)
  const { type, id, limit, bidCount, askCount, receivedUs } = decoder.event
  assert.deepEqual([type, id, limit, bidCount, askCount], ['depthSnapshot', 400, 500, 500, 500])
  assert.equal(receivedUs, 1_795_920_000_000_000)
})

test('A6 requests for trades go first, and a refusal of REST stops snapshots, too', async () => {
  const symbols = Array.from({ length: 200 }, (_, i) => `S${i}USDT`)
  const { clock, requests, rest } = scene(symbols)
  const { signal } = new AbortController()
  const request = { type: 'trade', symbol: 'BTCUSDT', fromId: 1, limit: 1000 } as const
  let trades = 0
  for (let i = 0; i < 200; i++) void rest.ask(request, 'patient', signal).then(() => trades++)
  await clock.advance(3 * MINUTE_MS)
  assert.ok(trades >= 190, `${trades} requests for trades`)
  assert.ok(requests.length <= 2, `${requests.length} snapshots`)
  await clock.advance(3 * MINUTE_MS)
  assert.ok(requests.length > 40)
  const banned = scene(['BTCUSDT'], {
    answer: () => ({ kind: 'refused', refusal: refusalOf(418, '3600', '', 0) }),
  })
  await banned.clock.advance(59 * MINUTE_MS)
  assert.equal(banned.requests.length, 1)
})

test('A6 an unknown symbol is requested again after ten minutes, and a symbol that has left not at all', async () => {
  const refusal = refusalOf(400, null, '{"code":-1121,"msg":"Invalid symbol."}', 0)
  const { clock, requests, live, lines } = scene(['GONEUSDT', 'BTCUSDT'], {
    answer: ({ symbol, limit }) =>
      symbol === 'BTCUSDT' ? { kind: 'book', book: book(400, limit) } : { kind: 'refused', refusal },
  })
  await clock.advance(15 * MINUTE_MS)
  assert.deepEqual(column(requests, 'symbol'), ['GONEUSDT', 'BTCUSDT', 'BTCUSDT', 'GONEUSDT'])
  assert.equal(lines.filter((line) => line.includes('Invalid symbol')).length, 1, 'logged once')
  live.delete('GONEUSDT')
  await clock.advance(HOUR_MS)
  assert.equal(requests.length, 4)
})

test('A7 a snapshot too large for the topic names the fix, and fewer levels follow', async () => {
  const { clock, requests, sent, anchors, held, lines } = scene(['BTCUSDT'])
  held.add('BTCUSDT')
  await clock.advance(10_000)
  assert.equal(requests.length, 0, 'Kafka does not take its partition')
  held.clear()
  await clock.advance(5000)
  const full = sent.at(-1) ?? assert.fail()
  assert.equal(JSON.parse(String(full.value)).limit, 5000)
  anchors.onDiscarded(full, 'too large')
  await clock.advance(MINUTE_MS)
  assert.deepEqual(column(requests, 'limit'), [500, 5000, 500, 1000])
  const [line] = lines.filter((one) => one.includes('larger than'))
  assert.match(
    line ?? '',
    /^A snapshot \(5000 levels per side, \d+ kB\) is larger than depth accepts; continuing with 1000 levels$/,
  )
})

test('A2 prices are sampled for two of ten seconds, and the one near the edge gets the next snapshot', async () => {
  const { clock, requests, price } = scene(['AUSDT', 'BUSDT'])
  for (let at = 0; at < 5 * MINUTE_MS; at += 500) {
    price('AUSDT', 10_000)
    price('BUSDT', at < 2 * MINUTE_MS ? 10_000 : 6000)
    await clock.advance(500)
  }
  const [near, ...more] = requests.slice(4)
  assert.deepEqual([near?.symbol, near?.limit], ['BUSDT', 5000])
  assert.ok((near?.atMs ?? 0) >= 2 * MINUTE_MS && (near?.atMs ?? 0) < 2 * MINUTE_MS + 12_000)
  assert.ok(
    more.every(({ symbol }) => symbol === 'BUSDT'),
    'its scripted snapshot never contains the price',
  )
})
