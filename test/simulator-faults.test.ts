import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type TestContext, test } from 'node:test'
import { WebSocket } from 'ws'
import { isTapelineError } from '../src/foundation/runtime/errors.ts'
import { fateOf, Stalls } from '../src/sandbox/simulator/faults/fault-frames.ts'
import { FAULT_KINDS, type FaultRequest, parseFault } from '../src/sandbox/simulator/faults/fault-kinds.ts'
import { FaultRegistry } from '../src/sandbox/simulator/faults/fault-registry.ts'
import { formatCaptureLine } from '../src/sandbox/simulator/replay/capture-frames.ts'
import { startReplayExchange } from '../src/sandbox/simulator/replay-exchange.ts'
import type { SimulatedExchangeOptions } from '../src/sandbox/simulator/simulated-exchange.ts'
import { connect, get, idsOf, rowsOf, soon, startExchange, TRADES } from './support/exchange-client.ts'

function start(context: TestContext, options: SimulatedExchangeOptions = {}) {
  return startExchange(context, { messagesPerSecond: 2_000, symbols: ['BTCUSDT'], ...options })
}

/** Neither holes nor repeats. */
const COMPLETE = { missing: 0, repeated: 0, inOrder: true }

const isRefused = (error: Error) => Object(error.cause).code === 'ECONNREFUSED'
const isBtcusdt = ({ symbol }: { symbol: string }) => symbol === 'BTCUSDT'

function holesAndRepeats(ids: readonly number[]) {
  const known = new Set(ids)
  return {
    missing: Math.max(...ids) - Math.min(...ids) + 1 - known.size,
    repeated: ids.length - known.size,
    inOrder: ids.every((id, index) => index === 0 || id >= Number(ids[index - 1])),
  }
}

test('drops and duplicates as many frames as configured, and REST still has every trade', async (context) => {
  const exchange = await start(context)
  const client = await connect(context, exchange, `${TRADES}/btcusdt@bookTicker`)
  await client.more(5)
  const drop = exchange.faults.add({ kind: 'drop', stream: '*@trade', count: 7, probability: 0.5 })
  await soon('the end of the drops', () => drop.report().state === 'ended')
  assert.deepEqual([drop.report().struck, drop.report().endedBy], [7, 'count'])
  const duplicate = exchange.faults.add({ kind: 'duplicate', stream: TRADES, count: 3, copies: 2 })
  await soon('the end of the duplicates', () => duplicate.report().state === 'ended')
  await client.more(5)
  const ids = client.ids()
  assert.deepEqual(holesAndRepeats(ids), { missing: 7, repeated: 6, inOrder: true })
  const [from, to] = [Math.min(...ids), Math.max(...ids)]
  assert.equal(exchange.history.events('trade', 'BTCUSDT', from, to).length, to - from + 1)
  assert.equal(exchange.faults.list().length, 2)
})

test('the same seed strikes the same frames, another seed others', () => {
  const lost = (seed: number) => {
    const clock = { monotonicMs: () => 0, wallMicros: () => 0, schedule: () => () => undefined }
    const listener = { began: () => undefined, ended: () => undefined }
    const book = new FaultRegistry({ clock, seed, listener })
    book.add(parseFault({ kind: 'drop', probability: 0.3 }))
    const frame = { connectionId: 1, stream: TRADES }
    return Array.from({ length: 100 }, () => fateOf(frame, book, new Stalls()).copies)
  }
  assert.deepEqual(lost(3), lost(3))
  assert.notDeepEqual(lost(3), lost(4))
  const struck = lost(3).filter((copies) => copies === 0).length
  assert(struck > 15 && struck < 45, `${struck} of 100`)
})

test('a delayed connection lags, but keeps its order and loses no frame', async (context) => {
  const exchange = await start(context)
  const first = await connect(context, exchange, TRADES)
  const second = await connect(context, exchange, TRADES)
  await Promise.all([first.more(5), second.more(5)])
  const slow = exchange.connections()[1]
  const delay = exchange.faults.add({ kind: 'delay', connection: Number(slow?.id), delayMs: 200 })
  await soon('the connection to lag', () => Number(first.ids().at(-1)) > Number(second.ids().at(-1)) + 20)
  delay.end()
  const last = Number(first.ids().at(-1))
  await soon('the connection to catch up', () => Number(second.ids().at(-1)) > last)
  for (const client of [first, second]) assert.deepEqual(holesAndRepeats(client.ids()), COMPLETE)
})

