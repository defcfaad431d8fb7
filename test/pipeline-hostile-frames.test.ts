import assert from 'node:assert/strict'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, test } from 'node:test'
import { type WebSocket, WebSocketServer } from 'ws'
import type { Database } from '../src/foundation/store/database.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createTestDatabase, type TestDatabase } from './support/database.ts'
import { createTestTopics, type TestTopics } from './support/kafka.ts'
import { produce } from './support/messages.ts'
import { tradeValue } from './support/records.ts'
import { startConsumerProcess, startIngestionProcess } from './support/services.ts'
import { waitFor } from './support/wait-for.ts'

const DEPTH = 100_000
const FAST = { BACKOFF_INITIAL_MS: '100', BACKOFF_MAX_MS: '500', FLUSH_INTERVAL_MS: '200' }

let topics: TestTopics
let server: TestDatabase
let database: Database

beforeEach(async () => {
  topics = await createTestTopics({ prefix: 'hostile' })
  server = await createTestDatabase()
  database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
})

afterEach(async () => {
  await database.close()
  await server.drop()
  await topics.delete()
})

/** Ways to nest, each deep enough to overflow the stack of a recursive parser or printer. */
function nested(depth: number): Record<string, string> {
  const around = (open: string, inner: string, close: string) =>
    open.repeat(depth) + inner + close.repeat(depth)
  return {
    'brackets that never close': '['.repeat(depth),
    'lists in lists': around('[', '', ']'),
    'objects in objects': around('{"a":', '1', '}'),
    'objects that never close': '{"stream":'.repeat(depth / 2),
  }
}

const DEEP = nested(DEPTH)
/** The deepest nesting in frames of 64 KiB. */
const FITTING = nested(10_000)

/** A trade with an additional field, as the exchange may add one. */
const trade = (id: number, added = '1') =>
  `{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":${id},"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true,"added":${added}}}`

async function exchangeThatSends(onConnection: (socket: WebSocket, connection: number) => void) {
  const exchange = new WebSocketServer({ host: '127.0.0.1', port: 0 })
  let connections = 0
  exchange.on('connection', (socket, request) => {
    // A broken socket must not end this process.
    socket.on('error', () => socket.terminate())
    if (request.url?.includes('streams=') === true) onConnection(socket, ++connections)
  })
  exchange.on('headers', (headers) => headers.push('x-tapeline-source: hostile'))
  await new Promise((resolve) => exchange.once('listening', resolve))
  const { port } = exchange.address() as AddressInfo
  return {
    env: {
      BINANCE_WS_URL: `ws://127.0.0.1:${port}`,
      BINANCE_REST_URL: 'http://127.0.0.1:1',
      TIME_UNIT: 'millisecond',
    },
    async close() {
      for (const socket of exchange.clients) socket.terminate()
      await new Promise((resolve) => exchange.close(resolve))
    },
  }
}

test('rejects a deeply nested, long or forged frame, and one of 2 MiB costs only its connection', async () => {
  const exchange = await exchangeThatSends((socket, connection) => {
    if (connection === 1) {
      for (const frame of [...Object.values(FITTING), DEEP['lists in lists'] ?? '']) socket.send(frame)
      socket.send(`{"stream":"btcusdt@trade","data":${FITTING['objects in objects']}}`)
      socket.send(trade(1, FITTING['lists in lists']))
      socket.send(trade(2))
      socket.send(trade(2, '1,"source":"backfill"'))
      socket.send(trade(4, '1,"source":"backfill"').replace('"E":1723161255343,', ''))
      socket.send(trade(5, '1,"ingestion_timestamp_us":1723161255400123'))
      socket.send(' '.repeat(2 << 20))
    } else socket.send(trade(3))
  })
  try {
    await using ingestion = await startIngestionProcess({
      ...topics.env,
      ...exchange.env,
      ...FAST,
      SYMBOLS: 'BTCUSDT',
    })
    await waitFor(async () => (await ingestion.status()).counters.forwarded === 3, {
      timeoutMs: 30_000,
      what: 'the trades of both connections',
    })
    const { counters, rejectedByReason } = await ingestion.status()
    assert.equal(counters.received, counters.forwarded + counters.rejected + counters.ignored)
    assert.deepEqual(rejectedByReason, {
      'not JSON': 2,
      'not an object': 1,
      'e is not trade': 1,
      'frame is longer than 65536 bytes': 1,
      'source is a member that only Tapeline writes': 2,
      'ingestion_timestamp_us is a member that only Tapeline writes': 1,
    })
    assert.match(ingestion.command.output(), /Max payload size exceeded|1009|1006/)

    await using consumer = await startConsumerProcess({
      ...topics.env,
      ...FAST,
      DATABASE_URL: server.url,
      AUTO_OFFSET_RESET: 'earliest',
    })
    await waitFor(async () => (await consumer.status()).counters.inserted >= 3, {
      timeoutMs: 30_000,
      what: 'the three trades',
    })
    const { rows } = await database.query<{ id: string; source: string }>(
      'SELECT trade_id AS id, source FROM trades ORDER BY 1',
    )
    assert.deepEqual(
      rows.map(({ id, source }) => [id, source]),
      [
        ['1', 'stream'],
        ['2', 'stream'],
        ['3', 'stream'],
      ],
    )
    await consumer.stop()
    await ingestion.stop()
  } finally {
    await exchange.close()
  }
})

test('a message nested 100,000 deep is a dead letter, and the messages after it are stored', async () => {
  const deep = Object.values(DEEP).map((text) => Buffer.from(text))
  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [...deep, tradeValue({ t: 7 })])
  await produce(topics.env.KAFKA_GAPS_TOPIC, 'a gap', deep)
  await using consumer = await startConsumerProcess({
    ...topics.env,
    ...FAST,
    DATABASE_URL: server.url,
    AUTO_OFFSET_RESET: 'earliest',
  })
  await waitFor(
    async () => {
      const { inserted, deadLettered } = (await consumer.status()).counters
      return inserted >= 1 && deadLettered >= 2 * deep.length
    },
    { timeoutMs: 30_000, what: 'the trade and the dead letters' },
  )
  const { rows } = await database.query<{ reason: string; bytes: number }>(
    'SELECT reason, octet_length(payload)::int AS bytes FROM dead_letters ORDER BY topic, partition, kafka_offset',
  )
  assert.equal(rows.filter(({ reason }) => reason === 'value is not JSON').length, 4)
  assert.equal(new Set(rows.map(({ bytes }) => bytes)).size, 4, 'the bytes are kept whole')
  await consumer.stop()
})
