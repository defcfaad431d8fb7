import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { WebSocket } from 'ws'
import { isTapelineError } from '../src/foundation/runtime/errors.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import {
  connect,
  type Frame,
  idsOf,
  rowsOf,
  soon,
  startExchange as start,
  TRADES,
} from './support/exchange-client.ts'
import { until } from './support/wait-for.ts'

const FAST = { messagesPerSecond: 2_000, symbols: ['BTCUSDT', 'BNBUSDT'] }

test('streams of the URL and subscribed streams arrive, unsubscribed ones are silent', async (context) => {
  const exchange = await start(context, FAST)
  const client = await connect(context, exchange, 'btcusdt@trade/bnbusdt@bookTicker')
  await Promise.all([client.more(5), client.more(5, 'bnbusdt@bookTicker')])
  const params = ['btcusdt@aggTrade', 'BTCUSDT@bookTicker', 'nope@trade']
  assert.deepEqual(await client.request({ method: 'SUBSCRIBE', params, id: 1 }), { result: null, id: 1 })
  await client.more(5, 'btcusdt@aggTrade')
  assert.deepEqual(await client.request({ method: 'LIST_SUBSCRIPTIONS', id: 'mine' }), {
    result: ['btcusdt@trade', 'bnbusdt@bookTicker', ...params],
    id: 'mine',
  })
  const unsubscribe = { method: 'UNSUBSCRIBE', params: [TRADES], id: 3 }
  assert.deepEqual(await client.request(unsubscribe), { result: null, id: 3 })
  const before = client.ids().length
  await client.more(20, 'btcusdt@aggTrade')
  assert.equal(client.ids().length, before)
  const streams = new Set(client.received.map((frame) => frame.stream))
  assert.deepEqual(streams, new Set([TRADES, 'bnbusdt@bookTicker', 'btcusdt@aggTrade', undefined]))
})

test('answers invalid requests as the exchange does, outside the envelope', async (context) => {
  const exchange = await start(context, { limits: { incomingPerSecond: 100 } })
  const { request } = await connect(context, exchange)
  assert.deepEqual(await request('{'), { code: 3, msg: 'Invalid JSON: expected value at line 1 column 1' })
  const unknown = await request({ method: 'GET_PROPERTY', params: ['nope'], id: 7 })
  assert.deepEqual(unknown, { code: 0, msg: 'Unknown property', id: 7 })
  const mistakes = [
    { id: 1 },
    { method: 'NOPE', id: 1 },
    { method: 'SUBSCRIBE', params: [5], id: 1 },
    { method: 'SUBSCRIBE', params: 'x', id: 1 },
  ]
  for (const mistake of mistakes) {
    const { code, msg, id } = await request(mistake)
    assert.deepEqual([code, id], [2, 1])
    assert.match(String(msg), /^Invalid request: /)
  }
  const tooMany = Array.from({ length: 1_025 }, (_, index) => `s${index}@trade`)
  assert.equal((await request({ method: 'SUBSCRIBE', params: tooMany, id: 2 }))['code'], 2)
  assert.deepEqual(await request({ method: 'LIST_SUBSCRIPTIONS', id: 3 }), { result: [], id: 3 })
})

test('refuses a URL with too many streams or characters, or an unknown path', async (context) => {
  const { wsUrl } = await start(context)
  const many = Array.from({ length: 1_025 }, (_, index) => index).join('/')
  for (const [path, status] of [
    [`/stream?streams=${many}`, 400],
    [`/stream?streams=${'x'.repeat(8_000)}`, 414],
    ['/stream?streams=btcusdt@trade&timeUnit=second', 400],
    ['/nope', 404],
  ] as const) {
    const webSocket = new WebSocket(wsUrl + path)
    webSocket.on('error', () => undefined)
    const [, response] = await once(webSocket, 'unexpected-response')
    assert.equal(response.statusCode, status)
    webSocket.terminate()
  }
})

test('disconnects a client that sends more than five messages in a second, with 1008', async (context) => {
  const { webSocket, closed, received } = await connect(context, await start(context))
  for (let id = 1; id <= 6; id++) webSocket.send(JSON.stringify({ method: 'LIST_SUBSCRIPTIONS', id }))
  assert.equal(await closed, 1008)
  assert.equal(received.length, 5)
})