test('a stalled stream is silent while the others deliver, and only its configured remedy restores it', async (context) => {
  const exchange = await start(context, { limits: { incomingPerSecond: 1_000 } })
  const client = await connect(context, exchange, `${TRADES}/btcusdt@bookTicker`)
  await client.more(5)
  exchange.faults.add({ kind: 'stall', stream: TRADES, healedBy: 'resubscribe' })
  await client.request({ method: 'LIST_SUBSCRIPTIONS', id: 1 })
  const before = client.ids().length
  await client.more(50, 'btcusdt@bookTicker')
  assert.equal(client.ids().length, before)
  const renewed = await connect(context, exchange, TRADES)
  await renewed.more(5)
  assert.equal(client.ids().length, before)
  for (const method of ['UNSUBSCRIBE', 'SUBSCRIBE'])
    client.webSocket.send(JSON.stringify({ method, params: [TRADES], id: 1 }))
  await client.more(5)

  exchange.faults.clear()
  exchange.faults.add({ kind: 'stall', healedBy: 'reconnect', forMs: 60_000 })
  await client.request({ method: 'LIST_SUBSCRIPTIONS', id: 1 })
  const stalled = client.received.length
  await (await connect(context, exchange, TRADES)).more(5)
  assert.equal(client.received.length, stalled)
})

test('pings continue during a stall, or stop with the frames if configured', async (context) => {
  const exchange = await start(context, { limits: { pingIntervalMs: 20, incomingPerSecond: 1_000 } })
  const client = await connect(context, exchange, TRADES)
  const alive = exchange.faults.add({ kind: 'stall' })
  const before = client.pings()
  await soon('pings', () => client.pings() > before + 3)
  alive.end()
  const other = await connect(context, exchange, TRADES)
  exchange.faults.add({ kind: 'stall', connection: Number(exchange.connections()[0]?.id), pings: false })
  await soon('pings in flight to arrive', () => other.pings() > 2)
  const silent = client.pings()
  const heard = other.pings()
  await soon('pings on the other', () => other.pings() > heard + 5)
  assert.equal(client.pings(), silent)
})

test('garbage of every form arrives in addition to the real frames', async (context) => {
  const exchange = await start(context)
  const client = await connect(context, exchange, TRADES)
  await client.more(1)
  const forms: FaultRequest[] = [
    { kind: 'garbage', form: 'text', text: 'no JSON', count: 2 },
    { kind: 'garbage', form: 'truncated' },
    { kind: 'garbage', form: 'binary' },
  ]
  for (const form of forms) exchange.faults.add(form)
  await soon('four', () => client.strange.length === 4)
  await client.more(5)
  assert.deepEqual(client.strange.map(({ isBinary }) => isBinary).sort(), [false, false, false, true])
  assert.equal(client.strange.filter(({ text }) => text === 'no JSON').length, 2)
  assert.deepEqual(holesAndRepeats(client.ids()), COMPLETE)
  for (const [form, code] of [
    ['oversized', 1009],
    ['protocol', 1002],
  ] as const) {
    const victim = await connect(context, exchange, TRADES)
    let error: unknown
    victim.webSocket.on('error', (problem) => {
      error = Reflect.get(problem, 'code')
    })
    const { id } = exchange.connections().at(-1) ?? { id: 0 }
    exchange.faults.add({ kind: 'garbage', form, connection: id })
    await victim.closed
    assert.match(String(error), code === 1009 ? /UNSUPPORTED_MESSAGE_LENGTH/ : /RSV|OPCODE/)
  }
})

