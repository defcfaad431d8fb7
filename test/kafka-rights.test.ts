import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { after, before, test } from 'node:test'
import {
  type AclOperationLabel,
  AclOperations,
  AclPermissionTypes,
  ResourcePatternTypes,
  ResourceTypes,
} from '@platformatic/kafka'
import { archiveConfig, archiveRights } from '../src/archive/config.ts'
import { consumerConfig, consumerRights } from '../src/consumer/config.ts'
import { type NeededRights, requireAccess } from '../src/foundation/kafka/access.ts'
import { describeKafkaError } from '../src/foundation/kafka/broker-errors.ts'
import type { KafkaConnection } from '../src/foundation/kafka/config.ts'
import { kafkaConnection } from '../src/foundation/kafka/config.ts'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { initTopics } from '../src/foundation/kafka/topics.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { ingestionConfig, topicRights } from '../src/ingestion/config.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createTestDatabase, type TestDatabase } from './support/database.ts'
import { ended } from './support/ended.ts'
import { outgoing, sendRecords } from './support/kafka-clients.ts'
import { readTopic } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { type SecuredKafka, startSecuredKafka } from './support/secured-kafka.ts'
import { startConsumerProcess, startIngestionProcess, untilCaughtUp } from './support/services.ts'
import { until, within } from './support/wait-for.ts'

const USERS = {
  ingestion: 'ingestion-password',
  consumer: 'consumer-password',
  archive: 'archive-password',
  operator: 'operator-password',
}
type User = keyof typeof USERS

/** A right in the form of an ACL. */
interface Right {
  readonly user: User
  readonly operation: AclOperationLabel
  readonly resource: 'topic' | 'group'
  readonly name: string
}

const TOPICS = ['trades', 'book_ticker', 'gaps', 'checkpoints', 'dead_letters'].map(
  (name) => `binance.${name}`,
)
const DEPTH = 'binance.depth'
const ARCHIVED_DAYS = 'binance.archived_days'
const topics = (user: User, operation: AclOperationLabel, names: readonly string[]): Right[] =>
  names.map((name) => ({ user, operation, resource: 'topic', name }))

const OPERATOR: readonly Right[] = (['CREATE', 'DESCRIBE', 'DESCRIBE_CONFIGS'] as const).flatMap(
  (operation) => topics('operator', operation, [...TOPICS, DEPTH, ARCHIVED_DAYS]),
)
const INGESTION: readonly Right[] = [
  ...topics('ingestion', 'WRITE', TOPICS),
  ...topics('ingestion', 'READ', TOPICS.slice(0, 4)),
]
const CONSUMER: readonly Right[] = [
  ...topics('consumer', 'READ', [...TOPICS, DEPTH, ARCHIVED_DAYS]),
  ...topics('consumer', 'WRITE', ['binance.gaps', 'binance.dead_letters']),
  { user: 'consumer', operation: 'READ', resource: 'group', name: 'tapeline-consumer' },
]

const ARCHIVE: readonly Right[] = [
  ...topics('archive', 'READ', [...TOPICS, DEPTH, ARCHIVED_DAYS]),
  ...topics('archive', 'WRITE', [ARCHIVED_DAYS]),
  { user: 'archive', operation: 'READ', resource: 'group', name: 'tapeline-archive' },
]

let kafka: SecuredKafka
let exchange: Exchange
let database: TestDatabase

before(async () => {
  exchange = await startSimulatedExchange({ messagesPerSecond: 300 })
  database = await createTestDatabase()
  kafka = await within(90_000, 'a broker', () => startSecuredKafka(USERS, true))
  await grant([...OPERATOR, ...INGESTION, ...CONSUMER, ...ARCHIVE])
})

after(async () => {
  await kafka.stop()
  await database.drop()
  await exchange.close()
})

const shared = ({ user, operation, resource, name }: Right) => ({
  resourceType: resource === 'topic' ? ResourceTypes.TOPIC : ResourceTypes.GROUP,
  resourceName: name,
  principal: `User:${user}`,
  host: '*',
  operation: AclOperations[operation],
  permissionType: AclPermissionTypes.ALLOW,
})

