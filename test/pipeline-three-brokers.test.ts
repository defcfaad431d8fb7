import assert from 'node:assert/strict'
import { test } from 'node:test'
import { partitionOf } from '../src/foundation/kafka/partition.ts'
import { DEFINITIONS } from '../src/foundation/settings/definitions.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { openTestDatabase } from './support/database.ts'
import { FAST } from './support/ingestion-parts.ts'
import { startKafkaCluster } from './support/kafka-cluster.ts'
import { startTapeline } from './support/processes.ts'
import {
  type IngestionProcess,
  startConsumerProcess,
  startIngestionProcess,
  untilAcknowledged,
  untilCaughtUp,
} from './support/services.ts'
import { until } from './support/wait-for.ts'

/** Kills of the current leader of BTCUSDT; `TAPELINE_TEST_BROKER_KILLS=20` for a longer run. */
const KILLS = Number(process.env['TAPELINE_TEST_BROKER_KILLS'] ?? 1)
const MESSAGES_PER_SECOND = 1500
const MESSAGES_BETWEEN = 3000
const LIMIT_MS = 90_000 + KILLS * 60_000

const TOPICS = (
  ['KAFKA_TRADES_TOPIC', 'KAFKA_BOOK_TICKER_TOPIC', 'KAFKA_GAPS_TOPIC', 'KAFKA_CHECKPOINTS_TOPIC'] as const
).map((name) => DEFINITIONS[name].fallback)
const [TRADES] = TOPICS
const BTC_PARTITION = partitionOf('BTCUSDT', 3)

test('a broker killed under load and restarted costs no message: the other two continue', {
  timeout: LIMIT_MS,
}, async (context) => {
  await using cleanup = new AsyncDisposableStack()
  const { database, url } = cleanup.use(await openTestDatabase('empty'))
  const cluster = cleanup.adopt(await startKafkaCluster(), ({ stop }) => stop())
  const exchange = cleanup.adopt(
    await startSimulatedExchange({ messagesPerSecond: MESSAGES_PER_SECOND }),
    ({ close }) => close(),
  )
  const env = {
    ...FAST,
    KAFKA_BROKERS: cluster.brokers,
    KAFKA_REPLICATION_FACTOR: '3',
    KAFKA_MIN_INSYNC_REPLICAS: '2',
    DATABASE_URL: url,
    BINANCE_WS_URL: exchange.wsUrl,
    BINANCE_REST_URL: exchange.restUrl,
    FLUSH_INTERVAL_MS: '200',
    KAFKA_SESSION_TIMEOUT_MS: '6000',
  }
  const btcPartition = async () => {
    const partitions = await cluster.partitions(TOPICS)
    return partitions.find(({ topic, partition }) => topic === TRADES && partition === BTC_PARTITION)
  }
  const allInSync = () =>
    until('three in-sync replicas of every partition', async () =>
      (await cluster.partitions(TOPICS)).every((one) => one.inSync.length === 3),
    )
  await startTapeline(['topics', 'init'], { env }).assertExit(0)
  await allInSync()
  await using consumer = await startConsumerProcess(env)
  await consumer.ready()
  await using ingestion = await startIngestionProcess(env)
  await ingestion.ready()
  await acknowledges(ingestion, MESSAGES_BETWEEN)

  for (let kill = 1; kill <= KILLS; kill++) {
    const victim = (await btcPartition())?.leader ?? assert.fail('nobody leads')
    const led = (await cluster.partitions(TOPICS)).filter(({ leader }) => leader === victim).length
    const { counters } = await ingestion.status()
    const killedMs = performance.now()
    const seconds = () => ((performance.now() - killedMs) / 1000).toFixed(1)
    await cluster.kill(victim)

    // All messages received before the kill are stored, and later ones too.
    await untilAcknowledged(ingestion, counters.forwarded + 1)
    const producing = seconds()
    await untilCaughtUp(consumer)
    const drained = seconds()
    assert.notEqual((await btcPartition())?.leader, victim)
    await acknowledges(ingestion, MESSAGES_BETWEEN)

    await cluster.restart(victim)
    await allInSync()
    context.diagnostic(
      `broker ${victim}, leader of ${led} of ${TOPICS.length * 3} partitions, killed: ` +
        `producing again after ${producing} s, lag drained after ${drained} s, three in sync after ${seconds()} s`,
    )
    await acknowledges(ingestion, MESSAGES_BETWEEN)
  }

  // No more events arrive, so that acknowledged messages can be counted exactly.
  await exchange.close()
  const { counters } = await ingestion.until(
    'every message to be acknowledged',
    ({ counters: { forwarded, acknowledged } }) => forwarded === acknowledged,
  )
  const total = counters.acknowledged
  await untilCaughtUp(consumer)
  await until('every message in the tables', async () => (await countRows(database)).rows >= total)
  await ingestion.stop()
  await consumer.stop()

  const { rows, ids, span, gaps } = await countRows(database)
  context.diagnostic(
    `${rows} rows for ${total} messages, ${MESSAGES_PER_SECOND} per second; ${ids} ids of trades and aggTrades, none missing`,
  )
  assert.equal(rows, total, 'one row per message')
  assert.deepEqual([ids, gaps], [span, 0], 'no missing ids, and no gaps')
  await startTapeline(['verify'], { env }).assertExit(0)
})

/** Waits until this many more messages are acknowledged. */
async function acknowledges(ingestion: IngestionProcess, more: number): Promise<void> {
  await untilAcknowledged(ingestion, (await ingestion.status()).counters.acknowledged + more)
}

/** Rows of both tables; of all id sequences, the number of ids and the span from first to last. */
async function countRows(database: Database) {
  const { rows } = await database.query<{ rows: number; ids: number; span: number; gaps: number }>(
    `SELECT (SELECT count(*) FROM trades)::int + (SELECT count(*) FROM book_ticker)::int AS rows,
       (SELECT count(*) FROM gaps)::int AS gaps, sum(ids)::int AS ids, sum(span)::int AS span
     FROM (SELECT count(DISTINCT trade_id) AS ids, max(trade_id) - min(trade_id) + 1 AS span FROM trades
       GROUP BY symbol, event_type) AS sequences`,
  )
  return rows[0] ?? assert.fail('no counts')
}
