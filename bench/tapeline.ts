import { randomBytes } from 'node:crypto'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { startTapeline } from '../test/support/processes.ts'
import type { Measured, Pipeline } from './pipeline.ts'
import type { Place } from './place.ts'

const COMMAND_LIMIT_MS = 60_000
const STOP_LIMIT_MS = 30_000

/** This project's services; only they have an archive. */
export interface TapelinePipeline extends Pipeline {
  /** The settings of its services. */
  readonly env: Readonly<Record<string, string>> & Readonly<Record<TopicSetting, string>>
  startArchive(url: string, settings?: Readonly<Record<string, string>>): Promise<Measured>
  again(): Promise<TapelinePipeline>
}

type TopicSetting =
  | 'KAFKA_BROKERS'
  | 'KAFKA_PARTITIONS'
  | 'KAFKA_TRADES_TOPIC'
  | 'KAFKA_BOOK_TICKER_TOPIC'
  | 'KAFKA_DEPTH_TOPIC'
  | 'KAFKA_GAPS_TOPIC'
  | 'KAFKA_CHECKPOINTS_TOPIC'
  | 'KAFKA_DEAD_LETTERS_TOPIC'

/** Sets up this project's services, with the default settings. */
export async function layTapeline(
  place: Place,
  symbols: readonly string[],
  settings: Readonly<Record<string, string>>,
): Promise<TapelinePipeline> {
  const prefix = `tapeline-${randomBytes(4).toString('hex')}`
  const env = {
    KAFKA_BROKERS: place.brokers,
    KAFKA_TRADES_TOPIC: `${prefix}.trades`,
    KAFKA_BOOK_TICKER_TOPIC: `${prefix}.book_ticker`,
    KAFKA_DEPTH_TOPIC: `${prefix}.depth`,
    KAFKA_GAPS_TOPIC: `${prefix}.gaps`,
    KAFKA_CHECKPOINTS_TOPIC: `${prefix}.checkpoints`,
    KAFKA_DEAD_LETTERS_TOPIC: `${prefix}.dead_letters`,
    BINANCE_WS_URL: place.feeder.wsUrl,
    BINANCE_REST_URL: place.feeder.restUrl,
    SYMBOLS: symbols.join(),
    KAFKA_PARTITIONS: '3',
    AUTO_OFFSET_RESET: 'earliest',
    ...settings,
  }
  await command(['topics', 'init'], env)
  return layConsumer(place, prefix, env)
}

async function layConsumer(
  place: Place,
  prefix: string,
  shared: TapelinePipeline['env'],
): Promise<TapelinePipeline> {
  const database = await place.createDatabase()
  const group = `tapeline-${randomBytes(4).toString('hex')}`
  const env = { ...shared, DATABASE_URL: database.url, KAFKA_GROUP_ID: group }
  await command(['migrate'], env)
  return {
    env,
    databaseUrl: database.url,
    topics: [shared.KAFKA_TRADES_TOPIC, shared.KAFKA_BOOK_TICKER_TOPIC],
    partitions: Number(shared.KAFKA_PARTITIONS),
    group,
    tables: { timed: 'trades', untimed: 'book_ticker' },
    startIngestion: async (settings = {}) =>
      measured(['ingest'], 'INGEST_PORT', await freePort(), { ...env, ...settings }),
    startConsumer: async (settings = {}) =>
      measured(['consume'], 'CONSUMER_PORT', await freePort(), { ...env, ...settings }),
    startArchive: async (url, settings = {}) =>
      measured(['archive'], 'ARCHIVE_PORT', await freePort(), {
        ...env,
        ARCHIVE_URL: url,
        KAFKA_ARCHIVE_GROUP_ID: `${group}-archive`,
        ...settings,
      }),
    async again() {
      const other = await layConsumer(place, prefix, shared)
      // The first one deletes the topics.
      return { ...other, remove: other.removeDatabase }
    },
    removeDatabase: database.drop,
    async remove() {
      await database.drop()
      await place.deleteTopics(prefix)
    },
  }
}

function measured(
  args: readonly string[],
  portSetting: string,
  port: number,
  env: Readonly<Record<string, string>>,
): Measured {
  const running = startTapeline(args, { env: { ...env, [portSetting]: String(port) } })
  return {
    pid: running.pid,
    url: `http://127.0.0.1:${port}`,
    output: running.output,
    async stop() {
      try {
        running.signal('SIGTERM')
        await running.exit(STOP_LIMIT_MS)
      } finally {
        await running.kill()
      }
    },
  }
}

async function command(args: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
  await using running = startTapeline(args, { env })
  await running.assertExit(0, COMMAND_LIMIT_MS)
}