test('every client gets times in the unit of its URL', async (context) => {
  const exchange = await start(context, FAST)
  const inUnit = (unit: string) => connect(context, exchange, `${TRADES}&timeUnit=${unit}`)
  const us = await inUnit('microsecond')
  const ms = await inUnit('MILLISECOND')
  const usAgain = await inUnit('MICROSECOND')
  await Promise.all([us, ms, usAgain].map((client) => client.more(20)))
  const dataOf = ({ data }: Frame) => Object(data)
  const byId = new Map(us.frames(TRADES).map((frame) => [dataOf(frame).t, dataOf(frame)]))
  const pairs = ms.frames(TRADES).flatMap((frame) => {
    const other = byId.get(dataOf(frame).t)
    return other === undefined ? [] : [[dataOf(frame), other]]
  })
  assert.ok(pairs.length > 10)
  for (const [one, other] of pairs) {
    assert.deepEqual([Math.floor(other.T / 1000), Math.floor(other.E / 1000)], [one.T, one.E])
    assert.deepEqual({ ...other, T: one.T, E: one.E }, one)
  }
})

test('disconnects a client that answers no ping, and keeps one that answers', async (context) => {
  const limits = { pingIntervalMs: 20, pongTimeoutMs: 100, incomingPerSecond: 1_000 }
  const exchange = await start(context, { limits })
  const deaf = new WebSocket(`${exchange.wsUrl}/stream`, { autoPong: false })
  context.after(() => deaf.terminate())
  const deafClosed = once(deaf, 'close')
  const { webSocket, pings } = await connect(context, exchange)
  webSocket.on('ping', (payload) => assert.match(payload.toString(), /^\d{13}$/))
  assert.equal((await deafClosed)[0], 1006)
  await soon('ten pings', () => pings() > 10)
  assert.equal(exchange.stats().connections, 1)
})

test('disconnects a client that does not read before its backlog fills the memory', async (context) => {
  const limits = { bufferedMaxBytes: 100_000 }
  const exchange = await start(context, { messagesPerSecond: 50_000, symbols: ['BTCUSDT'], limits })
  const { webSocket, closed } = await connect(context, exchange, 'btcusdt@trade/btcusdt@bookTicker')
  webSocket.pause()
  await until('the end of the connection', () => exchange.stats().connections === 0)
  webSocket.resume()
  assert.equal(await closed, 1006)
})

test('a connection ends at its maximum age, after serverShutdown if configured', async (context) => {
  const limits = { connectionMaxAgeMs: 150, serverShutdownNoticeMs: 100 }
  const { closed, received } = await connect(context, await start(context, { limits }))
  assert.equal(await closed, 1001)
  assert.deepEqual(
    received.map(({ stream, data }) => [stream, data['e']]),
    [['!serverShutdown', 'serverShutdown']],
  )
})

test('events between a stop and a start are missing in streams, and complete over REST', async (context) => {
  const first = await start(context, FAST)
  const before = await connect(context, first, TRADES)
  await before.more(20)
  await first.close()
  const second = await start(context, FAST)
  const after = await connect(context, second, TRADES)
  await after.more(20)
  const sent = [...before.received, ...after.received].map(
    ({ data: { t: id, T: time, p: price, q: qty } }) => {
      return { id, time, price, qty }
    },
  )
  const from = Number(sent[0]?.id)
  const rows = await rowsOf(second, `historicalTrades?symbol=BTCUSDT&limit=1000&fromId=${from}`)
  assert.deepEqual(
    idsOf(rows),
    rows.map((_, index) => from + index),
  )
  const known = new Map(rows.map(({ id, time, price, qty }) => [id, { id, time, price, qty }]))
  for (const trade of sent) assert.deepEqual(known.get(trade.id), trade)
})

test('data of different markets has different sources', async (context) => {
  const exchange = await start(context)
  const { source } = await connect(context, exchange)
  assert.deepEqual([source, exchange.source], ['simulated', 'simulated'])
  assert.equal((await start(context, { seed: 7 })).source, 'simulated:seed=7,rate=300')
  assert.equal((await start(context, { messagesPerSecond: 50 })).source, 'simulated:seed=1,rate=50')
  assert.equal((await start(context, { symbols: ['ETHUSDT', 'bnbusdt', 'BTCUSDT'] })).source, 'simulated')
  const { source: other } = await start(context, { symbols: ['BTCUSDT'] })
  assert.match(other, /^simulated:seed=1,rate=300,symbols=[0-9a-f]{8}$/)
})

test('waits for a port still used by an earlier exchange, and names one that stays in use', async (context) => {
  const holder = createServer().listen(0, '127.0.0.1')
  await once(holder, 'listening')
  const address = holder.address()
  assert(address !== null && typeof address === 'object')
  const { port } = address
  await assert.rejects(startSimulatedExchange({ port, portWaitMs: 250 }), (error) => {
    assert(isTapelineError(error, 'ENVIRONMENT'))
    assert.match(error.message, new RegExp(`Port ${port} .* in use`))
    return error.fix.includes('--port')
  })
  const starting = start(context, { port, portWaitMs: 10_000 })
  holder.close()
  assert.equal((await starting).wsUrl, `ws://127.0.0.1:${port}`)
})
