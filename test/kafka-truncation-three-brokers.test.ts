import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { alterPartitionReassignmentsV0 } from '@platformatic/kafka'
import pino from 'pino'
import { kafkaPort } from '../src/foundation/kafka/kafka-port.ts'
import { partitionOf } from '../src/foundation/kafka/partition.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { DEFINITIONS } from '../src/foundation/settings/definitions.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { type Checkpoint, checkpointText, emptyCheckpoint } from '../src/ingestion/checkpoint/checkpoint.ts'
import { InstanceWatch } from '../src/ingestion/checkpoint/instance-watch.ts'
import { recover } from '../src/ingestion/checkpoint/recovery.ts'
import { trades } from './support/consumer-parts.ts'
import { createTestDatabase, type TestDatabase } from './support/database.ts'
import { connectionTo, outgoing, sendRecords, withAdmin } from './support/kafka-clients.ts'
import { type KafkaCluster, type PartitionState, startKafkaCluster } from './support/kafka-cluster.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

const SYMBOL = 'BTCUSDT'
const PARTITION = partitionOf(SYMBOL, 3)
const PARTITIONS = [0, 1, 2]
const TRADES = DEFINITIONS.KAFKA_TRADES_TOPIC.fallback
const BOOK_TICKER = DEFINITIONS.KAFKA_BOOK_TICKER_TOPIC.fallback
const GAPS = DEFINITIONS.KAFKA_GAPS_TOPIC.fallback
const CHECKPOINTS = DEFINITIONS.KAFKA_CHECKPOINTS_TOPIC.fallback
const OTHERS = [BOOK_TICKER, GAPS, CHECKPOINTS, DEFINITIONS.KAFKA_DEAD_LETTERS_TOPIC.fallback]
/** The trades topic's follower becomes the leader without the old leader's last messages. */
const [LEADER, FOLLOWER] = [1, 2]

/** The third broker leads: the two others are killed. */
const EVERY_BROKER = [3, 1, 2]

let cluster: KafkaCluster
let server: TestDatabase
let database: Database

before(async () => {
  cluster = await startKafkaCluster()
  server = await createTestDatabase()
  database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  await migrate(database)
  await createTopics([TRADES], [LEADER, FOLLOWER], {
    'min.insync.replicas': '1',
    'unclean.leader.election.enable': 'true',
  })
  await createTopics(OTHERS, EVERY_BROKER, { 'min.insync.replicas': '1' })
})

after(async () => {
  await database?.close()
  await server?.drop()
  await cluster?.stop()
})

/** Waits for a state of all partitions. Describing them fails while one has no leader. */
async function untilAll(
  topics: readonly string[],
  isReached: (state: PartitionState) => boolean,
  what: string,
): Promise<void> {
  const look = () =>
    cluster.partitions(topics).then(
      (states) => states.length === topics.length * PARTITIONS.length && states.every(isReached),
      () => false,
    )
  await until(what, look)
}

async function createTopics(
  topics: string[],
  brokers: number[],
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  const configs = Object.entries(settings).map(([name, value]) => ({ name, value }))
  const assignments = PARTITIONS.map((partition) => ({ partition, brokers }))
  await withAdmin(cluster.brokers.split(','), (admin) =>
    admin.createTopics({ topics, partitions: -1, replicas: -1, configs, assignments }),
  )
  await untilAll(topics, ({ leader }) => leader === brokers[0], `leaders of ${topics.join()}`)
}

async function reassign(topic: string, replicas: number[]): Promise<void> {
  await withAdmin(cluster.brokers.split(','), async (admin) => {
    const { controllerId, brokers } = await admin.metadata({ topics: [], forceUpdate: true })
    const controller = brokers.get(controllerId) ?? assert.fail('no controller')
    const connection = await admin.connections.get(controller)
    const partitions = PARTITIONS.map((partitionIndex) => ({ partitionIndex, replicas }))
    await alterPartitionReassignmentsV0.api.async(connection, 10_000, false, [{ name: topic, partitions }])
  })
  const isMoved = (state: PartitionState) =>
    state.replicas.join() === replicas.join() && state.inSync.length === replicas.length
  await untilAll([topic], isMoved, `${topic} on brokers ${replicas.join()}`)
}

