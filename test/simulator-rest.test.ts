import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { TradeType } from '../src/foundation/market/event.ts'
import { MarketBooks } from '../src/sandbox/simulator/market/book-history.ts'
import { multiply } from '../src/sandbox/simulator/market/decimals.ts'
import { openMarket } from '../src/sandbox/simulator/market/market.ts'
import { MarketCursor } from '../src/sandbox/simulator/market/market-cursor.ts'
import { MarketHistory } from '../src/sandbox/simulator/market/market-history.ts'
import { BLOCK_MS, blockStartMs } from '../src/sandbox/simulator/market/market-plan.ts'
import { RestApi } from '../src/sandbox/simulator/server/rest-api.ts'
import { DEFAULT_REST_LIMITS } from '../src/sandbox/simulator/server/rest-weights.ts'
import { withMicroseconds } from '../src/sandbox/simulator/server/time-units.ts'

const SYMBOLS = ['BTCUSDT', 'BNBUSDT']
const NOW_MS = blockStartMs(5_000) + 31_234
const HISTORY_MINUTES = 3
const IDENTITY = { seed: 3, messagesPerSecond: 120, symbols: SYMBOLS, skew: 1 }

interface Row {
  readonly [name: string]: unknown
}

function market(nowMs = NOW_MS, historyMinutes = HISTORY_MINUTES) {
  let now = nowMs
  const markets = openMarket(IDENTITY)
  const nowOf = () => now
  const history = new MarketHistory({ markets, historyMinutes, nowMs: nowOf })
  const books = new MarketBooks(markets, nowOf)
  const api = new RestApi(history, {}, null, (symbol, levels) => books.book(symbol, { timeMs: now }, levels))
  const get = (path: string, timeUnit?: string) => {
    const answer = api.answer({ method: 'GET', url: `/api/v3/${path}`, ip: '127.0.0.1', timeUnit }, now)
    const isJson = answer.headers['content-type']?.startsWith('application/json')
    return { ...answer, json: isJson ? JSON.parse(answer.body) : undefined }
  }
  const rows = (path: string): Row[] => {
    const answer = get(path)
    assert.equal(answer.status, 200, answer.body)
    return answer.json
  }
  return { get, rows, advanceTo: (ms: number) => (now = ms) }
}

/** The WebSocket's frames of one type from `fromMs` to `toMs`. */
function sent(symbol: string, type: TradeType, fromMs: number, toMs: number): Row[] {
  const one = openMarket(IDENTITY).get(symbol)
  assert(one)
  const cursor = new MarketCursor(one, fromMs)
  const events: Row[] = []
  const audience = { has: (stream: string) => stream.endsWith(`@${type}`) }
  for (let nowMs = fromMs; ; nowMs = Math.min(toMs, nowMs + BLOCK_MS)) {
    while (cursor.needsBlock(nowMs)) cursor.makeBlock()
    cursor.deliver(nowMs, audience, (_, text) => events.push(JSON.parse(text).data))
    if (nowMs === toMs) return events
  }
}

test('REST has the block trades that the WebSocket sent, from an id on', () => {
  const events = sent('BTCUSDT', 'blockTrade', NOW_MS - 240 * BLOCK_MS, NOW_MS)
  const { get } = market(NOW_MS, 300)
  const { json, headers } = get(`historicalBlockTrades?symbol=BTCUSDT&fromId=${events[0]?.['t']}`)
  assert.equal(headers['x-mbx-used-weight'], '25')
  assert(events.length > 4)
  const expected = events.map(({ t: id, p: price, q: qty, T: time, m: isBuyerMaker }) => {
    return { id, price, qty, quoteQty: multiply(String(price), String(qty)), time, isBuyerMaker }
  })
  assert.deepEqual(json, expected)
  assert.deepEqual(Object.keys(json[0] ?? {}), ['id', 'price', 'qty', 'quoteQty', 'time', 'isBuyerMaker'])
})

test('a backfill over REST finds exactly the trades that the WebSocket sent, and none of the future', () => {
  for (const symbol of SYMBOLS) {
    const events = sent(symbol, 'trade', NOW_MS - 2 * BLOCK_MS, NOW_MS)
    const { rows } = market()
    const found: Row[] = []
    for (let fromId = Number(events[0]?.['t']); ; ) {
      const page = rows(`historicalTrades?symbol=${symbol}&fromId=${fromId}&limit=137`)
      found.push(...page)
      if (page.length < 137) break
      fromId = Number(page.at(-1)?.['id']) + 1
    }
    assert.deepEqual(
      found.map(({ id, price, qty, time, isBuyerMaker }) => [id, price, qty, time, isBuyerMaker]),
      events.map(({ t, p, q, T, m }) => [t, p, q, T, m]),
    )
  }
})

