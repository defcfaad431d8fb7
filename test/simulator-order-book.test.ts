import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { openMarket, type SymbolMarket } from '../src/sandbox/simulator/market/market.ts'
import { MarketCursor } from '../src/sandbox/simulator/market/market-cursor.ts'
import { BLOCK_MS, blockStartMs } from '../src/sandbox/simulator/market/market-plan.ts'
import { SimulatedBook } from '../src/sandbox/simulator/market/simulated-book.ts'

const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'XRPUSDT', 'PEPEUSDT', 'XYZBTC']
const EVERY_LEVEL = Number.POSITIVE_INFINITY

interface Diff {
  readonly e: 'depthUpdate'
  readonly E: number
  readonly U: number
  readonly u: number
  readonly b: ReadonlyArray<readonly [string, string]>
  readonly a: ReadonlyArray<readonly [string, string]>
}
interface Quote {
  readonly e?: undefined
  readonly u: number
  readonly b: string
  readonly B: string
  readonly a: string
  readonly A: string
}

const anyMarket = fc
  .record({
    seed: fc.nat(),
    messagesPerSecond: fc.integer({ min: 1, max: 400 }),
    symbol: fc.constantFrom(...SYMBOLS),
  })
  .map(({ symbol, ...identity }) => marketOf(symbol, { ...identity, symbols: SYMBOLS, skew: 1 }))
const anyBlock = fc.integer({ min: 0, max: 3_000_000 })

function marketOf(symbol: string, identity: Parameters<typeof openMarket>[0]): SymbolMarket {
  const market = openMarket(identity).get(symbol)
  assert(market)
  return market
}

/** Quotes and diffs in the order of sending. */
function sent(
  market: SymbolMarket,
  fromMs: number,
  toMs: number,
  { stepMs = 1_000, groups = 1, group = 0, stream = '@depth@100ms' } = {},
): Array<Quote | Diff> {
  const cursor = new MarketCursor(market, fromMs, groups)
  const events: Array<Quote | Diff> = []
  const has = (name: string) => name.endsWith(stream) || name.endsWith('@bookTicker')
  for (let nowMs = fromMs; ; nowMs = Math.min(toMs, nowMs + stepMs)) {
    do {
      while (cursor.needsBlock(nowMs)) cursor.makeBlock()
      cursor.deliver(nowMs, { has }, (_, text, of) => {
        if (of === undefined || of === group) events.push(JSON.parse(text).data)
      })
    } while (cursor.dueMs <= nowMs)
    if (nowMs === toMs) return events
  }
}

/** A client's book: the levels of a snapshot with the diffs after it. */
class Copy {
  readonly bids: Map<string, string>
  readonly asks: Map<string, string>

  constructor(market: SymbolMarket, position: number) {
    const { bids, asks } = trueBook(market, position)
    this.bids = new Map(bids)
    this.asks = new Map(asks)
  }

  apply({ b, a }: Diff): void {
    for (const [side, levels] of [
      [this.bids, b],
      [this.asks, a],
    ] as const) {
      for (const [price, quantity] of levels) {
        if (Number(quantity) === 0) side.delete(price)
        else side.set(price, quantity)
      }
    }
  }

  sorted() {
    const byPrice = ([a]: [string, string], [b]: [string, string]) => Number(a) - Number(b)
    return { bids: [...this.bids].sort(byPrice).reverse(), asks: [...this.asks].sort(byPrice) }
  }
}

function trueBook(market: SymbolMarket, position: number) {
  const { price, quantity } = market.plan.instrument
  const book = new SimulatedBook(market, position)
  const levels = (side: 'bid' | 'ask') =>
    book
      .levels(side, EVERY_LEVEL)
      .map(([ticks, steps]) => [price(ticks), quantity(steps)] as [string, string])
  return { bids: levels('bid'), asks: levels('ask') }
}

/** The position of an update id, as long as the ids have not restarted. */
function positionOf({ plan }: SymbolMarket, id: number): number {
  return id - plan.firstUpdateId
}

test('diffs applied to the book of any update give the true book at every later cut', () => {
  fc.assert(
    fc.property(anyMarket, anyBlock, fc.nat(), (market, block, pick) => {
      const fromMs = blockStartMs(block) + 45_000
      const diffs = sent(market, fromMs, fromMs + BLOCK_MS).filter((event) => event.e === 'depthUpdate')
      const begin = pick % Math.max(1, Math.floor(diffs.length / 2))
      const first = diffs[begin]
      if (first === undefined) return
      // A snapshot in the middle of a diff.
      const copy = new Copy(market, positionOf(market, first.U + (pick % (first.u - first.U + 1))))
      for (const [index, diff] of diffs.slice(begin).entries()) {
        copy.apply(diff)
        if (index % 97 === 0 || diff === diffs.at(-1))
          assert.deepEqual(copy.sorted(), trueBook(market, positionOf(market, diff.u)))
      }
    }),
    { numRuns: 15 },
  )
})

