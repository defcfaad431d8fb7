import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { type WebSocket, WebSocketServer } from 'ws'
import { partitionOf } from '../src/foundation/kafka/partition-map.ts'
import { type KafkaBroker, startKafkaBroker } from '../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../src/sandbox/kafka-broker/kafka-distribution.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createTestTopics, type TestTopics, uniqueTopics } from './support/kafka.ts'
import { markValue, produce, readTopic } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { startIngestionProcess } from './support/services.ts'
import { waitFor } from './support/wait-for.ts'

const FAST = { BACKOFF_INITIAL_MS: '100', BACKOFF_MAX_MS: '500' }

let topics: TestTopics
let exchange: Exchange

beforeEach(async () => {
  topics = await createTestTopics({ prefix: 'ingestion' })
  exchange = await startSimulatedExchange({ messagesPerSecond: 600 })
})

afterEach(async () => {
  await exchange.close()
  await topics.delete()
})

const exchangeEnv = (at: Pick<Exchange, 'wsUrl' | 'restUrl'> = exchange) => ({
  BINANCE_WS_URL: at.wsUrl,
  BINANCE_REST_URL: at.restUrl,
})

/** A test server for frames that the built-in exchange does not send. */
async function scripted(onConnection: (socket: WebSocket, connection: number) => void) {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
  let connections = 0
  server.on('connection', (socket, request) => {
    // The first connection has no streams: it only checks the exchange's identity.
    if (request.url?.includes('streams=') === true) onConnection(socket, ++connections)
  })
  server.on('headers', (headers) => headers.push('x-tapeline-source: scripted'))
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  return {
    env: {
      BINANCE_WS_URL: `ws://127.0.0.1:${port}`,
      BINANCE_REST_URL: 'http://127.0.0.1:1',
      TIME_UNIT: 'millisecond',
    },
    connections: () => connections,
    async close() {
      for (const client of server.clients) client.terminate()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const TRADE = (t: number) =>
  `{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":${t},"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}`

test("keeps the exchange's bytes, and each symbol in its partition in the order of receipt, without missing ids", async () => {
  await using ingestion = await startIngestionProcess({ ...topics.env, ...exchangeEnv(), ...FAST })
  await ingestion.ready()
  await waitFor(async () => (await ingestion.status()).counters.acknowledged > 1500, {
    timeoutMs: 20_000,
    what: '1,500 messages',
  })
  await ingestion.stop()

  const trades = await readTopic(topics.env.KAFKA_TRADES_TOPIC)
  const quotes = await readTopic(topics.env.KAFKA_BOOK_TICKER_TOPIC)
  assert.ok(trades.length > 100 && quotes.length > 500)
  const lastId = new Map<string, number>()
  const lastUs = new Map<number, number>()
  for (const { partition, key, value, headers } of [...trades, ...quotes]) {
    const text = value?.toString() ?? ''
    const data = JSON.parse(text)
    assert.equal(key, data.s)
    assert.equal(partition, partitionOf(data.s, 3))
    assert.equal(headers['schema'], data.e === undefined ? 'bookTicker/1' : `${data.e}/2`)
    assert.match(text, /^\{("e"|"u").*,"ingestion_timestamp":\d{13},"ingestion_timestamp_us":\d{16}\}$/)
    const stream = `${key} ${data.e ?? 'bookTicker'}`
    const id = data.e === 'trade' ? data.t : (data.a ?? 0)
    const expected = data.e === undefined ? undefined : lastId.get(stream)
    if (expected !== undefined) assert.equal(id, expected + 1, `${stream} continues`)
    lastId.set(stream, id)
  }
  for (const { partition, value } of trades) {
    const us = JSON.parse(String(value)).ingestion_timestamp_us
    assert.ok(us > (lastUs.get(partition) ?? 0), 'strictly increasing within a partition')
    lastUs.set(partition, us)
  }
})

test('counts control frames, unknown streams and new fields, and stores a rejected frame in the dead letters', async () => {
  const server = await scripted((socket) => {
    for (const frame of [
      TRADE(1),
      '{"result":null,"id":1}',
      '{"code":2,"msg":"Invalid request","id":2}',
      '{"stream":"btcusdt@depth","data":{"e":"depthUpdate"}}',
      TRADE(2).replace('"M":true', '"M":true,"new":{"deep":[1]}'),
      TRADE(3).replace('"61837.63000000"', '"NaN"'),
      'garbage',
    ]) {
      socket.send(frame)
    }
  })
  try {
    await using ingestion = await startIngestionProcess({
      ...topics.env,
      ...server.env,
      ...FAST,
      SYMBOLS: 'BTCUSDT',
    })
    await waitFor(async () => (await ingestion.status()).counters.received === 7, {
      timeoutMs: 20_000,
      what: 'seven frames',
    })
    const { counters, ignoredByReason, rejectedByReason, ready, reason, rejectedStreams } =
      await ingestion.status()
    assert.deepEqual(
      [counters.forwarded, counters.control, counters.ignored, counters.rejected],
      [2, 2, 1, 2],
    )
    assert.deepEqual(ignoredByReason, { 'stream type not taken': 1 })
    assert.deepEqual(rejectedByReason, { 'p is not a decimal': 1, 'not JSON': 1 })
    assert.equal(ready, false)
    assert.match(
      reason,
      /^34 % of the frames of btcusdt@trade in the last minute were rejected, .*: p is not a decimal$/,
    )
    assert.deepEqual(
      rejectedStreams.map(({ stream, reason: why }) => [stream, why]),
      [
        ['btcusdt@trade', 'p is not a decimal'],
        ['', 'not JSON'],
      ],
    )
    assert.match(ingestion.command.output(), /Rejected 1 frame, .*p is not a decimal/)
    assert.match(ingestion.command.output(), /Rejected 1 frame, .*not JSON/)
    await ingestion.stop()
    assert.match(
      String((await readTopic(topics.env.KAFKA_TRADES_TOPIC))[1]?.value),
      /"new":\{"deep":\[1\]\},"ingestion_timestamp"/,
    )
    const letters = await readTopic(topics.env.KAFKA_DEAD_LETTERS_TOPIC)
    assert.deepEqual(
      letters.map(({ value, headers }) => [String(value).slice(0, 7), headers['origin'], headers['reason']]),
      [
        ['{"strea', 'ingestion', 'p is not a decimal'],
        ['garbage', 'ingestion', 'not JSON'],
      ],
    )
  } finally {
    await server.close()
  }
})

test('reconnects after the exchange has closed the connection, immediately if announced, and reports it in its health', async () => {
  const sockets: WebSocket[] = []
  const server = await scripted((socket, connection) => {
    sockets.push(socket)
    socket.send(TRADE(connection))
  })
  try {
    await using ingestion = await startIngestionProcess({
      ...topics.env,
      ...server.env,
      BACKOFF_INITIAL_MS: '2000',
      BACKOFF_MAX_MS: '2000',
      SYMBOLS: 'BTCUSDT',
    })
    await ingestion.ready()
    sockets[0]?.send('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}')
    await waitFor(() => server.connections() === 2, {
      timeoutMs: 900,
      what: 'a second connection, without a wait',
    })
    sockets[0]?.terminate()
    await waitFor(async () => (await ingestion.status()).connections.length === 1, {
      timeoutMs: 2000,
      what: 'the new connection to take over',
    })
    assert.equal((await ingestion.status()).rollovers, 0, 'the old one had died')
    assert.equal((await fetch(ingestion.url)).status, 200, 'without an interruption')
    sockets[1]?.terminate()
    await waitFor(async () => (await fetch(ingestion.url)).status === 503, {
      timeoutMs: 2000,
      what: 'health to flip',
    })
    assert.match((await ingestion.status()).reason, /1 of 1 connections to the exchange are down/)
    await waitFor(() => server.connections() === 3, { timeoutMs: 10_000, what: 'a third connection' })
    await ingestion.ready()
    await ingestion.stop()
  } finally {
    await server.close()
  }
})

test('stops reading while Kafka is down and the queue is full, and delivers all queued messages in order when Kafka returns', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-kafka-'))
  const cacheDir = process.env['TAPELINE_CACHE_DIR'] ?? assert.fail('run through npm test')
  const distributionDir = await ensureKafkaDistribution({ cacheDir })
  const port = await freePort()
  const start = () => startKafkaBroker({ distributionDir, dataDir: folder, port, onProgress: () => {} })
  let broker: KafkaBroker = await start()
  let sent = 0
  const server = await scripted((socket) => {
    const timer = setInterval(() => {
      for (let i = 0; i < 200; i++) socket.send(TRADE(++sent))
    }, 20)
    socket.on('close', () => clearInterval(timer))
  })
  try {
    const env = { ...topics.env, KAFKA_BROKERS: broker.brokers }
    await startTapeline(['topics', 'init'], { env }).assertExit(0)
    await using ingestion = await startIngestionProcess({
      ...env,
      ...server.env,
      ...FAST,
      SYMBOLS: 'BTCUSDT',
      KAFKA_QUEUE_MAX_BYTES: String(1 << 20),
    })
    await ingestion.ready()
    await broker.stop()
    await waitFor(async () => (await ingestion.status()).connections[0]?.state === 'paused', {
      timeoutMs: 20_000,
      what: 'the socket to be paused',
    })
    const { queueBytes } = await ingestion.status()
    assert.ok(queueBytes < (1 << 20) + (1 << 18), `the queue holds ${queueBytes} bytes`)
    await waitFor(async () => (await fetch(ingestion.url)).status === 503, {
      timeoutMs: 20_000,
      what: 'health to flip',
    })
    broker = await start()
    await waitFor(async () => (await ingestion.status()).counters.queued < 1000, {
      timeoutMs: 30_000,
      what: 'the queue to empty',
    })
    await ingestion.ready()
    const { counters } = await ingestion.status()
    assert.equal(counters.forwarded, counters.acknowledged + counters.queued + counters.inFlight)
    await ingestion.stop()
    const messages = await readTopic(topics.env.KAFKA_TRADES_TOPIC, [broker.brokers])
    const ids = messages.map(({ value }): number => JSON.parse(String(value)).t)
    assert.ok(ids.length >= counters.forwarded)
    for (const [index, id] of ids.entries())
      assert.ok(index === 0 || id > (ids[index - 1] ?? 0), `${id} is in its place`)
  } finally {
    await server.close()
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  }
})

test('C9 refuses topics with data of another source', async () => {
  await produce(topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('binance', topics.env)])
  await using ingestion = await startIngestionProcess({ ...topics.env, ...exchangeEnv(), ...FAST })
  await ingestion.command.assertExit(1, 20_000)
  assert.match(
    ingestion.command.output(),
    /These Kafka topics hold data of \\"binance\\", not of \\"simulated/,
  )
  assert.deepEqual(await readTopic(topics.env.KAFKA_TRADES_TOPIC), [])
})

test('C9 refuses checkpoints of other topics', async () => {
  const other = { ...topics.env, KAFKA_TRADES_TOPIC: 'other.trades' }
  const { source } = exchange
  await produce(topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue(source, other)])
  await using ingestion = await startIngestionProcess({ ...topics.env, ...exchangeEnv(), ...FAST })
  await ingestion.command.assertExit(1, 20_000)
  const { KAFKA_TRADES_TOPIC: trades, KAFKA_CHECKPOINTS_TOPIC: checkpoints } = topics.env
  assert.match(
    ingestion.command.output(),
    new RegExp(`The checkpoints in ${checkpoints} belong to other\\.trades, not to ${trades}`),
  )
  assert.match(ingestion.command.output(), /Set KAFKA_CHECKPOINTS_TOPIC to another topic/)
  assert.deepEqual(await readTopic(trades), [])
})

