import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { toUnits } from '../src/sandbox/simulator/market/decimals.ts'
import { openMarket, type SymbolMarket } from '../src/sandbox/simulator/market/market.ts'
import { MarketCursor } from '../src/sandbox/simulator/market/market-cursor.ts'
import { BLOCK_MS, blockStartMs, type SymbolPlan } from '../src/sandbox/simulator/market/market-plan.ts'

interface Trade {
  e: 'trade'
  E: number
  s: string
  t: number
  p: string
  q: string
  T: number
  m: boolean
}
type AggTrade = Omit<Trade, 'e' | 't'> & { e: 'aggTrade'; a: number; f: number; l: number }
interface BookTicker {
  e?: undefined
  u: number
  b: string
  a: string
}

const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT', 'PEPEUSDT', 'XYZBTC']

const anyMarket = fc
  .record({
    seed: fc.nat(),
    messagesPerSecond: fc.integer({ min: 1, max: 200 }),
    symbol: fc.constantFrom(...SYMBOLS),
    skew: fc.constantFrom(0, 1),
  })
  .map(({ symbol, ...identity }) => marketOf(symbol, { ...identity, symbols: SYMBOLS }))
const isNotDepth = (stream: string) => !stream.includes('@depth')
const isDense = (stream: string) => isNotDepth(stream) && !stream.endsWith('@blockTrade')
const anyBlock = fc.integer({ min: 0, max: 3_000_000 })

function marketOf(symbol: string, identity: Parameters<typeof openMarket>[0]): SymbolMarket {
  const market = openMarket(identity).get(symbol)
  assert(market)
  return market
}

function eventsPerBlock({ perBlock }: SymbolPlan): number {
  return perBlock.trade + perBlock.aggTrade + perBlock.bookTicker
}

/** The frames from one time to another, as sent by an exchange that started at `fromMs`. */
function frames(
  market: SymbolMarket,
  fromMs: number,
  toMs: number,
  stepMs: number,
  has = isNotDepth,
): string[] {
  const cursor = new MarketCursor(market, fromMs)
  const sent: string[] = []
  for (let nowMs = fromMs; ; nowMs = Math.min(toMs, nowMs + stepMs)) {
    // A step may be longer than a block; the next tick would continue where this one ended.
    do {
      while (cursor.needsBlock(nowMs)) cursor.makeBlock()
      cursor.deliver(nowMs, { has }, (_, text) => sent.push(text))
    } while (cursor.dueMs <= nowMs)
    if (nowMs === toMs) return sent
  }
}

test('every aggTrade is the exact sum of the consecutive trades just before it, across any borders', () => {
  fc.assert(
    fc.property(anyMarket, anyBlock, (market, block) => {
      const fromMs = blockStartMs(block)
      let open: Trade[] = []
      let last: { trade?: Trade; aggTrade?: AggTrade; quote?: BookTicker } = {}
      let events = 0
      for (const text of frames(market, fromMs, fromMs + 3 * BLOCK_MS - 1, 700, isDense)) {
        const { data }: { data: Trade | AggTrade | BookTicker } = JSON.parse(text)
        events++
        if (data.e === 'trade') {
          assert.equal(data.t, (last.trade?.t ?? data.t - 1) + 1)
          assert(data.E >= data.T && data.E >= (last.trade?.E ?? 0) && data.T >= fromMs)
          open.push(data)
          last = { ...last, trade: data }
        } else if (data.e === 'aggTrade') {
          assert.equal(data.a, (last.aggTrade?.a ?? data.a - 1) + 1)
          assert.deepEqual([data.f, data.l], [open[0]?.t, open.at(-1)?.t])
          for (const { p, T, m } of open) assert.deepEqual([p, T, m], [data.p, data.T, data.m])
          assert.equal(
            toUnits(data.q),
            open.reduce((sum, { q }) => sum + toUnits(q), 0n),
          )
          open = []
          last = { ...last, aggTrade: data }
        } else {
          assert(data.u > (last.quote?.u ?? 0))
          assert(toUnits(data.b) > 0n && toUnits(data.b) < toUnits(data.a))
          last = { ...last, quote: data }
        }
      }
      assert.deepEqual(open, [])
      assert.equal(events, 3 * eventsPerBlock(market.plan))
    }),
    { numRuns: 60 },
  )
})

