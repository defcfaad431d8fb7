import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { requireAccess } from '../src/foundation/kafka/access.ts'
import type { KafkaConnection } from '../src/foundation/kafka/config.ts'
import { kafkaConnection } from '../src/foundation/kafka/config.ts'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { latestValue } from '../src/foundation/kafka/read-range.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { type ReadOptions, readEvents } from '../src/tools/client/read-events.ts'
import { createTestDatabase, type TestDatabase } from './support/database.ts'
import { outgoing, sendRecords } from './support/kafka-clients.ts'
import { startTapeline } from './support/processes.ts'
import { type SecuredKafka, startSecuredKafka } from './support/secured-kafka.ts'
import { startConsumerProcess, startIngestionProcess } from './support/services.ts'
import { until, within } from './support/wait-for.ts'

const PASSWORD = 'correct-horse-battery'
const TOPIC = 'echo'

let kafka: SecuredKafka
let exchange: Exchange
let database: TestDatabase
let folder: string

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kafka-security-'))
  exchange = await startSimulatedExchange({ messagesPerSecond: 300 })
  database = await createTestDatabase()
  kafka = await within(90_000, 'a broker', () => startSecuredKafka({ alice: PASSWORD }))
  await kafka.asAdmin((admin) =>
    admin.createTopics({ topics: [{ topic: TOPIC, partitions: 1, replicas: 1 }] }),
  )
})

after(async () => {
  await kafka.stop()
  await database.drop()
  await exchange.close()
  await rm(folder, { recursive: true, force: true })
})

type Environment = Readonly<Record<string, string>>

const tls = (): Environment => ({ KAFKA_TLS: 'true', KAFKA_TLS_CA: kafka.files.ca })
const mutual = (): Environment => ({
  ...tls(),
  KAFKA_BROKERS: kafka.at.MUTUAL,
  KAFKA_TLS_CERT: kafka.files.client.cert,
  KAFKA_TLS_KEY: kafka.files.client.key,
})
const login = (mechanism: string, password = PASSWORD): Environment => ({
  KAFKA_BROKERS: kafka.at.SASL,
  KAFKA_SASL_MECHANISM: mechanism,
  KAFKA_SASL_USERNAME: 'alice',
  KAFKA_SASL_PASSWORD: password,
})
const MECHANISMS = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']

function connectionFrom(environment: Environment): KafkaConnection {
  return kafkaConnection(loadSettings(environment, { cwd: folder }))
}

const WAYS: Record<string, () => Environment> = {
  'TLS alone, by address': () => ({ ...tls(), KAFKA_BROKERS: kafka.at.TLS }),
  'TLS alone, by name': () => ({ ...tls(), KAFKA_BROKERS: kafka.at.TLS.replace('127.0.0.1', 'localhost') }),
  'a client certificate': mutual,
  ...Object.fromEntries(MECHANISMS.map((name) => [`TLS and ${name}`, () => ({ ...tls(), ...login(name) })])),
}

test('the client ends at a refused login or certificate, and names the setting to fix', async () => {
  const { brokers, tls: known, sasl } = connectionFrom({ ...tls(), ...login('PLAIN', 'wrong') })
  assert.ok(known !== null && sasl !== null)
  const first = (options: Pick<ReadOptions, 'tls' | 'sasl'>) =>
    within(20_000, 'the end of the reading', () =>
      readEvents({ brokers, topics: { trades: TOPIC, bookTicker: TOPIC }, ...options }).next(),
    )
  await assert.rejects(first({ tls: known, sasl }), { code: 'ACCESS', fix: /KAFKA_SASL_PASSWORD/ })
  // Signed by an authority that Node does not know.
  await assert.rejects(first({ tls: {}, sasl }), { code: 'ACCESS', fix: /KAFKA_TLS_CA/ })
})

for (const [way, environment] of Object.entries(WAYS)) {
  test(`writes and reads through ${way}`, async () => {
    const connection = connectionFrom(environment())
    const rights = new Map([[TOPIC, ['READ', 'WRITE'] as const]])
    const topics = await within(10_000, 'access', () => requireAccess(connection, 'test', { topics: rights }))
    assert.equal(topics.get(TOPIC)?.partitions, 1)
    const message = outgoing({ topic: TOPIC, key: Buffer.from('way'), value: Buffer.from(way) })
    await within(10_000, 'a send', () => sendRecords(connection, [message]))
    const fetcher = new PartitionFetcher(connection, 'test', [TOPIC])
    assert.equal(await within(10_000, 'a read', () => latestValue(fetcher, TOPIC, 'way')), way)
  })
}

