import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BookSnapshot } from '../src/sandbox/simulator/market/book-history.ts'
import { connect, type Frame, get, soon, startExchange } from './support/exchange-client.ts'

const DEPTH = 'btcusdt@depth@100ms'
const OPTIONS = { messagesPerSecond: 400, symbols: ['BTCUSDT', 'BNBUSDT'] }

interface Diff {
  readonly U: number
  readonly u: number
  readonly b: ReadonlyArray<[string, string]>
  readonly a: ReadonlyArray<[string, string]>
}

const diffOf = ({ data }: Frame): Diff => ({
  U: Number(data['U']),
  u: Number(data['u']),
  b: Object(data['b']),
  a: Object(data['a']),
})

/** The book of a snapshot after some diffs, by the exchange's documented steps. */
function rebuilt({ lastUpdateId, bids, asks }: BookSnapshot, diffs: readonly Diff[]) {
  const book = { bids: new Map(bids), asks: new Map(asks) }
  let last = lastUpdateId
  for (const { U, u, b, a } of diffs) {
    if (u <= last) continue
    assert(U <= last + 1, `no diff is missing: ${U} after ${last}`)
    last = u
    for (const [side, levels] of [
      [book.bids, b],
      [book.asks, a],
    ] as const) {
      for (const [price, quantity] of levels) {
        if (Number(quantity) === 0) side.delete(price)
        else side.set(price, quantity)
      }
    }
  }
  const byPrice = ([one]: readonly string[], [other]: readonly string[]) => Number(one) - Number(other)
  return {
    lastUpdateId: last,
    bids: [...book.bids].sort(byPrice).reverse(),
    asks: [...book.asks].sort(byPrice),
  }
}

test('a snapshot of REST and the diffs of a stream give the true book', async (context) => {
  const exchange = await startExchange(context, OPTIONS)
  const client = await connect(context, exchange, `${DEPTH}/btcusdt@bookTicker`)
  await client.more(3, DEPTH)
  const { body: snapshot } = await get(`${exchange.restUrl}/api/v3/depth?symbol=BTCUSDT&limit=5000`)
  await client.more(10, DEPTH)
  const diffs = client.frames(DEPTH).map(diffOf)
  const { lastUpdateId, bids, asks } = rebuilt(snapshot, diffs)
  const truth = exchange.books?.book('BTCUSDT', { updateId: lastUpdateId }, 10_000)
  // Levels outside the snapshot are unknown.
  const [lowest, highest] = [snapshot.bids.at(-1)[0], snapshot.asks.at(-1)[0]].map(Number)
  const inside = {
    bids: truth?.bids.filter(([price]) => Number(price) >= Number(lowest)),
    asks: truth?.asks.filter(([price]) => Number(price) <= Number(highest)),
  }
  assert.deepEqual(
    bids.filter(([price]) => Number(price) >= Number(lowest)),
    inside.bids,
  )
  assert.deepEqual(
    asks.filter(([price]) => Number(price) <= Number(highest)),
    inside.asks,
  )
  const quote = client.frames('btcusdt@bookTicker').findLast(({ data }) => Number(data['u']) <= lastUpdateId)
  assert.deepEqual(
    [bids[0], asks[0]],
    [
      [quote?.data['b'], quote?.data['B']],
      [quote?.data['a'], quote?.data['A']],
    ],
  )
})

test('times of diffs are in the unit of the connection', async (context) => {
  const exchange = await startExchange(context, OPTIONS)
  const client = await connect(context, exchange, `${DEPTH}&timeUnit=MICROSECOND`)
  await client.more(2, DEPTH)
  for (const { data } of client.frames(DEPTH)) assert.match(String(data['E']), /^\d{16}$/)
})