test('block trades have consecutive ids and rising times, and change no other event', () => {
  const market = marketOf('BTCUSDT', { seed: 1, messagesPerSecond: 300, symbols: SYMBOLS, skew: 1 })
  const [fromMs, toMs] = [blockStartMs(0), blockStartMs(240) - 1]
  const all = frames(market, fromMs, toMs, BLOCK_MS)
  const blockTrades = all.filter((text) => text.includes('@blockTrade'))
  const sent: Array<{ E: number; t: number; T: number }> = blockTrades.map((text) => JSON.parse(text).data)
  assert.deepEqual(
    sent.map(({ t }) => t),
    sent.map((_, index) => market.plan.firstIds.blockTrade + index),
  )
  assert(sent.length >= 8 && sent.length < 60, `${sent.length} in four hours`)
  assert(sent.every(({ E, T }, index) => E >= T && T > (sent[index - 1]?.T ?? fromMs)))
  assert.deepEqual(
    all.filter((text) => !text.includes('@blockTrade')),
    frames(market, fromMs, toMs, BLOCK_MS, isDense),
  )
})

test('a restarted exchange sends the same frames that the stopped one would have sent', () => {
  const anyRestart = fc.record({ pick: fc.nat(), stepMs: fc.integer({ min: 1, max: 90_000 }) })
  fc.assert(
    fc.property(anyMarket, anyBlock, anyRestart, (market, block, { pick, stepMs }) => {
      const fromMs = blockStartMs(block) + 17_000
      const toMs = fromMs + 2 * BLOCK_MS
      const all = frames(market, fromMs, toMs, 9_999)
      // The hardest moments for a restart are those at which frames are sent.
      const moments = all.flatMap((text) => JSON.parse(text).data.E ?? [])
      const restartMs = moments[pick % moments.length] ?? fromMs + 1
      const stopped = restartMs > fromMs ? frames(market, fromMs, restartMs - 1, stepMs + 50) : []
      assert.deepEqual([...stopped, ...frames(market, restartMs, toMs, stepMs)], all)
    }),
    { numRuns: 40 },
  )
})

const LEVELS = String.raw`(\["\d+\.\d\d000000","\d+\.\d{5}000"\],?)*`
const DIFF = new RegExp(
  String.raw`^{"e":"depthUpdate","E":\d{13},"s":"BTCUSDT","U":\d+,"u":\d+,"b":\[${LEVELS}\],"a":\[${LEVELS}\]}$`,
)