test('connections are cut, closed, refused and closed after the handshake, as configured', async (context) => {
  const exchange = await start(context)
  const [reset, closed, ended, kept] = await Promise.all(
    Array.from({ length: 4 }, () => connect(context, exchange, TRADES)),
  )
  assert(reset && closed && ended && kept)
  const open = exchange.connections()
  // The server may accept connections in another order: each cut is identified by its code.
  const idAt = (index: number) => Number(open[index]?.id)
  exchange.faults.add({ kind: 'cut', connection: idAt(0) })
  exchange.faults.add({ kind: 'cut', connection: idAt(1), how: 'close', code: 1012, reason: 'restart' })
  exchange.faults.add({ kind: 'cut', connection: idAt(2), how: 'end' })
  await soon('three connections to be closed', () => exchange.stats().connections === 1)
  const codes: number[] = []
  for (const client of [reset, closed, ended, kept]) void client.closed.then((code) => codes.push(code))
  await soon('three codes', () => codes.length === 3)
  assert.deepEqual(codes.sort(), [1006, 1006, 1012])

  exchange.faults.add({ kind: 'closeAfterHandshake', count: 1 })
  assert.equal(await (await connect(context, exchange, TRADES)).closed, 1008)
  for (const status of [403, 429, 451, 503]) {
    exchange.faults.add({ kind: 'refuse', status, retryAfterSeconds: 7, count: 1 })
    const webSocket = new WebSocket(`${exchange.wsUrl}/stream`)
    webSocket.on('error', () => undefined)
    const [, response] = await once(webSocket, 'unexpected-response')
    assert.deepEqual([response.statusCode, response.headers['retry-after']], [status, '7'])
    webSocket.terminate()
  }
  exchange.faults.add({ kind: 'refuse', how: 'reset', count: 1 })
  const [error] = await once(new WebSocket(`${exchange.wsUrl}/stream`), 'error')
  assert.match(String(Reflect.get(error, 'code')), /ECONNRESET|EPIPE/)
  await (await connect(context, exchange, TRADES)).more(1)
})

test('an unreachable exchange refuses new connections, keeps the old ones, and returns on its port', async (context) => {
  const exchange = await start(context)
  const client = await connect(context, exchange, TRADES)
  const fault = exchange.faults.add({ kind: 'unreachable', forMs: 300 })
  await assert.rejects(fetch(`${exchange.restUrl}/api/v3/ping`), isRefused)
  await client.more(20)
  await soon('its end', () => fault.report().state === 'ended')
  await soon('an answer', () => fetch(`${exchange.restUrl}/api/v3/ping`))
  assert.equal(fault.report().problem, null)
})

test('serverShutdown precedes the close, and later connections stay open', async (context) => {
  const exchange = await start(context)
  const client = await connect(context, exchange, TRADES)
  const notice = exchange.faults.add({ kind: 'serverShutdown', graceMs: 1_000 })
  await soon('the notice', () => client.frames('!serverShutdown').length === 1)
  await client.more(5)
  assert.equal(notice.report().state, 'active', 'frames continue during the grace period')
  const renewed = await connect(context, exchange, TRADES)
  assert.equal(await client.closed, 1001)
  await renewed.more(5)
})

test('a frozen connection delivers its frames late, and loses none', async (context) => {
  const exchange = await start(context)
  const client = await connect(context, exchange, TRADES)
  await client.more(5)
  const freeze = exchange.faults.add({ kind: 'freeze' })
  client.webSocket.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
  await soon('a backlog', () => Number(exchange.connections()[0]?.bufferedBytes) > 20_000)
  const before = client.received.length
  const later = await connect(context, exchange, TRADES).catch(() => undefined)
  assert.equal(later?.received.length, 0, 'later connections are frozen too')
  assert.equal(client.received.length, before)
  freeze.end()
  await client.more(20)
  await soon('the answer', () => client.received.some(({ stream }) => stream === undefined))
  assert.deepEqual(holesAndRepeats(client.ids()), COMPLETE)
})

