import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { partitionOf } from '../src/foundation/kafka/partition.ts'
import { columns } from './support/columns.ts'
import { createIngestionParts, type IngestionParts } from './support/ingestion-parts.ts'
import { uniqueTopics } from './support/kafka.ts'
import { markValue, produce, readTopic } from './support/messages.ts'
import { startOwnBroker } from './support/own-broker.ts'
import { startTapeline } from './support/processes.ts'
import { startScriptedExchange, tradeFrame } from './support/scripted-exchange.ts'
import { untilAcknowledged } from './support/services.ts'
import { until } from './support/wait-for.ts'

let parts: IngestionParts

beforeEach(async () => {
  parts = await createIngestionParts({ messagesPerSecond: 600 })
})

afterEach(() => parts[Symbol.asyncDispose]())

test("keeps the exchange's bytes, and each symbol in its partition in the order of receipt, without missing ids", async () => {
  await using ingestion = await parts.ingest()
  await ingestion.ready()
  await untilAcknowledged(ingestion, 1500)
  await ingestion.stop()

  const trades = await readTopic(parts.topics.env.KAFKA_TRADES_TOPIC)
  const quotes = await readTopic(parts.topics.env.KAFKA_BOOK_TICKER_TOPIC)
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
  await using server = await startScriptedExchange((socket) => {
    for (const frame of [
      tradeFrame(1),
      '{"result":null,"id":1}',
      '{"code":2,"msg":"Invalid request","id":2}',
      '{"stream":"btcusdt@depth","data":{"e":"depthUpdate"}}',
      tradeFrame(2).replace('"M":true', '"M":true,"new":{"deep":[1]}'),
      tradeFrame(3).replace('"61837.63000000"', '"NaN"'),
      'garbage',
    ]) {
      socket.send(frame)
    }
  })
  await using ingestion = await parts.ingest(server.env)
  await until('seven frames', async () => (await ingestion.status()).counters.received === 7)
  const { counters, ignoredByReason, rejectedByReason, ready, reason, rejectedStreams } =
    await ingestion.status()
  assert.deepEqual([counters.forwarded, counters.control, counters.ignored, counters.rejected], [2, 2, 1, 2])
  assert.deepEqual(ignoredByReason, { 'stream type not taken': 1 })
  assert.deepEqual(rejectedByReason, { 'p is not a decimal': 1, 'not JSON': 1 })
  assert.equal(ready, false)
  const problem = /^34 % of the frames of btcusdt@trade in the last minute were .*: p is not a decimal$/
  assert.match(reason, problem)
  assert.deepEqual(columns(rejectedStreams, 'stream', 'reason'), [
    ['btcusdt@trade', 'p is not a decimal'],
    ['', 'not JSON'],
  ])
  assert.match(ingestion.command.output(), /Rejected 1 frame, .*p is not a decimal/)
  assert.match(ingestion.command.output(), /Rejected 1 frame, .*not JSON/)
  await ingestion.stop()
  const [, second] = await readTopic(parts.topics.env.KAFKA_TRADES_TOPIC)
  assert.match(String(second?.value), /"new":\{"deep":\[1\]\},"ingestion_timestamp"/)
  const letters = await readTopic(parts.topics.env.KAFKA_DEAD_LETTERS_TOPIC)
  assert.deepEqual(
    letters.map(({ value, headers }) => [String(value).slice(0, 7), headers['origin'], headers['reason']]),
    [
      ['{"strea', 'ingestion', 'p is not a decimal'],
      ['garbage', 'ingestion', 'not JSON'],
    ],
  )
})

test('reconnects after the exchange has closed the connection, immediately if announced, and reports it in its health', async () => {
  await using server = await startScriptedExchange((socket, connection) =>
    socket.send(tradeFrame(connection)),
  )
  const backoff = { BACKOFF_INITIAL_MS: '2000', BACKOFF_MAX_MS: '2000' }
  await using ingestion = await parts.ingest({ ...server.env, ...backoff })
  await ingestion.ready()
  server.sockets[0]?.send('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}')
  await until('a second connection, without a wait', () => server.sockets.length === 2, 900)
  server.sockets[0]?.terminate()
  await until(
    'the new connection to take over',
    async () => (await ingestion.status()).connections.length === 1,
    2000,
  )
  assert.equal((await ingestion.status()).rollovers, 0, 'the old one had died')
  assert.equal((await fetch(ingestion.url)).status, 200, 'without an interruption')
  server.sockets[1]?.terminate()
  await until('health to flip', async () => (await fetch(ingestion.url)).status === 503, 2000)
  assert.match((await ingestion.status()).reason, /1 of 1 connections to the exchange are down/)
  await until('a third connection', () => server.sockets.length === 3)
  await ingestion.ready()
  await ingestion.stop()
})