test('stores trades over TLS, ingestion with a password and the consumer with a certificate', async () => {
  await using init = startTapeline(['topics', 'init'], { env: { ...tls(), ...login('SCRAM-SHA-256') } })
  await init.assertExit(0)
  await using ingestion = await startIngestionProcess({
    ...tls(),
    ...login('SCRAM-SHA-512'),
    BINANCE_WS_URL: exchange.wsUrl,
    BINANCE_REST_URL: exchange.restUrl,
  })
  await using consumer = await startConsumerProcess({
    ...mutual(),
    DATABASE_URL: database.url,
    AUTO_OFFSET_RESET: 'earliest',
  })
  await until('300 rows', async () => (await consumer.status()).counters.inserted > 300)
  await ingestion.stop()
  await consumer.stop()
  const rows = openPostgres({ url: database.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  const { rows: found } = await rows.query<{ count: string }>('SELECT count(*) FROM trades')
  await rows.close()
  assert.ok(Number(found[0]?.count) > 0)
  assert.doesNotMatch(ingestion.command.output() + consumer.command.output(), new RegExp(PASSWORD))
})

/** By the fault: the environment, the error line and the setting that it must name. */
type Faults = Record<string, readonly [environment: () => Environment, message: RegExp, fix: RegExp]>

/** Permanent refusals. */
const FINAL: Faults = {
  "an authority that did not sign the broker's certificate": [
    () => ({ KAFKA_BROKERS: kafka.at.TLS, KAFKA_TLS: 'true', KAFKA_TLS_CA: kafka.files.otherCa }),
    /not signed by a trusted authority/,
    /KAFKA_TLS_CA/,
  ],
  'no authority at all': [
    () => ({ KAFKA_BROKERS: kafka.at.TLS, KAFKA_TLS: 'true' }),
    /not signed by a trusted authority/,
    /KAFKA_TLS_CA/,
  ],
  'a certificate for another host': [
    () => ({ ...tls(), KAFKA_BROKERS: kafka.at.ELSEWHERE }),
    /certificate of the broker is for another host/,
    /KAFKA_BROKERS/,
  ],
  'plain text to a TLS listener': [
    () => ({ KAFKA_BROKERS: kafka.at.TLS }),
    /broker speaks TLS and this client does not/,
    /KAFKA_TLS=true/,
  ],
  'a login without SASL on the listener': [
    () => ({ ...tls(), ...login('PLAIN'), KAFKA_BROKERS: kafka.at.TLS }),
    /listener of the broker has no SASL login/,
    /KAFKA_SASL_MECHANISM/,
  ],
  ...Object.fromEntries(
    MECHANISMS.map((name) => [
      `a wrong password with ${name}`,
      [
        () => ({ ...tls(), ...login(name, 'wrong-staple') }),
        /rejects this user or password/,
        /KAFKA_SASL_PASSWORD/,
      ],
    ]),
  ),
}

/** A broker that is shutting down looks the same, so these are logged and retried. */
const HUNG_UP: Faults = {
  'no client certificate although the broker requires one': [
    () => ({ ...tls(), KAFKA_BROKERS: kafka.at.MUTUAL }),
    /the broker closed the connection/,
    /KAFKA_TLS_CERT/,
  ],
  'no login although the broker requires one': [
    () => ({ ...tls(), KAFKA_BROKERS: kafka.at.SASL }),
    /the broker closed the connection/,
    /KAFKA_SASL_MECHANISM/,
  ],
  'a plain-text password to a TLS listener': [
    () => login('PLAIN'),
    /the broker closed the connection/,
    /KAFKA_TLS=true/,
  ],
  'TLS to a plain-text listener': [
    () => ({ ...tls(), KAFKA_BROKERS: kafka.at.PLAINTEXT }),
    /the broker ended the TLS handshake/,
    /KAFKA_TLS=false/,
  ],
}

for (const [code, faults] of Object.entries({ ACCESS: FINAL, KAFKA: HUNG_UP }))
  for (const [fault, [environment, message, fix]] of Object.entries(faults))
    test(`reports ${fault} as ${code}, with the setting to fix, and does not hang`, async () => {
      const connection = connectionFrom(environment())
      const rights = { topics: new Map([[TOPIC, ['READ'] as const]]) }
      await within(10_000, 'an answer', () =>
        assert.rejects(requireAccess(connection, 'test', rights), { code, message, fix }),
      )
    })

test('every command ends with the error line and the fix when the password is wrong, and never shows it', async () => {
  const env = {
    ...tls(),
    ...login('SCRAM-SHA-512', 'wrong-staple'),
    BINANCE_WS_URL: exchange.wsUrl,
    BINANCE_REST_URL: exchange.restUrl,
    DATABASE_URL: database.url,
    LOG_LEVEL: 'debug',
  }
  await using init = startTapeline(['topics', 'init'], { env })
  await using ingestion = await startIngestionProcess(env)
  await using consumer = await startConsumerProcess(env)
  for (const command of [init, ingestion.command, consumer.command]) {
    await command.assertExit(1, 30_000)
    assert.match(command.output(), /rejects this user or password/)
    assert.match(command.output(), /KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM/)
    assert.doesNotMatch(command.output(), /wrong-staple/)
  }
})

test('refuses invalid PEM files, and a key without its certificate, before it opens anything', async () => {
  const other = join(folder, 'no.pem')
  await writeFile(other, 'this is no certificate')
  const { ca, client } = kafka.files
  const absent = join(folder, 'absent.pem')
  const pair = (cert: string, key: string) => ({ KAFKA_TLS_CERT: cert, KAFKA_TLS_KEY: key })
  const wrong: Array<[Environment, RegExp]> = [
    [{ KAFKA_TLS_CA: other }, /KAFKA_TLS_CA=.*no\.pem: expected a certificate in PEM/],
    [{ KAFKA_TLS_CA: absent }, /KAFKA_TLS_CA=.*absent\.pem: expected a readable PEM file/],
    [pair(other, client.key), /KAFKA_TLS_CERT=.*no\.pem: expected a certificate/],
    [pair(client.cert, other), /KAFKA_TLS_KEY=.*no\.pem: expected the private key/],
    [pair(ca, client.key), /KAFKA_TLS_KEY=.*: expected the private key of KAFKA_TLS_CERT=/],
  ]
  for (const [files, message] of wrong)
    assert.throws(() => connectionFrom({ KAFKA_TLS: 'true', ...files }), { code: 'SETTINGS', message })
})