test('two connections get diffs that are cut at different moments, if configured', async (context) => {
  const exchange = await startExchange(context, { ...OPTIONS, depthGroups: 2 })
  const clients = [await connect(context, exchange, DEPTH), await connect(context, exchange, DEPTH)]
  for (const client of clients) await client.more(8, DEPTH)
  const [one = [], other = []] = clients.map((client) => client.frames(DEPTH).map(diffOf))
  for (const diffs of [one, other])
    for (const [index, { U }] of diffs.entries())
      if (index > 0) assert.equal(U, Number(diffs[index - 1]?.u) + 1)
  const cuts = new Set(one.map(({ u }) => u))
  assert(other.filter(({ u }) => cuts.has(u)).length < 3)
})

test('the book is frozen while a symbol is halted, and its diffs continue without a hole', async (context) => {
  const exchange = await startExchange(context, { ...OPTIONS, symbols: ['BTCUSDT'] })
  const client = await connect(context, exchange, DEPTH)
  await client.more(3, DEPTH)
  const halt = exchange.faults.add({ kind: 'halt', symbol: 'BTCUSDT' })
  await client.request({ method: 'LIST_SUBSCRIPTIONS', id: 1 })
  const url = `${exchange.restUrl}/api/v3/depth?symbol=BTCUSDT&limit=5000`
  const { body: snapshot } = await get(url)
  await soon('a while', () => Date.now() > Date.parse(halt.report().startedAt ?? '') + 400)
  assert.deepEqual((await get(url)).body, snapshot)
  halt.end()
  await client.more(5, DEPTH)
  const diffs = client.frames(DEPTH).map(diffOf)
  for (const [index, { U }] of diffs.entries())
    if (index > 0) assert.equal(U, Number(diffs[index - 1]?.u) + 1)
  const { lastUpdateId, bids } = rebuilt(snapshot, diffs)
  const truth = exchange.books?.book('BTCUSDT', { updateId: lastUpdateId }, 100)
  assert.deepEqual(bids.slice(0, 100), truth?.bids)
})

test('the true book of any instant and update is served, and one of the future is refused', async (context) => {
  const exchange = await startExchange(context, { ...OPTIONS, faultApi: true })
  const url = `${exchange.restUrl}/faults/truth/book?symbol=BTCUSDT`
  const timeMs = Date.now() - 3_600_000
  const body: BookSnapshot = (await get(`${url}&time=${timeMs}&levels=20`)).body
  assert.deepEqual(body, exchange.books?.book('BTCUSDT', { timeMs }, 20))
  assert.deepEqual((await get(`${url}&updateId=${body.lastUpdateId}&levels=20`)).body, body)
  for (const query of [
    '',
    '&time=1&updateId=1',
    `&time=${Date.now() + 60_000}`,
    '&updateId=1',
    '&epoch=3&updateId=1',
  ])
    assert.equal((await get(url + query)).status, 400, query)
})

test('snapshots are late or old while a fault says so', async (context) => {
  const exchange = await startExchange(context, OPTIONS)
  const client = await connect(context, exchange, DEPTH)
  await client.more(1, DEPTH)
  const url = `${exchange.restUrl}/api/v3/depth?symbol=BTCUSDT`
  const old = exchange.faults.add({ kind: 'restLag', symbol: 'BTCUSDT', lagMs: 60_000 })
  const body: BookSnapshot = (await get(url)).body
  assert(body.lastUpdateId < Number(client.frames(DEPTH)[0]?.data['U']), 'it is older than the first diff')
  assert.equal(old.end().struck, 1)
  const slow = exchange.faults.add({ kind: 'restSlow', path: 'depth', delayMs: 200 })
  const sentMs = performance.now()
  await get(url)
  assert(performance.now() - sentMs > 190 && slow.report().struck === 1)
})