/** @param first the first bootstrap broker */
function kafka(first = 1) {
  const all = cluster.brokers.split(',')
  return kafkaPort(connectionTo([...all.slice(first - 1), ...all.slice(0, first - 1)]))
}

/** Sends values of the symbol to its partition. */
async function produce(topic: string, values: readonly Buffer[]): Promise<void> {
  await sendRecords(
    connectionTo(cluster.brokers.split(',')),
    values.map((value) => outgoing({ topic, partition: PARTITION, key: Buffer.from(SYMBOL), value })),
  )
}

const produceTrades = (from: number, to: number) => produce(TRADES, trades(from, to))

/** Consumes until so many rows are stored. @returns its log, and its number of truncations */
async function consumeUntil(rows: number): Promise<{ readonly said: string; readonly truncations: number }> {
  await using consumer = await startConsumerProcess({
    KAFKA_BROKERS: cluster.brokers,
    DATABASE_URL: server.url,
    AUTO_OFFSET_RESET: 'earliest',
    FLUSH_INTERVAL_MS: '200',
    KAFKA_SESSION_TIMEOUT_MS: '6000',
    BACKOFF_INITIAL_MS: '100',
    BACKOFF_MAX_MS: '1000',
  })
  await until(
    `${rows} trades; output of the consumer:\n${consumer.command.output()}`,
    async () => (await tradeRows()).rows >= rows,
  )
  const metrics = await (await fetch(`${consumer.url}/metrics`, { signal: AbortSignal.timeout(5000) })).text()
  const truncations = Number(/^tapeline_consumer_truncations_total (\d+)$/m.exec(metrics)?.[1])
  await consumer.stop()
  return { said: consumer.command.output(), truncations }
}

/** Checkpoints as ingestion writes them. */
const writeCheckpoints = (...checkpoints: Checkpoint[]) =>
  produce(
    CHECKPOINTS,
    checkpoints.map((checkpoint) => Buffer.from(checkpointText(checkpoint))),
  )

async function startInstance(instance: string, counter: number): Promise<void> {
  await writeCheckpoints({ ...emptyCheckpoint(instance), kind: 'start', counter })
}

/** A checkpoint of the trades `[0, last]`, of which Kafka has the last one before `offset`. */
function checkpointOf(counter: number, last: number, offset: number, leaderEpoch: number): Checkpoint {
  return {
    ...emptyCheckpoint('younger'),
    counter,
    offsets: { [TRADES]: offset },
    leader_epochs: { [TRADES]: leaderEpoch },
    partitions: { [TRADES]: PARTITION },
    trade: { epoch: 0, first: 0, last, last_time: 1, holes: [] },
  }
}

async function storedOffset() {
  const { rows } = await database.query<{ offset: number; leader_epoch: number }>(
    'SELECT next_offset::int AS "offset", leader_epoch FROM consumer_offsets WHERE topic = $1 AND partition = $2',
    [TRADES, PARTITION],
  )
  return rows[0] ?? assert.fail('no offset')
}

function rethrowFatal(error: unknown): void {
  if (error instanceof TapelineError) throw error
}

async function tradeRows() {
  const { rows } = await database.query<{ rows: number; ids: number; last: number }>(
    'SELECT count(*)::int AS rows, count(DISTINCT trade_id)::int AS ids, max(trade_id)::int AS last FROM trades',
  )
  return rows[0] ?? assert.fail('no counts')
}

