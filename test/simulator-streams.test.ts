import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { type TestContext, test } from 'node:test'
import { WebSocket } from 'ws'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import {
  type SimulatedExchangeOptions,
  startSimulatedExchange,
} from '../src/sandbox/simulator/simulated-exchange.ts'
import { until, waitFor } from './support/wait-for.ts'

const FAST = { messagesPerSecond: 2_000, symbols: ['BTCUSDT', 'BNBUSDT'] }

interface Frame {
  readonly stream?: string
  readonly data?: { readonly [key: string]: unknown }
  readonly [key: string]: unknown
}

async function start(context: TestContext, options: SimulatedExchangeOptions = {}) {
  const exchange = await startSimulatedExchange(options)
  context.after(() => exchange.close())
  return exchange
}

/** A client with everything it has received; closed after the test. */
async function connect(context: TestContext, wsUrl: string, path = '/stream') {
  const webSocket = new WebSocket(`${wsUrl}${path}`)
  context.after(() => webSocket.terminate())
  const received: Frame[] = []
  webSocket.on('message', (data) => received.push(JSON.parse(data.toString())))
  const [response] = await Promise.all([
    once(webSocket, 'upgrade').then(([value]) => value),
    once(webSocket, 'open'),
  ])
  const until = <Result>(what: string, condition: () => Result) =>
    waitFor(condition, { timeoutMs: 10_000, what, everyMs: 5 })
  return {
    webSocket,
    received,
    source: response.headers['x-tapeline-source'],
    until,
    frames: (stream: string) => received.filter((frame) => frame.stream === stream),
    closed: once(webSocket, 'close').then(([code]) => Number(code)),
    async request(message: object | string) {
      const answers = () => received.filter((frame) => frame.stream === undefined)
      const before = answers().length
      webSocket.send(typeof message === 'string' ? message : JSON.stringify(message))
      return until('an answer', () => answers()[before])
    },
  }
}

test('streams of the URL and subscribed streams arrive, unsubscribed ones are silent', async (context) => {
  const { wsUrl } = await start(context, FAST)
  const client = await connect(context, wsUrl, '/stream?streams=btcusdt@trade/bnbusdt@bookTicker')
  await client.until(
    'trades and quotes',
    () => client.frames('btcusdt@trade').length > 5 && client.frames('bnbusdt@bookTicker').length > 5,
  )

  const subscribe = {
    method: 'SUBSCRIBE',
    params: ['btcusdt@aggTrade', 'BTCUSDT@bookTicker', 'nope@trade'],
    id: 1,
  }
  assert.deepEqual(await client.request(subscribe), { result: null, id: 1 })
  await client.until('aggTrades', () => client.frames('btcusdt@aggTrade').length > 5)
  const everySubscription = [
    'btcusdt@trade',
    'bnbusdt@bookTicker',
    'btcusdt@aggTrade',
    'BTCUSDT@bookTicker',
    'nope@trade',
  ]
  assert.deepEqual(await client.request({ method: 'LIST_SUBSCRIPTIONS', id: 'mine' }), {
    result: everySubscription,
    id: 'mine',
  })

  assert.deepEqual(await client.request({ method: 'UNSUBSCRIBE', params: ['btcusdt@trade'], id: 3 }), {
    result: null,
    id: 3,
  })
  const before = client.frames('btcusdt@trade').length
  const aggTrades = client.frames('btcusdt@aggTrade').length
  await client.until('more aggTrades', () => client.frames('btcusdt@aggTrade').length > aggTrades + 20)
  assert.equal(client.frames('btcusdt@trade').length, before)
  const streams = new Set(client.received.map((frame) => frame.stream))
  assert.deepEqual(streams, new Set(['btcusdt@trade', 'bnbusdt@bookTicker', 'btcusdt@aggTrade', undefined]))
})

test('answers invalid requests as the exchange does, outside the envelope', async (context) => {
  const { wsUrl } = await start(context, { limits: { incomingPerSecond: 100 } })
  const { request } = await connect(context, wsUrl)
  assert.deepEqual(await request('{'), { code: 3, msg: 'Invalid JSON: expected value at line 1 column 1' })
  assert.deepEqual(await request({ method: 'GET_PROPERTY', params: ['nope'], id: 7 }), {
    code: 0,
    msg: 'Unknown property',
    id: 7,
  })
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
  const { wsUrl } = await start(context)
  const { webSocket, closed, received } = await connect(context, wsUrl)
  for (let id = 1; id <= 6; id++) webSocket.send(JSON.stringify({ method: 'LIST_SUBSCRIPTIONS', id }))
  assert.equal(await closed, 1008)
  assert.equal(received.length, 5)
})