test('restarted ids begin low on streams and REST, and the history keeps the previous ones', async (context) => {
  const exchange = await start(context)
  const client = await connect(context, exchange, `${TRADES}/btcusdt@aggTrade`)
  await client.more(10)
  exchange.faults.add({ kind: 'restartIds', symbol: 'btcusdt', firstId: 100 })
  await soon('new ids', () => client.ids().filter((id) => id < 1_000).length >= 20)
  await client.more(5, 'btcusdt@aggTrade')
  const ids = client.ids()
  const turn = ids.findIndex((id, index) => id < Number(ids[index - 1]))
  const [old, fresh] = [ids.slice(0, turn), ids.slice(turn)]
  assert.equal(fresh[0], 100)
  for (const run of [old, fresh]) assert.deepEqual(holesAndRepeats(run), COMPLETE)
  const aggTrades = client.frames('btcusdt@aggTrade').map(({ data }) => data)
  const first = aggTrades.find(({ a }) => a === 100)
  assert.equal(first?.['f'], 100, 'an aggTrade refers to its trades by their new ids')

  const rows = await rowsOf(exchange, 'historicalTrades?symbol=BTCUSDT&fromId=0&limit=10')
  assert.deepEqual(
    idsOf(rows),
    Array.from({ length: 10 }, (_, index) => 100 + index),
  )
  assert.deepEqual(await rowsOf(exchange, `historicalTrades?symbol=BTCUSDT&fromId=${old[0]}`), [])
  const { history } = exchange
  assert.equal(history.epochCount('BTCUSDT', 'trade'), 2)
  const known = history.events('trade', 'BTCUSDT', Number(old[0]), Number(old.at(-1)), 0)
  assert.deepEqual(idsOf(known), old)
})

test('a symbol halts, is delisted and is listed: exchangeInfo, REST and streams reflect it, and no ids are missing', async (context) => {
  const exchange = await start(context, { symbols: ['BTCUSDT', 'ETHUSDT'] })
  const info = (query: string) => get(`${exchange.restUrl}/api/v3/exchangeInfo?${query}`)
  const status = async () => (await info('showPermissionSets=false')).body.symbols.find(isBtcusdt)?.status
  const latest = async () => Object(await rowsOf(exchange, 'historicalTrades?symbol=BTCUSDT&limit=1'))
  const client = await connect(context, exchange, `${TRADES}/btcusdt@aggTrade/ethusdt@trade`)
  await client.more(10)
  const halt = exchange.faults.add({ kind: 'halt', symbol: 'btcusdt', status: 'HALT' })
  assert.equal(await status(), 'HALT')
  const { body } = await info('symbolStatus=TRADING')
  assert.deepEqual([body.symbols.length, body.symbols.some(isBtcusdt)], [1, false])
  await client.more(100, 'ethusdt@trade')
  const last = client.ids().at(-1)
  assert.equal((await latest())[0].id, last, 'REST has the sent trades')
  await client.more(100, 'ethusdt@trade')
  assert.equal(client.ids().at(-1), last)
  halt.end()
  assert.equal(await status(), 'TRADING')
  await client.more(50)
  const delisting = exchange.faults.add({ kind: 'delist', symbol: 'BTCUSDT' })
  assert.equal(await status(), undefined)
  assert.equal((await latest()).code, -1121)
  delisting.end()
  await client.more(50)
  const ids = client.ids()
  assert.deepEqual(holesAndRepeats(ids), COMPLETE)
  const query = `historicalTrades?symbol=BTCUSDT&fromId=${ids[0]}&limit=${ids.length}`
  assert.deepEqual(idsOf(await rowsOf(exchange, query)), ids)
  exchange.faults.add({ kind: 'delist', symbol: 'BTCUSDT' })
  exchange.faults.add({ kind: 'list', symbol: 'BTCUSDT' })
  await soon('new ids', () => (client.ids().at(-1) ?? 0) < 1000)
  const fresh = client.ids().filter((id) => id < 1000)
  assert.deepEqual(holesAndRepeats(fresh), COMPLETE)
  assert.equal(fresh[0], 0, 'the ids of a new symbol begin at 0')
  assert.equal((await rowsOf(exchange, 'aggTrades?symbol=BTCUSDT&fromId=0'))[0]?.['f'], 0)
})