test('C9 refuses an unidentified exchange before it writes anything', async () => {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
  await once(server, 'listening')
  const address = server.address()
  assert(address !== null && typeof address === 'object')
  const url = `ws://127.0.0.1:${address.port}`
  try {
    await using ingestion = await startIngestionProcess({
      ...topics.env,
      ...exchangeEnv(),
      ...FAST,
      BINANCE_WS_URL: url,
    })
    await ingestion.command.assertExit(2, 20_000)
    assert.match(ingestion.command.output(), /announces no name, and its host is unknown/)
    assert.match(ingestion.command.output(), /Set VENUE to the name of the exchange/)
    assert.deepEqual(await readTopic(topics.env.KAFKA_CHECKPOINTS_TOPIC), [])
  } finally {
    for (const client of server.clients) client.terminate()
    server.close()
  }
})

test('names a symbol that does not trade instead of silently waiting for it', async () => {
  await using ingestion = await startIngestionProcess({
    ...topics.env,
    ...exchangeEnv(),
    ...FAST,
    SYMBOLS: 'BTCUSDT,BTCUSTD',
  })
  await ingestion.command.assertExit(1, 20_000)
  assert.match(ingestion.command.output(), /Not spot symbols of .*: BTCUSTD/)
})

test('reports how much was left when it is stopped while Kafka is down', async () => {
  const server = await scripted((socket) => socket.send(TRADE(1)))
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-kafka-'))
  const cacheDir = process.env['TAPELINE_CACHE_DIR'] ?? assert.fail('run through npm test')
  const broker = await startKafkaBroker({
    distributionDir: await ensureKafkaDistribution({ cacheDir }),
    dataDir: folder,
    port: 0,
    onProgress: () => {},
  })
  try {
    const env = { ...topics.env, KAFKA_BROKERS: broker.brokers }
    await startTapeline(['topics', 'init'], { env }).assertExit(0)
    await using ingestion = await startIngestionProcess({
      ...env,
      ...server.env,
      ...FAST,
      SYMBOLS: 'BTCUSDT',
      KAFKA_LINGER_MS: '3000',
    })
    await waitFor(async () => (await ingestion.status()).counters.queued === 1, {
      timeoutMs: 20_000,
      what: 'a message in the queue',
    })
    await broker.stop()
    ingestion.command.signal('SIGTERM')
    await ingestion.command.assertExit(1, 12_000)
    assert.match(ingestion.command.output(), /1 message received but not acknowledged by Kafka/)
  } finally {
    await server.close()
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  }
})

test('reports missing topics with the fix, and stops immediately at shutdown', async () => {
  const missing = uniqueTopics('missing')
  await using ingestion = await startIngestionProcess({ ...missing.env, ...exchangeEnv(), ...FAST })
  await ingestion.command.waitForLine(/tapeline topics init/, 20_000)
  assert.match((await ingestion.status()).reason, /A topic is missing on the broker/)
  await ingestion.stop()
})
