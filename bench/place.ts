import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { Admin } from '@platformatic/kafka'
import { clientOptions } from '../src/foundation/kafka/client.ts'
import type { TimeUnit } from '../src/foundation/market/time-unit.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { startKafkaBroker } from '../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../src/sandbox/kafka-broker/kafka-distribution.ts'
import { CACHE_DIRECTORY, type RunPlace } from '../test/support/bounded-run.ts'
import { startNativeTimescale } from '../test/support/native-timescaledb.ts'
import { runStatements } from '../test/support/statements.ts'
import { Feeder } from './feeder/feeder.ts'

/** The servers that both pipelines run against. */
export interface Place {
  readonly brokers: string
  readonly brokerPid: number
  readonly postgresPid: number
  readonly feeder: Feeder
  readonly admin: Admin
  /** Creates an empty database; its URL connects as a superuser. */
  createDatabase(): Promise<{ url: string; drop: () => Promise<void> }>
  /** @param prefix of the topics' names */
  deleteTopics(prefix: string): Promise<void>
}

/** Starts the broker, the native TimescaleDB and the feeder. */
export async function setPlace(
  symbols: readonly string[],
  timeUnit: TimeUnit,
  { folder, closers, say, signal }: RunPlace,
): Promise<Place> {
  say('starting Kafka and TimescaleDB')
  const distributionDir = await ensureKafkaDistribution({
    cacheDir: CACHE_DIRECTORY,
    onProgress: () => undefined,
    signal,
  })
  const broker = await startKafkaBroker({
    distributionDir,
    dataDir: join(folder, 'kafka'),
    port: 0,
    // The broker records when each message was appended, independent of the producer.
    extraProperties: { 'log.message.timestamp.type': 'LogAppendTime' },
    signal,
  })
  closers.add('broker', async () => {
    await broker.stop()
  })
  const admin = new Admin(
    clientOptions({ brokers: [broker.brokers], tls: null, sasl: null }, 'tapeline-bench'),
  )
  closers.add('admin', () => admin.close())
  const server = await startNativeTimescale({ cacheDir: CACHE_DIRECTORY, onProgress: say })
  if ('skip' in server) throw new Error(`The benchmark needs the native TimescaleDB: ${server.skip}`)
  closers.add('database', () => server.stop())
  // PostgreSQL records when each row was committed, for any client.
  await runStatements(server.url, 'ALTER SYSTEM SET track_commit_timestamp = on')
  await server.restart()
  const feeder = await Feeder.start('market', symbols, join(folder, 'feeder.log'), timeUnit)
  closers.add('feeder', async () => {
    await feeder.stop()
  })
  return {
    brokers: broker.brokers,
    brokerPid: broker.pid,
    postgresPid: server.pid,
    feeder,
    admin,
    async createDatabase() {
      const name = `bench_${randomBytes(4).toString('hex')}`
      await runStatements(server.url, `CREATE DATABASE ${name}`)
      const url = new URL(server.url)
      url.pathname = name
      return {
        url: url.href,
        drop: () => runStatements(server.url, `DROP DATABASE ${name} WITH (FORCE)`),
      }
    },
    async deleteTopics(prefix) {
      const topics = (await admin.listTopics()).filter((name) => name.startsWith(prefix))
      if (topics.length > 0) await admin.deleteTopics({ topics })
    },
  }
}

/** A connection for the benchmark's few statements. */
export async function withDatabase<Result>(
  url: string,
  use: (database: Database) => Promise<Result>,
): Promise<Result> {
  const database = openPostgres({
    url,
    poolMin: 0,
    poolMax: 1,
    queryTimeoutMs: 30 * 60_000,
    applicationName: 'tapeline-bench',
  })
  try {
    return await use(database)
  } finally {
    await database.close()
  }
}