test('C4 an older instance detects a younger one within 10 s after the partition has left the broker it remembers, which is gone', async () => {
  const rows = { ofOlderInstance() {}, imported() {}, request() {} }
  const watch = new InstanceWatch(kafka(3), {
    checkpoints: CHECKPOINTS,
    gaps: GAPS,
    instance: 'older',
    symbols: new Set([SYMBOL]),
    ends: [],
    olderInstances: [],
    log: pino({ level: 'silent' }),
  })
  try {
    await watch.connect()
    await watch.check(rows)
    await startInstance('older', 1)
    await watch.check(rows)
    await reassign(CHECKPOINTS, [2, 1])
    const [state] = (await cluster.partitions([CHECKPOINTS])).filter((one) => one.partition === PARTITION)
    assert.equal(state?.leader, 2)
    await cluster.kill(3)
    await startInstance('younger', 2)
    const startedMs = performance.now()
    await assert.rejects(
      async () => {
        while (performance.now() - startedMs < 10_000) {
          // The ledger topic has no leader for a while.
          await watch.check(rows).catch(rethrowFatal)
        }
      },
      { code: 'KAFKA', message: /Another ingestion \(younger\)/ },
    )
  } finally {
    await watch.close()
    await cluster.restart(3)
    await reassign(CHECKPOINTS, EVERY_BROKER)
  }
})

test('P10 C7 stores every row of a partition that lost its tail and grew beyond the position, and distrusts checkpoints of the lost messages', async () => {
  await untilAll([TRADES], ({ inSync }) => inSync.length === 2, 'both replicas in sync')
  await produceTrades(0, 1000)
  await cluster.kill(FOLLOWER)
  await untilAll([TRADES], ({ inSync }) => inSync.length === 1, 'the follower to leave the replicas in sync')
  await produceTrades(1000, 1600)
  assert.equal((await consumeUntil(1600)).truncations, 0)
  const before = await storedOffset()
  // The newest checkpoint covers messages that will be lost.
  await writeCheckpoints(
    checkpointOf(3, 999, 1000, before.leader_epoch),
    checkpointOf(4, 1599, 1600, before.leader_epoch),
  )
  await cluster.kill(LEADER)
  await cluster.restart(FOLLOWER)
  await untilAll(
    [TRADES],
    ({ leader }) => leader === FOLLOWER,
    'the follower to lead, without the last 600 messages',
  )
  // They have the offsets 1000 to 2199: the position, 1600, is within the log.
  await produceTrades(1600, 2800)
  const { said, truncations } = await consumeUntil(2800)

  assert.deepEqual(await tradeRows(), { rows: 2800, ids: 2800, last: 2799 })
  const lines = said.split('\n').filter((line) => line.includes('lost messages that were read'))
  assert.deepEqual([lines.length, truncations], [1, 1], said)
  const { level, topic, partition, position, offset, end } = JSON.parse(lines[0] ?? '')
  assert.deepEqual(
    { level, topic, partition, position, offset, end },
    { level: 50, topic: TRADES, partition: PARTITION, position: 1600, offset: 1000, end: 2200 },
  )
  const stored = await storedOffset()
  assert.equal(stored.offset, 2200)
  assert.ok(stored.leader_epoch > before.leader_epoch, JSON.stringify([before, stored]))

  const errors: string[] = []
  const log = pino({ level: 'error' }, { write: (line: string) => void errors.push(line) })
  const names = {
    trades: TRADES,
    bookTicker: BOOK_TICKER,
    depth: '',
    gaps: GAPS,
    checkpoints: CHECKPOINTS,
    deadLetters: '',
  }
  const { fold } = await recover(kafka(), names, ['trades', 'bookTicker'], [SYMBOL], log)
  const { memory, counters, truncations: found } = fold
  const { trade } = memory.snapshot(SYMBOL)
  // Messages that Kafka acknowledged and lost are missing; those that took their offsets are not.
  assert.deepEqual([trade?.first, trade?.last, trade?.holes], [0, 2799, [{ from: 1000, to: 1599 }]])
  assert.equal(counters.get(SYMBOL), 4)
  assert.deepEqual([errors.length, found], [1, 1])
  assert.match(errors[0] ?? '', /lost messages that Kafka had acknowledged.* 1600.* 1000/)
})
