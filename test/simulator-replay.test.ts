import assert from 'node:assert/strict'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { WebSocket } from 'ws'
import { isTapelineError } from '../src/foundation/runtime/errors.ts'
import { formatCaptureLine, parseCaptureLine } from '../src/sandbox/simulator/replay/capture-frames.ts'
import { type ReplayExchangeOptions, startReplayExchange } from '../src/sandbox/simulator/replay-exchange.ts'
import { connect, type Frame, get, idsOf, rowsOf, soon, TRADES } from './support/exchange-client.ts'
import { DEPTH_CAPTURE, NO_CAPTURE, NO_DEPTH_CAPTURE, REAL_CAPTURE } from './support/real-capture.ts'
import { VirtualClock } from './support/virtual-clock.ts'
import { until, within } from './support/wait-for.ts'

const START_NS = 1_723_161_568_000_000_000n

const tradeFrame = (id: number) =>
  `{"stream":"btcusdt@trade","data":{"e":"trade","E":${1_723_161_568_001 + id},"s":"BTCUSDT","t":${id},"p":"61694.01000000","q":"0.00300000","T":${1_723_161_568_000 + id},"m":true,"M":true}}`
const quoteFrame = (id: number) =>
  `{"stream":"ethusdt@bookTicker","data":{"u":${id},"s":"ETHUSDT","b":"2684.40000000","B":"8.27870000","a":"2684.41000000","A":"6.79690000"}}`

/** Lines `gapMs` apart. */
const linesOf = (frames: readonly string[], gapMs = 1) =>
  frames.map((frame, index) =>
    formatCaptureLine({ receivedNs: START_NS + BigInt(Math.round(index * gapMs * 1e6)), frame }),
  )

async function capture(name: string, content: string | Buffer): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tapeline-capture-'))
  const file = join(folder, name)
  await writeFile(file, content)
  return file
}

async function start(context: TestContext, options: ReplayExchangeOptions) {
  const exchange = await startReplayExchange(options)
  context.after(() => exchange.close())
  return exchange
}

function inputError(pattern: RegExp): (error: unknown) => boolean {
  return (error) => isTapelineError(error, 'INPUT') && error.fix !== '' && pattern.test(error.message)
}

const textsOf = (frames: readonly Frame[]) => frames.map(({ text }) => text)

test('a slow reader gets every frame once, in order, at any replay speed', async (context) => {
  const frames = Array.from({ length: 60_000 }, (_, id) => (id % 3 === 0 ? tradeFrame : quoteFrame)(id))
  const file = await capture('big.ndjson.gz', gzipSync(linesOf(frames).join(''), { level: 1 }))
  const exchange = await start(context, { file, speed: 'max' })
  const { webSocket, received } = await connect(context, exchange, 'btcusdt@trade/ethusdt@bookTicker')
  webSocket.pause()
  let previous = 0
  const standsStill = () => {
    const now = exchange.stats().framesSent
    const still = now > 0 && now === previous
    previous = now
    return still && now
  }
  const held = await until('the replay to wait', standsStill)
  assert(held < frames.length, 'the replay waits for its reader instead of buffering the file')
  webSocket.resume()
  await within(15_000, 'the end of the replay', () => exchange.finished)
  await until('all frames', () => received.length >= frames.length)
  assert.deepEqual(textsOf(received), frames)
  assert.equal(webSocket.readyState, WebSocket.OPEN)
})

test('the replay begins with the first subscription to a captured stream, keeps its pace, and sends only subscribed streams', async (context) => {
  const frames = Array.from({ length: 40 }, (_, id) => (id % 2 === 0 ? tradeFrame : quoteFrame)(id))
  const file = await capture('small.ndjson', linesOf(frames, 20).join(''))
  const clock = new VirtualClock()
  const exchange = await start(context, { file, speed: 2, clock })
  const other = await connect(context, exchange, 'bnbusdt@trade/BTCUSDT@trade')
  const { received } = await connect(context, exchange, TRADES)
  await until('20 frames', async () => {
    await clock.advance(10)
    return received.length === 20
  })
  assert(clock.monotonicMs() >= 380, '38 gaps of 20 ms at double speed')
  await within(5_000, 'the end of the replay', () => exchange.finished)
  assert.deepEqual(
    textsOf(received),
    frames.filter((_, index) => index % 2 === 0),
  )
  assert.deepEqual(other.received, [])
  const late = await connect(context, exchange, TRADES)
  await late.request({ method: 'LIST_SUBSCRIPTIONS', id: 1 })
  assert.deepEqual(textsOf(late.received), ['{"result":["btcusdt@trade"],"id":1}'])
})