test('REST refuses, resets and delays requests as configured, for the configured path and count', async (context) => {
  const exchange = await start(context)
  const url = `${exchange.restUrl}/api/v3/aggTrades?symbol=BTCUSDT&limit=1`
  for (const status of [418, 429, 403, 451, 500]) {
    exchange.faults.add({ kind: 'restError', path: 'aggTrades', status, count: 1, retryAfterSeconds: 3 })
    assert.equal((await get(`${exchange.restUrl}/api/v3/time`)).status, 200)
    const refused = await get(url)
    assert.deepEqual([refused.status, refused.headers.get('retry-after')], [status, '3'])
    assert.equal((await get(url)).status, 200)
  }
  exchange.faults.add({ kind: 'restReset', count: 1 })
  await assert.rejects(fetch(url))
  exchange.faults.add({ kind: 'restSlow', delayMs: 60_000, count: 1 })
  await assert.rejects(fetch(url, { signal: AbortSignal.timeout(150) }), { name: 'TimeoutError' })
  assert(exchange.faults.list().every(({ state, struck }) => state === 'ended' && struck === 1))
})

test('REST answers short, late, with a hole and from later ids, while the history is complete', async (context) => {
  const exchange = await start(context)
  const rows = (query: string) => rowsOf(exchange, `historicalTrades?symbol=BTCUSDT&${query}`)
  const latest = idsOf(await rows('limit=1000'))
  const first = Number(latest[0])
  const ids = async (query: string) => (await rows(query)).map(({ id }) => Number(id) - first)
  const hole = exchange.faults.add({ kind: 'restHole', ids: 'trade', fromId: first + 2, toId: first + 4 })
  assert.deepEqual(await ids(`fromId=${first}&limit=5`), [0, 1, 5, 6, 7])
  assert.deepEqual(await ids(`fromId=${first + 3}&limit=2`), [5, 6])
  hole.end()
  exchange.faults.add({ kind: 'restShort', rows: 3 })
  assert.deepEqual(await ids(`fromId=${first}&limit=5`), [0, 1, 2])
  exchange.faults.clear()
  exchange.faults.add({ kind: 'restClamp', ids: 'trade', oldestId: first + 10 })
  assert.deepEqual(await ids(`fromId=${first}&limit=2`), [10, 11])
  assert.deepEqual(await ids(`fromId=${first + 20}&limit=1`), [20])
  exchange.faults.clear()
  exchange.faults.add({ kind: 'restLag', symbol: 'BTCUSDT', lagMs: 60_000 })
  const nowMs = Date.now()
  for (const query of ['limit=3', `fromId=${Number(latest.at(-1)) - 900}`]) {
    for (const { time } of await rows(query)) assert(Number(time) <= nowMs - 59_000)
  }
  assert.equal((await rows('limit=3')).length, 3)
  assert.equal(exchange.history.events('trade', 'BTCUSDT', first, first + 999).length, 1_000)
})

test('faults can be controlled over HTTP only if enabled', async (context) => {
  assert.equal((await get(`${(await start(context)).restUrl}/faults`)).status, 404)
  const exchange = await start(context, { faultApi: true })
  const url = `${exchange.restUrl}/faults`
  const send = async (method: string, path: string, body?: unknown) => {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) }
    const response = await fetch(url + path, init)
    return { status: response.status, body: JSON.parse(await response.text()) }
  }
  const added = await send('POST', '', { kind: 'drop', stream: TRADES, forMs: 60_000 })
  assert.deepEqual([added.status, added.body.state, added.body.spec.probability], [201, 'active', 1])
  const waiting = await send('POST', '', { kind: 'cut', afterMs: 60_000 })
  assert.equal(waiting.body.state, 'waiting')
  const states = async () =>
    (await send('GET', '')).body.faults.map((fault: { state: string }) => fault.state)
  assert.deepEqual(await states(), ['active', 'waiting'])
  assert.equal((await send('DELETE', `/${added.body.id}`)).body.endedBy, 'request')
  assert.deepEqual(await states(), ['ended', 'waiting'])
  await send('DELETE', '')
  assert.deepEqual(await states(), ['ended', 'ended'])
  assert.equal((await send('DELETE', '/99')).status, 404)
  const wrong = await send('POST', '', { kind: 'drop', probability: 2, often: true })
  assert.equal(wrong.status, 400)
  assert.match(wrong.body.error, /probability: .*often/)
  assert.match((await send('POST', '', { kind: 'nonsense' })).body.fix, /docs\/faults\.md/)
  const noRange = await send('GET', '/truth/trades?symbol=BTCUSDT')
  assert.deepEqual(Object.keys(noRange.body), ['error'], 'an empty fix is omitted')
  const client = await connect(context, exchange, TRADES)
  await client.more(3)
  const id = Number(client.ids()[0])
  const truth = await send('GET', `/truth/trades?symbol=BTCUSDT&fromId=${id}&toId=${id + 2}`)
  assert.deepEqual(idsOf(truth.body.rows), [id, id + 1, id + 2])
  assert.equal((await send('GET', '/connections')).body.connections.length, 1)
})