test('aggTrades over REST are those of the WebSocket, by id and by time', () => {
  const events = sent('BTCUSDT', 'aggTrade', NOW_MS - BLOCK_MS, NOW_MS)
  const expected = events.map(({ a, p, q, f, l, T, m, M }) => ({ a, p, q, f, l, T, m, M }))
  const { rows } = market()
  assert.deepEqual(rows(`aggTrades?symbol=BTCUSDT&fromId=${events[0]?.['a']}&limit=1000`), expected)
  const [from, to] = [NOW_MS - 20_000, NOW_MS - 10_000]
  assert.deepEqual(
    rows(`aggTrades?symbol=BTCUSDT&startTime=${from}&endTime=${to}&limit=1000`),
    expected.filter(({ T }) => Number(T) >= from && Number(T) <= to),
  )
  assert.deepEqual(rows('aggTrades?symbol=BTCUSDT&limit=5'), expected.slice(-5))
  assert.deepEqual(rows(`aggTrades?symbol=BTCUSDT&startTime=${NOW_MS + 1}`), [])
})

test('times have the unit of the header, with the same digits as on the WebSocket', () => {
  const expected: Row[] = sent('BTCUSDT', 'aggTrade', NOW_MS - BLOCK_MS, NOW_MS).map((data) =>
    JSON.parse(withMicroseconds(JSON.stringify(data))),
  )
  const { get } = market()
  const rows = get(`aggTrades?symbol=BTCUSDT&fromId=${expected[0]?.['a']}&limit=1000`, 'MICROSECOND').json
  assert.deepEqual(
    rows.map(({ a, T }: Row) => ({ a, T })),
    expected.map(({ a, T }) => ({ a, T })),
  )
  assert.ok(rows.some(({ T }: Row) => Number(T) % 1000 > 0))
  assert.equal(get('time', 'microsecond').json.serverTime, NOW_MS * 1000)
  assert.equal(get('time', 'MILLISECOND').json.serverTime, NOW_MS)
  const from = Number(rows[3].T)
  const [found] = get(`aggTrades?symbol=BTCUSDT&startTime=${from}&limit=1`, 'MICROSECOND').json
  assert.equal(found.T, from)
  for (const wrong of ['Microsecond', 'second', '']) {
    const { status, json } = get('time', wrong)
    assert.deepEqual([status, json.code], [400, -1194])
  }
})

test('a snapshot has the best levels, and costs weight by their number', () => {
  const { get } = market()
  const all = get('depth?symbol=BTCUSDT&limit=5000')
  assert.equal(all.status, 200)
  assert.deepEqual(Object.keys(all.json), ['lastUpdateId', 'bids', 'asks'])
  assert.deepEqual([all.json.bids.length, all.json.asks.length], [5_000, 5_000])
  const prices = (side: 'bids' | 'asks') => all.json[side].map(([price]: [string]) => Number(price))
  assert(Math.max(...prices('bids')) === prices('bids')[0])
  assert(prices('bids')[0] < prices('asks')[0])
  const cases = [
    ['', 100, 5],
    ['&limit=5', 5, 5],
    ['&limit=100', 100, 5],
    ['&limit=101', 101, 25],
    ['&limit=500', 500, 25],
    ['&limit=1000', 1_000, 50],
    ['&limit=1001', 1_001, 250],
    ['&limit=9999', 5_000, 250],
  ] as const
  let used = 250
  for (const [limit, levels, weight] of cases) {
    const { json, headers } = get(`depth?symbol=BTCUSDT${limit}`, 'MICROSECOND')
    used += weight
    assert.equal(headers['x-mbx-used-weight'], String(used), limit)
    assert.deepEqual(json, {
      lastUpdateId: all.json.lastUpdateId,
      bids: all.json.bids.slice(0, levels),
      asks: all.json.asks.slice(0, levels),
    })
  }
  const codeOf = (query: string) => get(`depth?${query}`).json.code
  assert.deepEqual(
    ['', 'symbol=NOPE', 'symbol=BTCUSDT&limit=0', 'symbol=BTCUSDT&limit=x', 'symbol=BTCUSDT&fromId=1'].map(
      codeOf,
    ),
    [-1102, -1121, -1130, -1100, -1104],
  )
})

test('REST returns a trade from its E on, not before it is sent', () => {
  const last = sent('BTCUSDT', 'trade', NOW_MS, NOW_MS + 30_000).at(-1)
  const path = `historicalTrades?symbol=BTCUSDT&fromId=${last?.['t']}`
  const { rows, advanceTo } = market()
  assert.deepEqual(rows(path), [])
  advanceTo(Number(last?.['E']) - 1)
  assert.deepEqual(rows(path), [])
  advanceTo(Number(last?.['E']))
  assert.equal(rows(path)[0]?.['id'], last?.['t'])
})

