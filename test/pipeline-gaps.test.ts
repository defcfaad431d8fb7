import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import type { Database } from '../src/foundation/store/database.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createTestDatabase, type TestDatabase } from './support/database.ts'
import { createTestTopics, type TestTopics } from './support/kafka.ts'
import { readTopic } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { startConsumerProcess, startIngestionProcess, untilCaughtUp } from './support/services.ts'
import { waitFor } from './support/wait-for.ts'

let topics: TestTopics
let server: TestDatabase
let database: Database
let exchange: Exchange
let env: Record<string, string>

beforeEach(async () => {
  topics = await createTestTopics({ prefix: 'gaps' })
  server = await createTestDatabase()
  database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  exchange = await startSimulatedExchange({ messagesPerSecond: 600 })
  env = {
    ...topics.env,
    DATABASE_URL: server.url,
    BINANCE_WS_URL: exchange.wsUrl,
    BINANCE_REST_URL: exchange.restUrl,
    FLUSH_INTERVAL_MS: '200',
    BACKOFF_INITIAL_MS: '100',
    BACKOFF_MAX_MS: '1000',
    KAFKA_SESSION_TIMEOUT_MS: '6000',
  }
})

afterEach(async () => {
  await database.close()
  await server.drop()
  await exchange.close()
  await topics.delete()
})

type Ingestion = Awaited<ReturnType<typeof startIngestionProcess>>

async function healed(ingestion: Ingestion): Promise<void> {
  await waitFor(
    async () => {
      const { streams, openGaps } = await ingestion.status()
      return Object.values(streams).filter(({ events }) => events > 0).length === 9 && openGaps.length === 0
    },
    { timeoutMs: 60_000, what: 'every stream to have delivered and every gap to be filled' },
  ).catch((error: unknown) => {
    throw new Error(`It did not heal. Output:\n${ingestion.command.output()}`, { cause: error })
  })
}

/** Rows, distinct ids and the span of ids of every sequence. */
async function sequences() {
  const { rows } = await database.query<{ name: string; rows: number; ids: number; span: number }>(
    `SELECT symbol || ' ' || event_type AS name, count(*)::int AS rows, count(DISTINCT trade_id)::int AS ids,
       (max(trade_id) - min(trade_id) + 1)::int AS span FROM trades GROUP BY 1 ORDER BY 1`,
  )
  return rows
}

test('has every trade once after three kills of ingestion, with the ledger closed and bookTicker outages in it', async () => {
  await using consumer = await startConsumerProcess(env)
  await consumer.ready()
  for (let kill = 0; kill < 3; kill++) {
    await using ingestion = await startIngestionProcess(env)
    await ingestion.ready()
    await healed(ingestion)
    await waitFor(async () => (await ingestion.status()).counters.acknowledged > 500, {
      timeoutMs: 20_000,
      what: '500 messages',
    })
    await ingestion.command.kill()
  }
  await using ingestion = await startIngestionProcess(env)
  await ingestion.ready()
  await healed(ingestion)
  const { counters } = await ingestion.status()
  assert.ok(counters.backfilled > 0, 'something was missing')
  const { received, forwarded, duplicate, control, ignored, rejected, held } = counters
  assert.equal(received, forwarded + duplicate + control + ignored + rejected + held)
  await ingestion.stop()
  const produced = await readTopic(topics.env.KAFKA_TRADES_TOPIC)
  await waitFor(
    async () =>
      (await sequences()).reduce((sum, { rows }) => sum + rows, 0) >=
      new Set(produced.map(({ value }) => idOf(value))).size,
    {
      timeoutMs: 30_000,
      what: 'every trade of Kafka in the table',
    },
  )
  await untilCaughtUp(consumer)
  await consumer.stop()

  for (const { name, rows, ids, span } of await sequences()) {
    assert.deepEqual([rows, ids], [span, span], `${name}: no missing ids, each once`)
  }
  const { rows: open } = await database.query("SELECT * FROM gaps WHERE status = 'open'")
  assert.deepEqual(open, [])
  const { rows: outages } = await database.query(
    "SELECT symbol, count(*)::int AS outages FROM gaps WHERE event_type = 'bookTicker' AND to_time > from_time GROUP BY symbol ORDER BY symbol",
  )
  assert.deepEqual(
    outages,
    ['BNBUSDT', 'BTCUSDT', 'ETHUSDT'].map((symbol) => ({ symbol, outages: 3 })),
  )
  await startTapeline(['verify'], { env: { DATABASE_URL: server.url } }).assertExit(0)
})

test('an older instance stops when a newer one takes over its symbols', async () => {
  await using older = await startIngestionProcess(env)
  await older.ready()
  await using newer = await startIngestionProcess(env)
  await newer.ready()
  await older.command.assertExit(1, 20_000)
  assert.match(older.command.output(), /Another ingestion \(.*\) has started over .*; this one is stopping/)
  await newer.stop()
})

function idOf(value: Buffer | null): string {
  const { e, s, t, a } = JSON.parse(String(value))
  return `${s} ${e} ${e === 'trade' ? t : a}`
}
