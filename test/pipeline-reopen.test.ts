import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { RECORDING_KEY } from '../src/foundation/market/recording.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createTestDatabase, type TestDatabase } from './support/database.ts'
import {
  createTestTopics,
  createTopics,
  deleteTopic,
  recreateTopic,
  type TestTopics,
} from './support/kafka.ts'
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
  topics = await createTestTopics({ prefix: 'reopen' })
  server = await createTestDatabase()
  database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  exchange = await startSimulatedExchange({ messagesPerSecond: 300 })
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

async function count(sql: string): Promise<number> {
  const { rows } = await database.query<{ n: number }>(`SELECT (${sql})::int AS n`)
  return rows[0]?.n ?? -1
}

/** Waits until every id of every trade stream is stored, from its first on. */
async function whole(also: () => Promise<boolean> = async () => true): Promise<void> {
  const missing = `SELECT coalesce(sum(missing), 0) FROM (
    SELECT max(trade_id) - min(trade_id) + 1 - count(DISTINCT trade_id) AS missing FROM trades GROUP BY symbol, event_type) AS streams`
  await waitFor(async () => (await also()) && (await count(missing)) === 0, {
    timeoutMs: 90_000,
    what: 'every trade to be stored, and the further condition',
  })
}

const status = (name: string) =>
  count(`SELECT count(*) FROM gaps WHERE from_id IS NOT NULL AND status = '${name}'`)

test('L6 C8 a running ingestion continues in recreated topics, and backfills their unread part', async () => {
  {
    await using consumer = await startConsumerProcess(env)
    await consumer.ready()
    await using ingestion = await startIngestionProcess(env)
    await ingestion.ready()
    await waitFor(async () => (await count('SELECT count(*) FROM trades')) > 300, {
      timeoutMs: 60_000,
      what: '300 trades',
    })
    await consumer.stop()
    await ingestion.command.kill()
  }
  await using ingestion = await startIngestionProcess(env)
  await ingestion.ready()
  const rows = async () => (await readTopic(topics.env.KAFKA_GAPS_TOPIC)).map(({ value }) => String(value))
  const filled = async () => (await rows()).filter((value) => value.includes('"status":"filled"')).length
  await waitFor(async () => (await filled()) >= 3 && (await ingestion.status()).openGaps.length === 0, {
    timeoutMs: 60_000,
    what: 'gaps that were filled while no consumer ran',
  })
  await recreateTopic(topics.env.KAFKA_TRADES_TOPIC, 3)
  await ingestion.command.waitForLine(/trades was deleted and recreated/, 30_000)
  await using consumer = await startConsumerProcess(env)
  await consumer.command.waitForLine(/asked ingestion to reopen/, 90_000)
  await whole(
    async () =>
      (await status('open')) === 0 &&
      (await count("SELECT count(*) FROM gaps WHERE cause = 'recreated' AND event_type <> 'bookTicker'")) > 0,
  )
  // Under both, one after the other, since each is missing for a while.
  for (const setting of ['KAFKA_CHECKPOINTS_TOPIC', 'KAFKA_GAPS_TOPIC', 'KAFKA_TRADES_TOPIC'] as const) {
    const topic = topics.env[setting]
    await deleteTopic(topic)
    await waitFor(async () => (await ingestion.status()).reason.includes(topic), {
      timeoutMs: 20_000,
      what: `readiness to name ${topic}`,
    })
    await createTopics([topic], 3)
    await ingestion.command.waitForLine(new RegExp(`${topic} was deleted and recreated`), 30_000)
    await ingestion.ready()
  }
  const starts = (await readTopic(topics.env.KAFKA_CHECKPOINTS_TOPIC)).map(({ value }) => String(value))
  assert.equal(starts.filter((value) => value.includes('"kind":"start"')).length, 3)
  assert.ok((await filled()) >= 3, 'the new ledger has the rows of the old one')
  const announced = (await readTopic(topics.env.KAFKA_GAPS_TOPIC)).filter(({ key }) => key === RECORDING_KEY)
  assert.equal(announced.length, 1, 'the new ledger has the announcement')
  const acknowledged = (await ingestion.status()).counters.acknowledged
  await waitFor(async () => (await ingestion.status()).counters.acknowledged > acknowledged + 500, {
    timeoutMs: 30_000,
    what: '500 more messages',
  })
  await whole(async () => (await status('open')) === 0)
  assert.equal(await status('unrecoverable'), 0)
  // The checkpoints of the new topics are valid.
  await ingestion.command.kill()
  await using next = await startIngestionProcess(env)
  await next.ready()
  await whole(async () => (await status('open')) === 0)
  await next.stop()
  await untilCaughtUp(consumer)
  await consumer.stop()
  await startTapeline(['verify'], { env: { ...topics.env, DATABASE_URL: server.url } }).assertExit(0, 60_000)
})