test('REST has the trades that the replay has passed, and no later ones', async (context) => {
  const frames = [...Array.from({ length: 10 }, (_, index) => tradeFrame(100 + index)), quoteFrame(1)]
  const lines = [
    ...linesOf(frames),
    formatCaptureLine({ receivedNs: START_NS + 3_600_000_000_000n, frame: tradeFrame(110) }),
  ]
  const file = await capture('position.ndjson', lines.join(''))
  const exchange = await start(context, { file })
  const rows = (query: string) => rowsOf(exchange, `historicalTrades?symbol=BTCUSDT&${query}`)
  assert.deepEqual(await rows('limit=500'), [])
  await (await connect(context, exchange, TRADES)).more(10)
  assert.deepEqual(idsOf(await rows('fromId=107')), [107, 108, 109])
  assert.deepEqual(idsOf(await rows('fromId=1&limit=2')), [100, 101])
  const [newest] = await rows('limit=1')
  assert.deepEqual([newest?.['id'], newest?.['quoteQty']], [109, '185.08203000'])
  const { body } = await get(`${exchange.restUrl}/api/v3/exchangeInfo`)
  assert.deepEqual(
    body.symbols.map((row: { symbol: string }) => row.symbol),
    ['BTCUSDT', 'ETHUSDT'],
  )
})

test('errors in a capture are reported with file and line before anything starts', async () => {
  const good = linesOf([tradeFrame(1)]).join('')
  const wrong: Array<[name: string, content: string | Buffer, expected: RegExp]> = [
    ['bare.ndjson', `${good}${tradeFrame(2)}\n`, /bare\.ndjson, line 2: the receive time .* missing/],
    ['cut.ndjson', `${good}1723161568764069662 {"stream":"btc\n`, /cut\.ndjson, line 2: .* not valid JSON/],
    ['cut.ndjson.gz', gzipSync(good).subarray(0, 60), /cut\.ndjson\.gz: the gzip file is damaged/],
    ['plain.ndjson.gz', good, /plain\.ndjson\.gz: .* not a gzip/],
    ['empty.ndjson', '', /empty\.ndjson: it has no frame/],
  ]
  for (const [name, content, expected] of wrong) {
    const file = await capture(name, content)
    await assert.rejects(startReplayExchange({ file }), inputError(expected))
  }
  await assert.rejects(
    startReplayExchange({ file: '/nowhere/x.ndjson' }),
    inputError(/x\.ndjson: there is no such file/),
  )
})

test('a bad line late in a capture ends the replay with its number, after all earlier frames', async (context) => {
  const frames = Array.from({ length: 1_500 }, (_, index) => tradeFrame(index))
  const file = await capture(
    'deep.ndjson',
    `${linesOf(frames).join('')}no capture line\n${linesOf([tradeFrame(1_500)])}`,
  )
  const exchange = await start(context, { file, speed: 'max' })
  const { received } = await connect(context, exchange, TRADES)
  await assert.rejects(
    within(5_000, 'the error', () => exchange.finished),
    inputError(/line 1501: /),
  )
  await soon('all frames', () => received.length >= 1_500)
  assert.deepEqual(textsOf(received), frames)
})

test('the source identifies the capture by its content', async (context) => {
  const file = await capture('a b.ndjson', linesOf([tradeFrame(1)]).join(''))
  const other = await capture('a b.ndjson', linesOf([tradeFrame(2)]).join(''))
  const { source } = await start(context, { file })
  assert.match(source, /^replay:a%20b\.ndjson:[0-9a-f]{12}$/)
  assert.notEqual((await start(context, { file: other })).source, source)
})

test('a line written by capture is read back unchanged', () => {
  const line = { receivedNs: START_NS + 7n, frame: tradeFrame(1) }
  assert.equal(formatCaptureLine(line), `1723161568000000007 ${tradeFrame(1)}\n`)
  assert.deepEqual(parseCaptureLine(formatCaptureLine(line).trimEnd()), line)
  assert.equal(parseCaptureLine(tradeFrame(1)), undefined)
})

test('a minute of real market data replays completely', { skip: NO_CAPTURE }, async (context) => {
  const exchange = await start(context, { file: REAL_CAPTURE, speed: 'max' })
  const streams = ['btcusdt', 'ethusdt'].flatMap((symbol) => [`${symbol}@trade`, `${symbol}@bookTicker`])
  const { received } = await connect(context, exchange, streams.join('/'))
  await within(15_000, 'the end of the replay', () => exchange.finished)
  await soon('all frames', () => received.length >= 14_273)
  assert.equal(received.length, 14_273)
  assert.equal(received.filter(({ stream }) => stream?.endsWith('@trade')).length, 2_800)
})

test('a replay serves the order book of its snapshot and diffs', {
  skip: NO_DEPTH_CAPTURE,
}, async (context) => {
  const exchange = await start(context, { file: DEPTH_CAPTURE, speed: 'max' })
  const depth = 'btcusdt@depth@100ms'
  const client = await connect(context, exchange, `${depth}/btcusdt@bookTicker`)
  await exchange.finished
  await client.request({ method: 'LIST_SUBSCRIPTIONS', id: 1 })
  assert.equal(client.frames(depth).length, 3_451)
  const url = `${exchange.restUrl}/api/v3/depth?symbol=BTCUSDT&limit=5000`
  const { body } = await get(url)
  const last = Number(client.frames(depth).at(-1)?.data['u'])
  assert.equal(body.lastUpdateId, last)
  const quote = client.frames('btcusdt@bookTicker').findLast(({ data }) => Number(data['u']) <= last)
  const best = ['b', 'B', 'a', 'A'].map((name) => quote?.data[name])
  assert.deepEqual([...body.bids[0], ...body.asks[0]], best)
  assert.equal((await get(url.replace('BTCUSDT', 'ETHUSDT'))).status, 400)
})