async function grant(rights: readonly Right[]): Promise<void> {
  const creations = rights.map((right) => ({
    ...shared(right),
    resourcePatternType: ResourcePatternTypes.LITERAL,
  }))
  await kafka.asAdmin((admin) => admin.createAcls({ creations }))
}

async function revoke(right: Right): Promise<void> {
  const filters = [{ ...shared(right), resourcePatternType: ResourcePatternTypes.LITERAL }]
  const deleted = await kafka.asAdmin((admin) => admin.deleteAcls({ filters }))
  assert.equal(deleted.length, 1, 'the right was there')
}

const as = (user: User) => ({
  KAFKA_BROKERS: kafka.at.SASL,
  KAFKA_TLS: 'true',
  KAFKA_TLS_CA: kafka.files.ca,
  KAFKA_SASL_MECHANISM: 'SCRAM-SHA-256',
  KAFKA_SASL_USERNAME: user,
  KAFKA_SASL_PASSWORD: USERS[user],
  BACKOFF_INITIAL_MS: '100',
  BACKOFF_MAX_MS: '500',
  RETENTION_ARCHIVED_ONLY: 'true',
  RETENTION_DAYS: '36500',
})
const startIngestion = (more: Readonly<Record<string, string>> = {}) =>
  startIngestionProcess({
    ...as('ingestion'),
    ...more,
    BINANCE_WS_URL: exchange.wsUrl,
    BINANCE_REST_URL: exchange.restUrl,
  })
const startConsumer = () =>
  startConsumerProcess({
    ...as('consumer'),
    DATABASE_URL: database.url,
    AUTO_OFFSET_RESET: 'earliest',
    KAFKA_SESSION_TIMEOUT_MS: '6000',
  })

async function stopAndVerify(
  ingestion: Awaited<ReturnType<typeof startIngestion>>,
  consumer: Awaited<ReturnType<typeof startConsumer>>,
): Promise<void> {
  await ingestion.stop()
  await untilCaughtUp(consumer)
  await consumer.stop()
  await using verify = startTapeline(['verify'], { env: { DATABASE_URL: database.url } })
  await verify.assertExit(0, 40_000)
}