test('K5 readiness names a deleted topic as soon as a send to it is refused', async () => {
  await using ingestion = await startIngestionProcess(env)
  await ingestion.ready()
  await deleteTopic(topics.env.KAFKA_TRADES_TOPIC)
  let reason = ''
  await waitFor(
    async () => {
      const status = await ingestion.status()
      reason = status.reason
      return !status.ready
    },
    { timeoutMs: 60_000, what: 'ingestion to be unready' },
  )
  assert.match(reason, /^Kafka has not taken .*\.trades\/\d.* for \d s: A topic is missing on the broker/)
  await ingestion.command.kill()
})

test('L5 gaps retry makes ingestion fill an unrecoverable gap, also after a restart', async () => {
  const run = async (code: number, ...args: string[]) => {
    await using command = startTapeline(['gaps', ...args], { env })
    await command.assertExit(code, 60_000)
    return command.output()
  }
  await using consumer = await startConsumerProcess(env)
  await consumer.ready()
  for (const more of [{}, { BACKFILL_MAX_IDS: '0' }]) {
    await using ingestion = await startIngestionProcess({ ...env, ...more })
    await ingestion.ready()
    await waitFor(async () => (await ingestion.status()).counters.acknowledged > 300, {
      timeoutMs: 60_000,
      what: '300 messages',
    })
    if ('BACKFILL_MAX_IDS' in more) {
      await waitFor(async () => (await status('unrecoverable')) >= 3 && (await status('open')) === 0, {
        timeoutMs: 60_000,
        what: 'gaps that are too large',
      })
      await ingestion.stop()
    } else await ingestion.command.kill()
  }
  await untilCaughtUp(consumer)
  assert.match(await run(0, 'list', '--status', 'unrecoverable'), /unrecoverable {2}restart: too large/)
  const lost = await status('unrecoverable')
  assert.match(await run(0, 'retry', '--dry-run'), new RegExp(`${lost} gaps would be reopened`))
  assert.equal(await status('unrecoverable'), lost)
  const { rows } = await database.query<{ gap_id: string }>(
    "SELECT gap_id FROM gaps WHERE status = 'unrecoverable' AND from_id IS NOT NULL ORDER BY gap_id",
  )
  const [first, ...others] = rows.map(({ gap_id }) => gap_id)
  assert.ok(first !== undefined)
  assert.match(await run(1, 'retry', '--id', first, 'no/gap'), /1 gap reopened/)
  await waitFor(async () => (await status('open')) === 1, {
    timeoutMs: 30_000,
    what: 'the request to be stored',
  })
  assert.match(await run(1, 'retry', '--id', first), /is open already/)
  await using ingestion = await startIngestionProcess(env)
  await ingestion.ready()
  await waitFor(
    async () => (await status('unrecoverable')) === others.length && (await status('open')) === 0,
    {
      timeoutMs: 60_000,
      what: 'ingestion to fill ids requested before its start',
    },
  )
  assert.match(await run(0, 'retry'), new RegExp(`${others.length} gaps reopened`))
  await whole(async () => (await status('open')) === 0 && (await status('unrecoverable')) === 0)
  assert.match(await run(0, 'retry'), /0 gaps reopened/)
  // A filled gap is reopened only by its id, and is filled again.
  const revision = `SELECT revision FROM gaps WHERE gap_id = '${first}'`
  const before = await count(revision)
  await run(0, 'retry', '--id', first)
  await waitFor(async () => (await count(revision)) > before + 1 && (await status('open')) === 0, {
    timeoutMs: 60_000,
    what: 'the filled gap to be filled again',
  })
  await ingestion.stop()
  await consumer.stop()
  await startTapeline(['verify'], { env: { ...topics.env, DATABASE_URL: server.url } }).assertExit(0, 60_000)
})