test('diffs are dropped, repeated, swapped and altered, and the exchange knows which', async (context) => {
  const exchange = await startExchange(context, { ...OPTIONS, faultApi: true })
  const client = await connect(context, exchange, DEPTH)
  await client.more(2, DEPTH)
  const faults = (['drop', 'duplicate', 'swap'] as const).map((kind) => ({ kind, stream: DEPTH, count: 2 }))
  for (const fault of faults) {
    const { report } = exchange.faults.add(fault)
    await soon(`the end of ${fault.kind}`, () => report().state === 'ended')
    await client.more(2, DEPTH)
  }
  const alters = (['any', 'best'] as const).map((level) => {
    return exchange.faults.add({ kind: 'alter', stream: DEPTH, count: 2, level })
  })
  await soon('the end of the alters', () => alters.every(({ report }) => report().state === 'ended'))
  await client.more(2, DEPTH)
  const { frames, forgotten } = exchange.faults.struck()
  assert.equal(forgotten, 0)
  const received = client.frames(DEPTH).map(diffOf)
  const lastIds = received.map(({ u }) => u)
  const idsOf = (kind: string) => frames.filter((frame) => frame.kind === kind).map(({ lastId }) => lastId)
  assert.deepEqual([idsOf('drop').length, idsOf('duplicate').length, idsOf('swap').length], [2, 2, 2])
  assert(idsOf('drop').every((id) => !lastIds.includes(id)))
  for (const id of idsOf('duplicate')) assert.equal(lastIds.filter((one) => one === id).length, 2)
  const fallen = lastIds.filter((id, index) => id < Number(lastIds[index - 1]))
  assert.deepEqual(fallen, idsOf('swap'))
  const altered = frames.filter(({ kind }) => kind === 'alter')
  assert.equal(altered.length, 4)
  for (const { lastId, change } of altered) {
    const diff = received.find(({ u }) => u === lastId)
    const levels = change?.side === 'bid' ? diff?.b : diff?.a
    const sent = levels?.find(([price]) => price === change?.price)
    assert.equal(sent?.[1], change?.sentQuantity)
    const truth = exchange.books?.book('BTCUSDT', { updateId: lastId }, 100_000)
    const level = truth?.[change?.side === 'bid' ? 'bids' : 'asks'].find(([price]) => price === change?.price)
    assert.equal(Number(level?.[1] ?? 0), Number(change?.trueQuantity))
    assert.equal(Number(change?.sentQuantity), Number((Number(change?.trueQuantity) + 1).toFixed(8)))
  }
  assert.deepEqual(
    (await get(`${exchange.restUrl}/faults/struck`)).body,
    JSON.parse(JSON.stringify(exchange.faults.struck())),
  )
})

test('update ids restart for quotes, diffs and snapshots alike, and the truth knows both runs', async (context) => {
  const exchange = await startExchange(context, OPTIONS)
  const client = await connect(context, exchange, `${DEPTH}/btcusdt@bookTicker`)
  await client.more(3, DEPTH)
  exchange.faults.add({ kind: 'restartIds', symbol: 'BTCUSDT', ids: 'update', firstId: 50 })
  await soon('a diff with new ids', () => client.frames(DEPTH).some(({ data }) => data['U'] === 50))
  const { body: snapshot } = await get(`${exchange.restUrl}/api/v3/depth?symbol=BTCUSDT&limit=5000`)
  await client.more(4, DEPTH)
  const diffs = client.frames(DEPTH).map(diffOf)
  const turn = diffs.findIndex(({ U }) => U === 50)
  for (const run of [diffs.slice(0, turn), diffs.slice(turn)])
    for (const [index, { U, u }] of run.entries())
      assert(u >= U && U === Number(run[index - 1]?.u ?? U - 1) + 1)
  const { lastUpdateId, bids, asks } = rebuilt(snapshot, diffs.slice(turn))
  const truth = exchange.books?.book('BTCUSDT', { updateId: lastUpdateId }, 10)
  assert.deepEqual({ lastUpdateId, bids: bids.slice(0, 10), asks: asks.slice(0, 10) }, truth)
  const before = diffs[turn - 1]
  assert(before)
  const old = exchange.books?.book('BTCUSDT', { updateId: before.u, epoch: 0 }, 10)
  assert.equal(old?.lastUpdateId, before.u)
  const quotes = client.frames('btcusdt@bookTicker').map(({ data }) => Number(data['u']))
  assert(quotes.some((u) => u >= 50 && u < 100_000))
})