test('update ids of diffs join, and the best levels after a diff are those of the last quote up to it', () => {
  fc.assert(
    fc.property(anyMarket, anyBlock, fc.constantFrom('@depth@100ms', '@depth'), (market, block, stream) => {
      const fromMs = blockStartMs(block) + 30_000
      let copy: Copy | undefined
      let quote: Quote | undefined
      let last: Diff | undefined
      for (const event of sent(market, fromMs, fromMs + BLOCK_MS, { stream })) {
        if (event.e === undefined) {
          assert(event.u > (last?.u ?? 0), 'a diff comes after the quotes with its ids')
          quote = event
          continue
        }
        assert(event.U <= event.u && event.U === (last?.u ?? event.U - 1) + 1)
        assert(event.E > (last?.E ?? 0))
        last = event
        if (copy === undefined) copy = new Copy(market, positionOf(market, event.u))
        else copy.apply(event)
        if (quote === undefined) continue
        const { bids, asks } = copy
        assert.equal(bids.get(quote.b), quote.B)
        assert.equal(asks.get(quote.a), quote.A)
        assert.equal(Math.max(...[...bids.keys()].map(Number)), Number(quote.b))
        assert.equal(Math.min(...[...asks.keys()].map(Number)), Number(quote.a))
      }
    }),
    { numRuns: 15 },
  )
})

test('two groups of connections get the same book by diffs with other cuts', () => {
  const market = marketOf('BTCUSDT', { seed: 5, messagesPerSecond: 300, symbols: SYMBOLS, skew: 1 })
  const fromMs = blockStartMs(77_777)
  const [one, other] = [0, 1].map((group) =>
    sent(market, fromMs, fromMs + 5_000, { groups: 2, group }).filter((event) => event.e === 'depthUpdate'),
  )
  assert(one !== undefined && other !== undefined && one.length > 40 && other.length > 40)
  const cuts = new Set(one.map(({ u }) => u))
  assert(other.filter(({ u }) => cuts.has(u)).length < other.length / 4)
  for (const diffs of [one, other]) {
    const copy = new Copy(market, positionOf(market, (diffs[0]?.U ?? 0) - 1))
    for (const diff of diffs) copy.apply(diff)
    assert.deepEqual(copy.sorted(), trueBook(market, positionOf(market, diffs.at(-1)?.u ?? 0)))
  }
})

test('a restarted exchange sends the same diffs that the stopped one would have sent', () => {
  fc.assert(
    fc.property(anyMarket, anyBlock, fc.integer({ min: 1, max: 60_000 }), (market, block, afterMs) => {
      const fromMs = blockStartMs(block) + 20_000
      const toMs = fromMs + 70_000
      const all = sent(market, fromMs, toMs)
      const stopped = sent(market, fromMs, fromMs + afterMs - 1, { stepMs: 333 })
      assert.deepEqual([...stopped, ...sent(market, fromMs + afterMs, toMs, { stepMs: 7_000 })], all)
    }),
    { numRuns: 10 },
  )
})

test('levels are about as on the real exchange: many per side, most changes near the top, some far', () => {
  const market = marketOf('BTCUSDT', {
    seed: 1,
    messagesPerSecond: 300,
    symbols: SYMBOLS.slice(0, 2),
    skew: 1,
  })
  const fromMs = blockStartMs(400_000)
  const { bids, asks } = trueBook(market, market.clock.positionAt(fromMs))
  assert(bids.length > 5_000 && asks.length > 5_000, `${bids.length} bids, ${asks.length} asks`)
  const events = sent(market, fromMs, fromMs + 2 * BLOCK_MS)
  const diffs = events.filter((event) => event.e === 'depthUpdate')
  const levels = diffs.flatMap(({ b, a }) => [...b, ...a])
  const perDiff = levels.length / diffs.length
  assert(perDiff > 20 && perDiff < 60, `${perDiff} levels per diff`)
  const removed = levels.filter(([, quantity]) => Number(quantity) === 0).length / levels.length
  assert(removed > 0.2 && removed < 0.6, `${removed} of the levels are removed`)
  const middle = Number(bids[0]?.[0])
  const distances = levels.map(([price]) => Math.abs(Number(price) / middle - 1))
  assert(distances.filter((distance) => distance < 0.002).length > 0.7 * levels.length)
  assert(distances.some((distance) => distance > 0.03))
})

test('the book of a virtual week moves out of old snapshots and stays bounded', () => {
  const market = marketOf('ETHUSDT', { seed: 1, messagesPerSecond: 20, symbols: ['ETHUSDT'], skew: 1 })
  const hour = 60
  const prices: number[] = []
  const sizes: number[] = []
  const book = new SimulatedBook(market, market.clock.positionAt(blockStartMs(0)))
  for (let block = 0; block < 7 * 24 * hour; block += 3 * hour) {
    book.advance(market.clock.positionAt(blockStartMs(block) + 1))
    prices.push(book.levels('bid', 1)[0]?.[0] ?? 0)
    sizes.push(book.levels('bid', EVERY_LEVEL).length + book.levels('ask', EVERY_LEVEL).length)
  }
  assert(Math.max(...prices) / Math.min(...prices) > 1.02)
  // A book that followed each change has no more levels than a new one.
  const followed = new SimulatedBook(market, market.clock.positionAt(blockStartMs(0)))
  for (let block = 1; block <= 90; block++) followed.cut(market.clock.positionAt(blockStartMs(block) + 777))
  const created = new SimulatedBook(market, followed.position)
  for (const side of ['bid', 'ask'] as const)
    assert.deepEqual(followed.levels(side, EVERY_LEVEL), created.levels(side, EVERY_LEVEL))
  assert(Math.max(...sizes) < 20_000 && Math.min(...sizes) > 5_000)
})
