import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { WebSocketServer } from 'ws'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { type KafkaBroker, startKafkaBroker } from '../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../src/sandbox/kafka-broker/kafka-distribution.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { createConsumerParts, trades } from './support/consumer-parts.ts'
import { BROKERS_VARIABLE, brokers, createTestTopics } from './support/kafka.ts'
import { produce } from './support/messages.ts'
import { startConsumerProcess, startIngestionProcess } from './support/services.ts'
import { waitFor, within } from './support/wait-for.ts'

/** Longer than a service's shutdown, which is limited to 9.5 s. */
const STOP_LIMIT_MS = 12_000
const CUT = /The stop exceeded its time limit/
const HELD = { FLUSH_INTERVAL_MS: '600000', KAFKA_FETCH_MAX_WAIT_MS: '50' }

const shared = brokers().join()
let folder: string
let broker: KafkaBroker
let start: () => Promise<KafkaBroker>

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pipeline-stop-'))
  const port = await freePort()
  const distributionDir = await ensureKafkaDistribution({
    cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? tmpdir(),
  })
  start = () => startKafkaBroker({ distributionDir, dataDir: join(folder, 'kafka'), port })
  broker = await start()
  // A separate broker, which these tests may freeze.
  process.env[BROKERS_VARIABLE] = broker.brokers
})

afterEach(async () => {
  process.env[BROKERS_VARIABLE] = shared
  broker.kill()
  await broker.exited
  await rm(folder, { recursive: true, force: true })
})

const freeze = () => process.kill(broker.pid, 'SIGSTOP')
const thaw = () => process.kill(broker.pid, 'SIGCONT')

/** Replaces the broker with a server that accepts connections but never answers. */
async function replaceBySilence(): Promise<{ readonly clients: () => number; close: () => Promise<void> }> {
  broker.kill()
  await broker.exited
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).resume()
  })
  await new Promise<void>((resolve) => server.listen(broker.port, '127.0.0.1', resolve))
  return {
    clients: () => sockets.size,
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

test('S2 a consumer stores its messages and exits 0 while it waits for silent brokers', async () => {
  await using parts = await createConsumerParts()
  await migrate(parts.database)
  await using consumer = await startConsumerProcess({ ...parts.env, ...HELD })
  await consumer.ready()
  await produce(parts.topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 100))
  await waitFor(async () => (await consumer.status()).counters.pending === 100, {
    timeoutMs: 60_000,
    what: '100 messages in memory',
  })
  const silence = await replaceBySilence()
  try {
    await waitFor(() => silence.clients() >= 2, {
      timeoutMs: 60_000,
      what: 'the fetch client and the group client to wait for an answer',
    })
    consumer.command.signal('SIGTERM')
    await consumer.command.assertExit(0, STOP_LIMIT_MS)
  } finally {
    await silence.close()
    broker = await start()
  }
  assert.match(consumer.command.output(), /Kafka did not accept the last commit of the group/)
  assert.match(consumer.command.output(), /Consumer stopped, 0 messages left/)
  await parts.assertTradesOnce(0, 99)
})

test('S2 a consumer without messages exits 0 while the broker is frozen', async () => {
  await using parts = await createConsumerParts()
  await migrate(parts.database)
  await using consumer = await startConsumerProcess(parts.env)
  await consumer.ready()
  freeze()
  try {
    await waitFor(async () => (await consumer.status()).generation === null, {
      timeoutMs: 60_000,
      what: 'the end of the session to be detected',
    })
    consumer.command.signal('SIGTERM')
    await consumer.command.assertExit(0, STOP_LIMIT_MS)
  } finally {
    thaw()
  }
  assert.match(consumer.command.output(), /Consumer stopped, 0 messages left/)
})

test('a fetch from a frozen broker times out, so that its caller can look up another leader', async () => {
  const topics = await createTestTopics({ prefix: 'frozen' })
  const topic = topics.env.KAFKA_TRADES_TOPIC
  const connection = { brokers: [broker.brokers], tls: null, sasl: null }
  const fetcher = new PartitionFetcher(connection, 'test', [topic])
  await fetcher.connect()
  const node = fetcher.leaderOf(topic, 0) ?? assert.fail('no leader')
  freeze()
  try {
    const limits = { maxWaitMs: 100, minBytes: 1, maxBytes: 1 << 20 }
    const fetched = fetcher.fetch(node, [{ topic, partition: 0, offset: 0 }], limits)
    await assert.rejects(
      within(25_000, 'the fetch', () => fetched),
      /has not answered within 8\.1 s/,
    )
    await within(5000, 'closing', () => fetcher.close())
  } finally {
    thaw()
  }
  await topics.delete()
})

/** An exchange that sends one trade to each connection, and another on request. */
async function startExchange() {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
  const streams = new Set<(trade: number) => void>()
  server.on('connection', (socket, request) => {
    if (request.url?.includes('streams=') !== true) return
    const send = (trade: number) =>
      socket.send(
        `{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":${trade},"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}`,
      )
    streams.add(send)
    send(1)
  })
  server.on('headers', (headers) => headers.push('x-tapeline-source: scripted'))
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  return {
    env: {
      BINANCE_WS_URL: `ws://127.0.0.1:${port}`,
      BINANCE_REST_URL: 'http://127.0.0.1:1',
      TIME_UNIT: 'millisecond',
      SYMBOLS: 'BTCUSDT',
    },
    send: (trade: number) => {
      for (const send of streams) send(trade)
    },
    async close() {
      for (const client of server.clients) client.terminate()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

for (const left of [0, 1]) {
  test(`ingestion reports at shutdown that ${left} messages were left while the broker is frozen`, async () => {
    const topics = await createTestTopics({ prefix: 'stop' })
    const exchange = await startExchange()
    try {
      await using ingestion = await startIngestionProcess({ ...topics.env, ...exchange.env })
      await waitFor(async () => (await ingestion.status()).counters.acknowledged === 1, {
        timeoutMs: 60_000,
        what: 'the first trade to be acknowledged',
      })
      freeze()
      if (left === 1) exchange.send(2)
      // The checkpoint of the first trade, written when the search for other instances begins.
      await waitFor(async () => (await ingestion.status()).oldestUnacknowledgedMs > 0, {
        timeoutMs: 60_000,
        what: 'an unacknowledged message',
      })
      ingestion.command.signal('SIGTERM')
      await ingestion.command.assertExit(left, STOP_LIMIT_MS)
      const said = ingestion.command.output()
      assert.doesNotMatch(said, CUT)
      assert.match(said, left === 0 ? /Ingestion stopped, 0 messages left/ : /1 message received but not ack/)
    } finally {
      thaw()
      await exchange.close()
      await topics.delete()
    }
  })
}

test('ingestion stops immediately while it waits for a frozen broker at its start', async () => {
  const topics = await createTestTopics({ prefix: 'stop' })
  const exchange = await startExchange()
  freeze()
  try {
    await using ingestion = await startIngestionProcess({ ...topics.env, ...exchange.env })
    await ingestion.command.waitForLine(/Ingestion started/, 20_000)
    ingestion.command.signal('SIGTERM')
    await ingestion.command.assertExit(0, STOP_LIMIT_MS)
    assert.doesNotMatch(ingestion.command.output(), CUT)
  } finally {
    thaw()
    await exchange.close()
    await topics.delete()
  }
})