test('every client gets times in the unit of its URL', async (context) => {
  const { wsUrl } = await start(context, FAST)
  const stream = 'btcusdt@trade'
  const inUnit = (unit: string) => connect(context, wsUrl, `/stream?streams=${stream}&timeUnit=${unit}`)
  const us = await inUnit('microsecond')
  const ms = await inUnit('MILLISECOND')
  const usAgain = await inUnit('MICROSECOND')
  const all = [us, ms, usAgain]
  await us.until('trades of all', () => all.every((client) => client.frames(stream).length > 20))
  const dataOf = ({ data }: Frame) => Object(data)
  const byId = new Map(us.frames(stream).map((frame) => [dataOf(frame).t, dataOf(frame)]))
  const pairs = ms.frames(stream).flatMap((frame) => {
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
  const { wsUrl, stats } = await start(context, {
    limits: { pingIntervalMs: 20, pongTimeoutMs: 100, incomingPerSecond: 1_000 },
  })
  const deaf = new WebSocket(`${wsUrl}/stream`, { autoPong: false })
  context.after(() => deaf.terminate())
  const deafClosed = once(deaf, 'close')
  const { webSocket } = await connect(context, wsUrl)
  let pings = 0
  webSocket.on('ping', (payload) => {
    assert.match(payload.toString(), /^\d{13}$/)
    pings++
  })
  assert.equal((await deafClosed)[0], 1006)
  await until('ten pings', () => pings > 10, 5_000)
  assert.equal(stats().connections, 1)
})

test('disconnects a client that does not read before its backlog fills the memory', async (context) => {
  const { wsUrl, stats } = await start(context, {
    messagesPerSecond: 50_000,
    symbols: ['BTCUSDT'],
    limits: { bufferedMaxBytes: 100_000 },
  })
  const { webSocket, closed } = await connect(
    context,
    wsUrl,
    '/stream?streams=btcusdt@trade/btcusdt@bookTicker',
  )
  webSocket.pause()
  await until('the end of the connection', () => stats().connections === 0)
  webSocket.resume()
  assert.equal(await closed, 1006)
})

test('a connection ends at its maximum age, after serverShutdown if configured', async (context) => {
  const { wsUrl } = await start(context, {
    limits: { connectionMaxAgeMs: 150, serverShutdownNoticeMs: 100 },
  })
  const { closed, received } = await connect(context, wsUrl)
  assert.equal(await closed, 1001)
  assert.deepEqual(
    received.map(({ stream, data }) => [stream, data?.['e']]),
    [['!serverShutdown', 'serverShutdown']],
  )
})

test('events between a stop and a start are missing in streams, and complete over REST', async (context) => {
  const path = '/stream?streams=btcusdt@trade'
  const first = await start(context, FAST)
  const before = await connect(context, first.wsUrl, path)
  await before.until('trades', () => before.received.length > 20)
  await first.close()
  const second = await start(context, FAST)
  const after = await connect(context, second.wsUrl, path)
  await after.until('trades', () => after.received.length > 20)

  const sent = [...before.received, ...after.received].map(({ data }) => ({
    id: data?.['t'],
    time: data?.['T'],
    price: data?.['p'],
    qty: data?.['q'],
  }))
  const response = await fetch(
    `${second.restUrl}/api/v3/historicalTrades?symbol=BTCUSDT&limit=1000&fromId=${sent[0]?.id}`,
  )
  const rows: ReadonlyArray<Record<string, unknown>> = JSON.parse(await response.text())
  assert.deepEqual(
    rows.map(({ id }) => id),
    rows.map((_, index) => Number(sent[0]?.id) + index),
  )
  const known = new Map(rows.map(({ id, time, price, qty }) => [id, { id, time, price, qty }]))
  for (const trade of sent) assert.deepEqual(known.get(trade.id), trade)
})

test('data of different markets has different sources', async (context) => {
  const exchange = await start(context)
  const { source } = await connect(context, exchange.wsUrl)
  assert.deepEqual([source, exchange.source], ['simulated', 'simulated'])
  assert.equal((await start(context, { seed: 7 })).source, 'simulated:seed=7,rate=300')
  assert.equal((await start(context, { messagesPerSecond: 50 })).source, 'simulated:seed=1,rate=50')
  assert.equal((await start(context, { symbols: ['ETHUSDT', 'bnbusdt', 'BTCUSDT'] })).source, 'simulated')
  assert.match(
    (await start(context, { symbols: ['BTCUSDT'] })).source,
    /^simulated:seed=1,rate=300,symbols=[0-9a-f]{8}$/,
  )
})

test('waits for a port still used by an earlier exchange, and names one that stays in use', async (context) => {
  const holder = createServer().listen(0, '127.0.0.1')
  await once(holder, 'listening')
  const address = holder.address()
  assert(address !== null && typeof address === 'object')
  const { port } = address
  await assert.rejects(startSimulatedExchange({ port, portWaitMs: 250 }), (error) => {
    assert(error instanceof TapelineError)
    assert.equal(error.code, 'ENVIRONMENT')
    assert.match(error.message, new RegExp(`Port ${port} .* in use`))
    return error.fix.includes('--port')
  })
  const starting = start(context, { port, portWaitMs: 10_000 })
  holder.close()
  assert.equal((await starting).wsUrl, `ws://127.0.0.1:${port}`)
})
