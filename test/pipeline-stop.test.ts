import assert from 'node:assert/strict'
import { createServer, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { createConsumerParts, trades } from './support/consumer-parts.ts'
import { createTestTopics } from './support/kafka.ts'
import { closeServer, listen } from './support/loopback.ts'
import { produce } from './support/messages.ts'
import { type OwnBroker, startOwnBroker } from './support/own-broker.ts'
import { startScriptedExchange, tradeFrame } from './support/scripted-exchange.ts'
import { startConsumerProcess, startIngestionProcess, untilAcknowledged } from './support/services.ts'
import { until, within } from './support/wait-for.ts'

/** Longer than a service's shutdown, which is limited to 9.5 s. */
const STOP_LIMIT_MS = 12_000
const CUT = /The stop exceeded its time limit/
const HELD = { FLUSH_INTERVAL_MS: '600000', KAFKA_FETCH_MAX_WAIT_MS: '50' }

let broker: OwnBroker

before(async () => {
  broker = await startOwnBroker()
})

after(() => broker[Symbol.asyncDispose]())

/** Replaces the broker with a server that accepts connections but never answers. */
async function replaceBySilence() {
  await broker.kill()
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).resume()
  })
  await listen(server, broker.port)
  return { clients: () => sockets.size, close: () => closeServer(server, sockets) }
}

test('S2 a consumer stores its messages and exits 0 while it waits for silent brokers', async () => {
  await using parts = await createConsumerParts()
  await migrate(parts.database)
  await using consumer = await startConsumerProcess({ ...parts.env, ...HELD })
  await consumer.ready()
  await produce(parts.topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', trades(0, 100))
  await consumer.until('100 messages in memory', ({ counters }) => counters.pending === 100)
  const silence = await replaceBySilence()
  try {
    await until('the fetch client and the group client to wait for an answer', () => silence.clients() >= 2)
    consumer.command.signal('SIGTERM')
    await consumer.command.assertExit(0, STOP_LIMIT_MS)
  } finally {
    await silence.close()
    await broker.start()
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
  broker.freeze()
  try {
    await consumer.until('the end of the session', ({ generation }) => generation === null)
    consumer.command.signal('SIGTERM')
    await consumer.command.assertExit(0, STOP_LIMIT_MS)
  } finally {
    broker.thaw()
  }
  assert.match(consumer.command.output(), /Consumer stopped, 0 messages left/)
})

test('a fetch from a frozen broker times out, so that its caller can look up another leader', async () => {
  await using topics = await createTestTopics({ prefix: 'frozen' })
  const topic = topics.env.KAFKA_TRADES_TOPIC
  const connection = { brokers: [broker.brokers], tls: null, sasl: null }
  const fetcher = new PartitionFetcher(connection, 'test', [topic])
  await fetcher.connect()
  const node = fetcher.leaderOf(topic, 0) ?? assert.fail('no leader')
  broker.freeze()
  try {
    const limits = { maxWaitMs: 100, minBytes: 1, maxBytes: 1 << 20 }
    const fetched = fetcher.fetch(node, [{ topic, partition: 0, offset: 0 }], limits)
    await assert.rejects(
      within(25_000, 'the fetch', () => fetched),
      /has not answered within 8\.1 s/,
    )
    await within(5000, 'closing', () => fetcher.close())
  } finally {
    broker.thaw()
  }
})

const startExchange = () => startScriptedExchange((socket) => socket.send(tradeFrame(1)))

for (const left of [0, 1]) {
  test(`ingestion reports at shutdown that ${left} messages were left while the broker is frozen`, async () => {
    await using topics = await createTestTopics({ prefix: 'stop' })
    await using exchange = await startExchange()
    await using ingestion = await startIngestionProcess({ ...topics.env, ...exchange.env })
    await untilAcknowledged(ingestion, 1)
    broker.freeze()
    try {
      if (left === 1) exchange.sockets[0]?.send(tradeFrame(2))
      // The checkpoint of the first trade, written when the search for other instances begins.
      await ingestion.until('an unacknowledged message', (now) => now.oldestUnacknowledgedMs > 0)
      ingestion.command.signal('SIGTERM')
      await ingestion.command.assertExit(left, STOP_LIMIT_MS)
    } finally {
      broker.thaw()
    }
    const said = ingestion.command.output()
    assert.doesNotMatch(said, CUT)
    assert.match(said, left === 0 ? /Ingestion stopped, 0 messages left/ : /1 message received but not ack/)
  })
}

test('ingestion stops immediately while it waits for a frozen broker at its start', async () => {
  await using topics = await createTestTopics({ prefix: 'stop' })
  await using exchange = await startExchange()
  broker.freeze()
  try {
    await using ingestion = await startIngestionProcess({ ...topics.env, ...exchange.env })
    await ingestion.command.waitForLine(/Ingestion started/)
    ingestion.command.signal('SIGTERM')
    await ingestion.command.assertExit(0, STOP_LIMIT_MS)
    assert.doesNotMatch(ingestion.command.output(), CUT)
  } finally {
    broker.thaw()
  }
})
