import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { exchangeDirectory, exchangeName } from '../src/sandbox/up/data-directory.ts'
import { exchangeText } from '../src/sandbox/up/display/display-lines.ts'
import { otherExchangeUrl } from '../src/sandbox/up/exchange-identity.ts'
import { startTapeline } from './support/processes.ts'
import { startScriptedExchange } from './support/scripted-exchange.ts'

const settingsFor = (url: string, venue?: string) =>
  loadSettings(
    { BINANCE_WS_URL: url, BINANCE_REST_URL: 'http://127.0.0.1:1', VENUE: venue },
    { cwd: '/nowhere' },
  )
const live = { kind: 'binance' } as const

const exchangeCalled = (name: string | null) => startScriptedExchange(() => {}, name)

test("does not store a simulated exchange's data with live data, or call it live, because of BINANCE_WS_URL", async (context) => {
  const exchange = await startSimulatedExchange({ seed: 7 })
  context.after(() => exchange.close())
  const settings = settingsFor(exchange.wsUrl)
  const name = await exchangeName(live, settings)
  assert.equal(name, exchange.source)
  assert.notEqual(exchangeDirectory('data', name).root, exchangeDirectory('data', 'binance').root)
  const text = exchangeText({ name, url: otherExchangeUrl(settings) })
  assert.match(text, new RegExp(`^a simulated exchange at ${exchange.wsUrl} .*, not Binance$`))
})

test('waits for an exchange that refuses the handshake for a while', async (context) => {
  const exchange = await startSimulatedExchange({ seed: 7 })
  context.after(() => exchange.close())
  exchange.faults.add({ kind: 'refuse', status: 451, retryAfterSeconds: 1, count: 2 })
  const said = context.mock.method(process.stderr, 'write', () => true)
  assert.equal(await exchangeName(live, settingsFor(exchange.wsUrl)), exchange.source)
  const lines = said.mock.calls.map(({ arguments: [line] }) => String(line))
  said.mock.restore()
  assert.equal(lines.filter((line) => /HTTP 451; next attempt/.test(line)).length, 1)
})

test('shows the address of an exchange without an identity, and does not check Binance itself', async () => {
  await using nameless = await exchangeCalled(null)
  const settings = settingsFor(nameless.wsUrl)
  await assert.rejects(exchangeName(live, settings), /announces no name, and its host is unknown/)
  const name = await exchangeName(live, settingsFor(nameless.wsUrl, 'binance-us'))
  assert.equal(name, 'binance-us')
  const text = exchangeText({ name, url: otherExchangeUrl(settings) })
  assert.equal(text, `binance-us at ${nameless.wsUrl}, live`)
  const unset = loadSettings({}, { cwd: '/nowhere' })
  assert.equal(otherExchangeUrl(unset), null)
  assert.equal(await exchangeName(live, unset), 'binance')
  assert.equal(exchangeText({ name: 'binance', url: null }), 'Binance, live')
})

test('creates no directory for an invalid exchange name', async () => {
  await using odd = await exchangeCalled('..')
  const refusal = { code: 'EXCHANGE', message: /unknown name, "\.\."/ }
  await assert.rejects(exchangeName(live, settingsFor(odd.wsUrl)), refusal)
})

test('reports that the exchange does not answer, before it starts anything', async () => {
  await using up = startTapeline(['up'], { env: { BINANCE_WS_URL: 'ws://127.0.0.1:1' } })
  await up.assertExit(1)
  assert.match(up.output(), /The exchange at ws:\/\/127\.0\.0\.1:1 does not answer: .*ECONNREFUSED/)
  assert.match(up.output(), /unset it to use Binance/)
})

test('refuses --faults for the real exchange', async () => {
  await using up = startTapeline(['up', '--faults'])
  await up.assertExit(2)
  assert.match(up.output(), /--faults requires --simulate or --replay/)
})