test('refuses a fault of an unlisted symbol, and names the listed ones', async (context) => {
  const { faults } = await start(context)
  const add = () => faults.add({ kind: 'restartIds', symbol: 'NOPEUSDT' })
  assert.throws(add, (error) => isTapelineError(error, 'INPUT') && error.fix.includes('BTCUSDT'))
  assert.deepEqual(faults.list(), [])
})

test('every kind of fault has an example in the docs, and each example is accepted', () => {
  const page = readFileSync(resolve(import.meta.dirname, '../docs/faults.md'), 'utf8')
  const examples = [...page.matchAll(/ -d '(\{.*\})'/g)].map(([, json = '']) => parseFault(JSON.parse(json)))
  const shown = new Set<string>(examples.map(({ kind }) => kind))
  assert.deepEqual([...shown].sort(), [...FAULT_KINDS].sort())
})

test('a replay supports the same faults: frames are lost, ids restart, and REST agrees', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'tapeline-faults-'))
  const timeMs = 1_723_161_568_000
  const frame = (id: number, type: 'trade' | 'aggTrade') => {
    const ids = type === 'trade' ? `"t":${id}` : `"a":${id},"f":${id},"l":${id}`
    return `{"stream":"btcusdt@${type}","data":{"e":"${type}","E":${timeMs},"s":"BTCUSDT",${ids},"p":"1.5","q":"2","T":${timeMs},"m":true}}`
  }
  const lineAt = (ms: number, text: string) =>
    formatCaptureLine({ receivedNs: 1_723_161_568_000_000_000n + BigInt(ms) * 1_000_000n, frame: text })
  const lines = Array.from({ length: 200 }, (_, index) =>
    [frame(5_000 + index, 'trade'), frame(5_000 + index, 'aggTrade')].map((text) => lineAt(index * 10, text)),
  )
  const file = join(folder, 'faults.ndjson')
  await writeFile(file, lines.flat().join(''))
  const exchange = await startReplayExchange({ file })
  context.after(() => exchange.close())
  const client = await connect(context, exchange, `${TRADES}/btcusdt@aggTrade`)
  await client.more(5)
  const drop = exchange.faults.add({ kind: 'drop', stream: TRADES, count: 3 })
  await soon('three drops', () => drop.report().state === 'ended')
  await client.more(2)
  exchange.faults.add({ kind: 'restartIds', symbol: 'BTCUSDT', firstId: 7 })
  await soon('all frames', () => client.received.length === 397)
  const ids = client.ids()
  const turn = ids.indexOf(7)
  assert.deepEqual(holesAndRepeats(ids.slice(0, turn)), { missing: 3, repeated: 0, inOrder: true })
  assert.deepEqual(holesAndRepeats(ids.slice(turn)), COMPLETE)
  const first = client.frames('btcusdt@aggTrade').find(({ data }) => data['a'] === 7)
  assert.equal(first?.text, frame(7, 'aggTrade'))
  const rest = await rowsOf(exchange, 'historicalTrades?symbol=BTCUSDT&fromId=7')
  assert.deepEqual(idsOf(rest), ids.slice(turn))
  assert.equal(exchange.history.events('trade', 'BTCUSDT', 5_000, 5_199, 0).length, 200 - rest.length)
})