test('stops reading while Kafka is down and the queue is full, and delivers all queued messages in order when Kafka returns', async () => {
  await using broker = await startOwnBroker()
  let sent = 0
  await using server = await startScriptedExchange((socket) => {
    const timer = setInterval(() => {
      for (let i = 0; i < 200; i++) socket.send(tradeFrame(++sent))
    }, 20)
    socket.on('close', () => clearInterval(timer))
  })
  const env = { ...parts.topics.env, KAFKA_BROKERS: broker.brokers }
  await startTapeline(['topics', 'init'], { env }).assertExit(0)
  await using ingestion = await parts.ingest({
    ...env,
    ...server.env,
    KAFKA_QUEUE_MAX_BYTES: String(1 << 20),
  })
  await ingestion.ready()
  await broker.stop()
  await until(
    'the socket to be paused',
    async () => (await ingestion.status()).connections[0]?.state === 'paused',
  )
  const { queueBytes } = await ingestion.status()
  assert.ok(queueBytes < (1 << 20) + (1 << 18), `the queue holds ${queueBytes} bytes`)
  await until('health to flip', async () => (await fetch(ingestion.url)).status === 503)
  await broker.start()
  await until('the queue to empty', async () => (await ingestion.status()).counters.queued < 1000)
  await ingestion.ready()
  const { counters } = await ingestion.status()
  assert.equal(counters.forwarded, counters.acknowledged + counters.queued + counters.inFlight)
  await ingestion.stop()
  const messages = await readTopic(parts.topics.env.KAFKA_TRADES_TOPIC, [broker.brokers])
  const ids = messages.map(({ value }): number => JSON.parse(String(value)).t)
  assert.ok(ids.length >= counters.forwarded)
  for (const [index, id] of ids.entries())
    assert.ok(index === 0 || id > (ids[index - 1] ?? 0), `${id} is in its place`)
})

test('C9 refuses topics with data of another source', async () => {
  await produce(parts.topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('binance', parts.topics.env)])
  await using ingestion = await parts.ingest()
  await ingestion.command.assertExit(1)
  const refusal = /These Kafka topics hold data of \\"binance\\", not of \\"simulated/
  assert.match(ingestion.command.output(), refusal)
  assert.deepEqual(await readTopic(parts.topics.env.KAFKA_TRADES_TOPIC), [])
})

test('C9 refuses checkpoints of other topics', async () => {
  const other = { ...parts.topics.env, KAFKA_TRADES_TOPIC: 'other.trades' }
  const { source } = parts.exchange
  await produce(parts.topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue(source, other)])
  await using ingestion = await parts.ingest()
  await ingestion.command.assertExit(1)
  const { KAFKA_TRADES_TOPIC: trades, KAFKA_CHECKPOINTS_TOPIC: checkpoints } = parts.topics.env
  assert.match(
    ingestion.command.output(),
    new RegExp(`The checkpoints in ${checkpoints} belong to other\\.trades, not to ${trades}`),
  )
  assert.match(ingestion.command.output(), /Set KAFKA_CHECKPOINTS_TOPIC to another topic/)
  assert.deepEqual(await readTopic(trades), [])
})

test('C9 refuses an unidentified exchange before it writes anything', async () => {
  await using server = await startScriptedExchange(() => {}, null)
  await using ingestion = await parts.ingest({ BINANCE_WS_URL: server.wsUrl })
  await ingestion.command.assertExit(2)
  assert.match(ingestion.command.output(), /announces no name, and its host is unknown/)
  assert.match(ingestion.command.output(), /Set VENUE to the name of the exchange/)
  assert.deepEqual(await readTopic(parts.topics.env.KAFKA_CHECKPOINTS_TOPIC), [])
})

test('reports how much was left when it is stopped while Kafka is down', async () => {
  await using server = await startScriptedExchange((socket) => socket.send(tradeFrame(1)))
  await using broker = await startOwnBroker()
  const env = { ...parts.topics.env, KAFKA_BROKERS: broker.brokers }
  await startTapeline(['topics', 'init'], { env }).assertExit(0)
  await using ingestion = await parts.ingest({ ...env, ...server.env, KAFKA_LINGER_MS: '3000' })
  await until('a message in the queue', async () => (await ingestion.status()).counters.queued === 1)
  await broker.stop()
  ingestion.command.signal('SIGTERM')
  await ingestion.command.assertExit(1, 12_000)
  assert.match(ingestion.command.output(), /1 message received but not acknowledged by Kafka/)
})

test('reports missing topics with the fix, and stops immediately at shutdown', async () => {
  const missing = uniqueTopics('missing')
  await using ingestion = await parts.ingest(missing.env)
  await ingestion.command.waitForLine(/tapeline topics init/)
  assert.match((await ingestion.status()).reason, /A topic is missing on the broker/)
  await ingestion.stop()
})
