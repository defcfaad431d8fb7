import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { Spot } from '@binance/spot'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { get, startExchange } from './support/exchange-client.ts'
import { until } from './support/wait-for.ts'

const run = promisify(execFile)

test("the exchange's own connector for Node reads REST, a combined stream and a raw one", async (context) => {
  const exchange = await startSimulatedExchange({ messagesPerSecond: 300 })
  const client = new Spot({
    configurationRestAPI: { apiKey: 'key', basePath: exchange.restUrl },
    configurationWebsocketStreams: { wsURL: exchange.wsUrl },
  })
  const streams = await client.websocketStreams.connect()
  // In this order: otherwise it keeps reconnecting.
  context.after(async () => {
    await streams.disconnect()
    await exchange.close()
  })
  const { symbols } = await (await client.restAPI.exchangeInfo({ symbol: 'BTCUSDT' })).data()
  assert.equal(symbols?.[0]?.symbol, 'BTCUSDT')
  const recent = await (await client.restAPI.getTrades({ symbol: 'BTCUSDT', limit: 3 })).data()
  const fromId = Number(recent[0]?.id)
  const older = await (await client.restAPI.historicalTrades({ symbol: 'BTCUSDT', limit: 3, fromId })).data()
  assert.deepEqual(older, recent)
  assert.equal((await (await client.restAPI.aggTrades({ symbol: 'BTCUSDT', limit: 3 })).data()).length, 3)
  const received: Array<string | undefined> = []
  streams.trade({ symbol: 'btcusdt' }).on('message', ({ e, s }) => void received.push(`${e} ${s}`))
  streams.bookTicker({ symbol: 'ethusdt' }).on('message', ({ s }) => void received.push(s))
  await until('a trade and a quote', () => received.includes('trade BTCUSDT') && received.includes('ETHUSDT'))
})

test('answers an unknown path with JSON, and sends raw streams without the envelope', async (context) => {
  const exchange = await startExchange(context)
  const { status, body } = await get(`${exchange.restUrl}/api/v3/klines?symbol=BTCUSDT`)
  assert.equal(status, 404)
  assert.deepEqual(body, { code: -5000, msg: 'Path /api/v3/klines, Method GET is invalid' })
  const socket = new WebSocket(`${exchange.wsUrl}/ws/btcusdt@trade/btcusdt%40bookTicker`)
  context.after(() => socket.close())
  const received: Array<Record<string, unknown>> = []
  socket.onmessage = ({ data }) => received.push(JSON.parse(String(data)))
  await until('a trade and a quote', () =>
    [received.some(({ e }) => e === 'trade'), received.some(({ u }) => u !== undefined)].every(Boolean),
  )
  assert.ok(received.every(({ stream }) => stream === undefined))
  const ask = (method: string, params: unknown[]) => socket.send(JSON.stringify({ method, params, id: 7 }))
  const answers = () => received.filter(({ id }) => id === 7).map(({ result }) => result)
  ask('GET_PROPERTY', ['combined'])
  await until('the answer about combined streams', () => answers().length === 1)
  ask('SET_PROPERTY', ['combined', true])
  await until('frames in the envelope', () => received.some(({ stream }) => stream === 'btcusdt@trade'))
  assert.deepEqual(answers(), [false, null])
})

const needed = 'set TAPELINE_TEST_CLIENTS=1; it needs Python and pip'
const python = process.env['TAPELINE_TEST_CLIENTS'] === undefined ? needed : false

for (const [name, script] of [
  ['python-binance', 'python_binance.py'],
  ['binance-connector', 'binance_connector.py'],
  ['ccxt', 'ccxt_client.py'],
] as const) {
  test(`${name} for Python runs unmodified`, { skip: python }, async (context) => {
    const folder = mkdtempSync(join(tmpdir(), 'tapeline-client-'))
    await run('python3', ['-m', 'venv', folder])
    await run(join(folder, 'bin', 'pip'), ['install', '-q', name])
    const exchange = await startSimulatedExchange({ messagesPerSecond: 300 })
    context.after(() => exchange.close())
    const file = join(import.meta.dirname, 'clients', script)
    const urls = [exchange.restUrl, exchange.wsUrl]
    const { stdout } = await run(join(folder, 'bin', 'python'), [file, ...urls], { timeout: 120_000 })
    assert.match(stdout, new RegExp(`^${name}: well$`, 'm'))
  })
}