test('an id older than the history is silently replaced by a later one, as at the exchange', () => {
  const { firstIds, perBlock } = openMarket(IDENTITY).get('BTCUSDT')?.plan ?? {}
  const oldest = Number(firstIds?.trade) + (5_000 - HISTORY_MINUTES) * Number(perBlock?.trade)
  const { rows } = market()
  assert.equal(rows('historicalTrades?symbol=BTCUSDT&fromId=0')[0]?.['id'], oldest)
  assert.equal(rows(`historicalTrades?symbol=BTCUSDT&fromId=${oldest + 1}`)[0]?.['id'], oldest + 1)
  assert.equal(
    rows('aggTrades?symbol=BTCUSDT&startTime=0')[0]?.['T'],
    rows('aggTrades?symbol=BTCUSDT&fromId=0')[0]?.['T'],
  )
})

test('before the listing there are no trades, and nothing fails', () => {
  const { rows } = market(Date.UTC(2020, 0, 1))
  assert.deepEqual(rows('historicalTrades?symbol=BTCUSDT'), [])
  assert.deepEqual(rows('aggTrades?symbol=BTCUSDT&startTime=0'), [])
})

test('returns 500 rows by default, and at most 1,000', () => {
  const { rows } = market()
  assert.equal(rows('historicalTrades?symbol=BTCUSDT').length, 500)
  assert.equal(rows('historicalTrades?symbol=BTCUSDT&limit=5000').length, 1_000)
})

test("answers invalid requests with the exchange's error codes", () => {
  const { get } = market()
  const mistakes: Record<string, number> = {
    historicalTrades: -1102,
    'historicalTrades?symbol=': -1102,
    'historicalTrades?symbol=btcusdt': -1100,
    'historicalTrades?symbol=NOPEUSDT': -1121,
    'historicalTrades?symbol=BTCUSDT&limit=x': -1100,
    'historicalBlockTrades?symbol=BTCUSDT': -1102,
    'historicalTrades?symbol=BTCUSDT&fromId=-1': -1100,
    'historicalTrades?symbol=BTCUSDT&startTime=1': -1104,
    'aggTrades?symbol=BTCUSDT&fromId=1&startTime=1': -1128,
    'exchangeInfo?symbol=NOPEUSDT': -1121,
    'exchangeInfo?symbols=["BTCUSDT","NOPEUSDT"]': -1121,
    'exchangeInfo?symbols=BTCUSDT': -1100,
    'exchangeInfo?symbol=BTCUSDT&symbols=["BTCUSDT"]': -1128,
  }
  for (const [path, code] of Object.entries(mistakes)) {
    const { status, json } = get(path)
    assert.deepEqual([status, json.code, typeof json.msg], [400, code, 'string'], path)
  }
  assert.equal(get('nothing').status, 404)
})

test('exchangeInfo lists the symbols with their tick and step sizes', () => {
  const { get } = market()
  assert.equal(get('exchangeInfo').json.symbols.length, 2)
  const { symbols, serverTime } = get('exchangeInfo?symbols=%5B%22BTCUSDT%22%5D').json
  assert.equal(serverTime, NOW_MS)
  const [{ symbol, status, baseAsset, quoteAsset, isSpotTradingAllowed, filters }] = symbols
  assert.deepEqual([symbol, status, baseAsset, quoteAsset], ['BTCUSDT', 'TRADING', 'BTC', 'USDT'])
  assert.equal(isSpotTradingAllowed, true)
  assert.deepEqual([filters[0].tickSize, filters[1].stepSize], ['0.01000000', '0.00001000'])
})

test('a client that uses more than 6,000 weight in a minute gets 429, and then a ban, both with Retry-After', () => {
  const { get, advanceTo } = market()
  for (let spent = 25; spent <= 6_000; spent += 25) {
    const { status, headers } = get('historicalTrades?symbol=BTCUSDT&limit=1')
    assert.deepEqual([status, headers['x-mbx-used-weight-1m']], [200, String(spent)])
  }
  const refused = get('time')
  assert.deepEqual([refused.status, refused.json.code], [429, -1003])
  assert.equal(Number(refused.headers['retry-after']), Math.ceil((60_000 - (NOW_MS % 60_000)) / 1_000))
  let last = refused
  for (let request = 0; request < DEFAULT_REST_LIMITS.refusalsBeforeBan; request++) last = get('time')
  assert.deepEqual([last.status, last.headers['retry-after'], last.json.code], [418, '120', -1003])
  advanceTo(NOW_MS + 60_000)
  assert.equal(get('time').status, 418, 'the ban outlasts the minute')
  advanceTo(NOW_MS + 120_000)
  assert.equal(get('time').status, 200)
})