test('runs with the rights of the table in docs/security.md', () => {
  const text = readFileSync(resolve(import.meta.dirname, '../docs/security.md'), 'utf8')
  const rows = text.matchAll(
    /^\| (ingestion|consumer|archive|operator) +\| `(\w+)` +\| (topic|group) (.*)\|$/gm,
  )
  const documented = [...rows].flatMap(([, user, operation, resource, names = '']) =>
    [...names.matchAll(/`([^`]+)`/g)].map(([, name]) => `${user} ${operation} ${resource} ${name}`),
  )
  const used = [...OPERATOR, ...INGESTION, ...CONSUMER, ...ARCHIVE].map(
    ({ user, operation, resource, name }) => `${user} ${operation} ${resource} ${name}`,
  )
  assert.deepEqual(documented.sort(), used.sort())
})

const settingsOf = (user: User) => loadSettings(as(user), { cwd: '/nowhere' })

test("creates and checks the topics with the operator's rights alone", async () => {
  const first = await initTopics(settingsOf('operator'))
  assert.deepEqual(new Set(first.map(({ state }) => state)), new Set(['created']))
  const again = await initTopics(settingsOf('operator'))
  assert.deepEqual(new Set(again.map(({ state }) => state)), new Set(['present']))
})

test('stores trades with exactly the rights of the table, as two users', async () => {
  await using ingestion = await startIngestion()
  await using consumer = await startConsumer()
  await until('300 rows', async () => (await consumer.status()).counters.inserted > 300)
  await ingestion.stop()
  await consumer.stop()
  for (const { command } of [ingestion, consumer]) assert.doesNotMatch(command.output(), /"level":(40|50)/)
})

/** The purpose of a right, exercised as the services do. */
async function use({ operation, name }: Right, connection: KafkaConnection): Promise<void> {
  if (operation === 'WRITE')
    return sendRecords(connection, [
      outgoing({ topic: name, key: Buffer.from('!test'), value: Buffer.from('{}') }),
    ])
  await using fetcher = ended(new PartitionFetcher(connection, 'test', [name]), 'close')
  await fetcher.connect()
  const limits = { maxWaitMs: 100, minBytes: 1, maxBytes: 1 << 20 }
  const node = fetcher.leaderOf(name, 0) ?? -1
  const [fetched] = await fetcher.fetch(node, [{ topic: name, partition: 0, offset: 0 }], limits)
  if (fetched?.error != null) throw new Error(`${name}: ${fetched.error}`)
}

function needed(user: User): NeededRights {
  if (user === 'consumer') return consumerRights(consumerConfig(settingsOf(user)))
  if (user === 'archive') return archiveRights(archiveConfig(settingsOf(user)))
  return { topics: topicRights(ingestionConfig(settingsOf(user))) }
}

/** Repeats the work until Kafka refuses it. */
async function rejection(work: () => Promise<unknown>): Promise<Error> {
  const attempt = () =>
    work().then(
      () => undefined,
      (error: unknown) => error,
    )
  const error = await until('the refusal', attempt)
  assert.ok(error instanceof Error)
  return error
}

for (const right of [...INGESTION, ...CONSUMER, ...ARCHIVE]) {
  const { user, operation, resource, name } = right
  test(`refuses to start ${user} without ${operation} on ${resource} ${name}, by name`, async () => {
    const connection = kafkaConnection(settingsOf(user))
    await revoke(right)
    try {
      const refused = await rejection(() => requireAccess(connection, user, needed(user)))
      assert.equal(
        refused.message,
        `Kafka at ${kafka.at.SASL}: user ${user} lacks the right ${operation} on ${resource} ${name}`,
      )
      if (resource === 'topic') {
        const line = describeKafkaError(await rejection(() => use(right, connection)))
        // Without WRITE on any topic a client may not even become an idempotent producer.
        const refusal = `topic: ${name}\\.|${name}: TOPIC_AUTHORIZATION_FAILED|has neither WRITE on a topic`
        assert.match(line, new RegExp(refusal), 'the broker refuses it too')
      }
    } finally {
      await grant([right])
    }
    const granted = () => requireAccess(connection, user, needed(user))
    await until('access with the right', granted)
    if (resource === 'topic') await within(60_000, 'its use', () => use(right, connection))
  })
}

async function remove(topic: string): Promise<void> {
  await kafka.asAdmin(async (admin) => {
    if ((await admin.listTopics()).includes(topic)) await admin.deleteTopics({ topics: [topic] })
  })
}

// Only the dead letters: deleting the topic of the trades would lose those of earlier tests.
for (const right of OPERATOR.filter(({ name }) => name === 'binance.dead_letters')) {
  const { operation, name } = right
  test(`names the topic when the operator lacks ${operation} on it`, async () => {
    await revoke(right)
    try {
      const refused = await rejection(async () => {
        // Until the broker knows of the revocation, an attempt creates the topic.
        if (operation === 'CREATE') await remove(name)
        return initTopics(settingsOf('operator'))
      })
      assert.match(refused.message, new RegExp(`this user lacks a right on a topic: ${name}$`))
    } finally {
      await grant([right])
    }
    const create = async () => (await initTopics(settingsOf('operator'))).length === TOPICS.length + 2
    await until('the topics', create)
  })
}

test('ends each service with one clear line when a right is missing', async () => {
  const missing = [INGESTION[2], CONSUMER.at(-1)].filter((right) => right !== undefined)
  for (const right of missing) await revoke(right)
  try {
    await using ingestion = await startIngestion()
    await using consumer = await startConsumer()
    await ingestion.command.assertExit(1, 30_000)
    await consumer.command.assertExit(1, 30_000)
    assert.match(ingestion.command.output(), /user ingestion lacks the right WRITE on topic binance\.gaps"/)
    assert.match(consumer.command.output(), /user consumer lacks the right READ on group tapeline-consumer"/)
  } finally {
    await grant(missing)
  }
})

test('reports a right revoked at runtime, loses nothing, and continues when it is restored', async () => {
  const taken = [INGESTION[0], CONSUMER[0]].filter((right) => right !== undefined)
  await using ingestion = await startIngestion()
  await using consumer = await startConsumer()
  await ingestion.ready()
  await consumer.ready()
  for (const right of taken) await revoke(right)
  const line = /lacks a right on a topic: binance\.trades\. Grant it with an ACL/
  for (const { command } of [ingestion, consumer]) await command.waitForLine(line, 30_000)
  await grant(taken)
  await until('ingestion to have caught up', async () => {
    const { counters, ready } = await ingestion.status()
    return ready && counters.queued + counters.inFlight < 100 && counters.acknowledged > 500
  })
  await stopAndVerify(ingestion, consumer)
})

/** Ledger rows in the topic with this cause. */
async function ledgerRows(cause: string): Promise<Array<{ readonly status: string }>> {
  const messages = await readTopic('binance.gaps', [kafka.at.PLAINTEXT])
  return messages.map(({ value }) => JSON.parse(String(value))).filter((row) => row.cause === cause)
}

test('K7 K9 a refused topic does not stop the others; discarded events are in the ledger and are backfilled', async () => {
  const [writeTrades] = INGESTION
  assert.ok(writeTrades !== undefined)
  await using ingestion = await startIngestion({ KAFKA_QUEUE_MAX_BYTES: String(1 << 20) })
  await ingestion.ready()
  await using consumer = await startConsumer()
  await revoke(writeTrades)
  await until('discarded events', async () => (await ingestion.status()).counters.discarded > 300, 90_000)
  const during = await ingestion.status()
  assert.match(during.reason, /Kafka has not taken binance\.trades\/\d.*lacks a right on a topic/)
  assert.ok(during.heldPartitions.every(({ topic }) => topic === 'binance.trades'))
  assert.ok(during.connections.every(({ state }) => state === 'streaming'))
  await until(
    'quotes, which are accepted',
    async () => (await ingestion.status()).counters.acknowledged > during.counters.acknowledged + 100,
  )
  await grant([writeTrades])
  await until(
    'the discarded trades to be filled',
    async () => {
      const { openGaps, heldPartitions } = await ingestion.status()
      const isFilled = (await ledgerRows('refused')).some(({ status }) => status === 'filled')
      return heldPartitions.length === 0 && openGaps.length === 0 && isFilled
    },
    90_000,
  )
  const { counters } = await ingestion.status()
  assert.equal(
    counters.forwarded + counters.backfilled,
    counters.acknowledged + counters.discarded + counters.queued + counters.inFlight,
  )
  await stopAndVerify(ingestion, consumer)
})

test('K9 rows of a refused ledger survive in checkpoints, and the next instance publishes them', async () => {
  const writeGaps = INGESTION[2]
  assert.ok(writeGaps !== undefined)
  await using first = await startIngestion()
  await first.ready()
  await revoke(writeGaps)
  exchange.faults.add({ kind: 'cut', how: 'reset' })
  await until('ledger rows that Kafka refuses', async () => (await first.status()).heldPartitions.length > 0)
  const rows = async () => (await ledgerRows('reconnect')).length
  const before = await rows()
  await until('a checkpoint with the rows', async () => {
    const checkpoints = await readTopic('binance.checkpoints', [kafka.at.PLAINTEXT])
    return checkpoints.some(({ value }) => /"pending_gaps":\[.*"cause":"reconnect"/.test(String(value)))
  })
  assert.equal(await rows(), before)
  await first.command.kill()
  await grant([writeGaps])
  await using second = await startIngestion()
  await second.ready()
  await until('the rows of the previous instance', async () => (await rows()) > before)
  await second.stop()
})