test("frames have the exchange's keys in its order, and decimals with 8 places", () => {
  const market = marketOf('BTCUSDT', { seed: 1, messagesPerSecond: 50, symbols: SYMBOLS, skew: 1 })
  const shapes = {
    'btcusdt@trade':
      /^{"e":"trade","E":\d{13},"s":"BTCUSDT","t":\d+,"p":"\d+\.\d\d000000","q":"\d+\.\d{5}000","T":\d{13},"m":(true|false),"M":true}$/,
    'btcusdt@aggTrade':
      /^{"e":"aggTrade","E":\d{13},"s":"BTCUSDT","a":\d+,"p":"\d+\.\d\d000000","q":"\d+\.\d{5}000","f":\d+,"l":\d+,"T":\d{13},"m":(true|false),"M":true}$/,
    'btcusdt@blockTrade':
      /^{"e":"blockTrade","E":\d{13},"s":"BTCUSDT","t":\d+,"p":"\d+\.\d\d000000","q":"\d+\.\d{5}000","T":\d{13},"m":(true|false)}$/,
    'btcusdt@depth@100ms': DIFF,
    'btcusdt@depth': DIFF,
    'btcusdt@bookTicker':
      /^{"u":\d+,"s":"BTCUSDT","b":"\d+\.\d\d000000","B":"\d+\.\d{5}000","a":"\d+\.\d\d000000","A":"\d+\.\d{5}000"}$/,
  }
  const seen = new Set<string>()
  const sent = [
    ...frames(market, blockStartMs(0), blockStartMs(60) - 1, 60_000),
    ...frames(market, blockStartMs(60), blockStartMs(61) - 1, 1_000, (stream) => stream.includes('@depth')),
  ]
  for (const text of sent) {
    const envelope = /^{"stream":"([^"]+)","data":(.*)}$/.exec(text)
    const shape = Object.entries(shapes).find(([stream]) => stream === envelope?.[1])
    assert.match(envelope?.[2] ?? text, shape?.[1] ?? /^$/)
    seen.add(envelope?.[1] ?? '')
  }
  assert.deepEqual([...seen].sort(), Object.keys(shapes).sort())
})

test('the market is as uneven as a real one: bursts within a millisecond, quiet periods, skewed symbols', () => {
  const markets = openMarket({ seed: 1, messagesPerSecond: 300, symbols: SYMBOLS.slice(0, 3), skew: 1 })
  const perBlock = [...markets.values()].map(({ plan }) => eventsPerBlock(plan))
  const total = perBlock.reduce((sum, count) => sum + count, 0)
  assert(Math.abs(total - 300 * 60) < 10, `${total} messages per minute`)
  assert((perBlock[0] ?? 0) > 1.8 * (perBlock[1] ?? 0) && (perBlock[1] ?? 0) > 1.3 * (perBlock[2] ?? 0))

  const market = markets.get('BTCUSDT')
  let busiestMs = 0
  let longestPauseMs = 0
  for (let block = 100; block < 160; block++) {
    const aggTrades = market?.block(block).aggTrades
    assert(aggTrades)
    let inSameMs = 0
    for (const [index, tradeMs] of aggTrades.tradeMs.entries()) {
      const previousMs = aggTrades.tradeMs[index - 1] ?? 0
      const trades = (aggTrades.firstTrade[index + 1] ?? 0) - (aggTrades.firstTrade[index] ?? 0)
      inSameMs = tradeMs === previousMs ? inSameMs + trades : trades
      busiestMs = Math.max(busiestMs, inSameMs)
      longestPauseMs = Math.max(longestPauseMs, tradeMs - previousMs)
    }
  }
  assert(busiestMs >= 50, `at most ${busiestMs} trades in a millisecond of an hour`)
  assert(longestPauseMs >= 1_000, `at most ${longestPauseMs} ms without a trade`)
})

test('the price does not jump at the border of two minutes', () => {
  fc.assert(
    fc.property(anyMarket, anyBlock, (market, block) => {
      const before = market.block(block).quotes.bidTicks.at(-1) ?? 0
      const after = market.block(block + 1).quotes.bidTicks[0] ?? 0
      assert(Math.abs(after - before) <= Math.max(3, before * 0.002), `${before} → ${after}`)
    }),
    { numRuns: 100 },
  )
})

test('the same id identifies a trade and a different aggTrade, as at the exchange', () => {
  const markets = openMarket({ seed: 1, messagesPerSecond: 300, symbols: SYMBOLS, skew: 1 })
  for (const { ids, plan } of markets.values()) {
    const idsOf = (type: 'trade' | 'aggTrade') =>
      [0, 1_000_000].map((block) => ids[type].idAt(block * plan.perBlock[type]))
    const [trades, aggTrades] = [idsOf('trade'), idsOf('aggTrade')]
    assert(
      Math.max(...[trades[0], aggTrades[0]].map(Number)) < Math.min(...[trades[1], aggTrades[1]].map(Number)),
    )
  }
})
