import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { DEFAULT_EVENT_TYPES } from '../src/foundation/market/event.ts'
import { DEFINITIONS, type SettingName } from '../src/foundation/settings/definitions.ts'
import type { Closers } from '../src/foundation/telemetry/service.ts'
import { startKafkaBroker } from '../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../src/sandbox/kafka-broker/kafka-distribution.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { DEFAULT_SYMBOLS } from '../src/sandbox/simulator/market/instruments.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { CACHE_DIRECTORY } from '../test/support/bounded-run.ts'
import { type ClusterLayout, layOutCluster } from '../test/support/kafka-cluster.ts'
import { startTapeline } from '../test/support/processes.ts'
import { MARK } from '../test/support/test-run.ts'
import { layOutArchive, type SmallDisk } from './archive-stage.ts'
import { Brokers } from './brokers.ts'
import { launchBroker, launchEmbedded, launchService, openNative } from './launch.ts'
import type { ChaosOptions, PartName } from './options.ts'
import { type PartEvents, type PartProcess, SupervisedPart } from './part.ts'
import { Probe } from './probe.ts'
import type { ServiceName } from './recoveries.ts'

/** All running parts. */
export interface Stage {
  readonly exchange: Exchange
  /** Parts by name; there may be several brokers. */
  readonly parts: Readonly<Record<PartName, readonly SupervisedPart[]>>
  readonly ingestion: SupervisedPart
  readonly consumer: SupervisedPart
  readonly cluster: Brokers
  readonly probes: Readonly<Record<ServiceName, Probe>>
  /** Settings of both services. */
  readonly settings: Readonly<Record<string, string>>
  /** Value of `KAFKA_BROKERS`. */
  readonly brokers: string
  /** Names of the topics that the consumer reads. */
  readonly topics: Readonly<Record<'trades' | 'bookTicker' | 'depth' | 'gaps' | 'deadLetters', string>>
  readonly databaseUrl: string
  /** Description in reports: native, or embedded and why. */
  readonly databaseKind: string
  readonly ingestionUrl: string
  readonly consumerUrl: string
  /** Empty without an archive. */
  readonly archiveUrls: readonly string[]
  readonly archiveFolder: string | null
  /** Null without one that can be made full. */
  readonly archiveDisk: SmallDisk | null
}

interface StageOptions {
  readonly options: ChaosOptions
  /** Folder for all files of the run, which removes it at the end. */
  readonly folder: string
  readonly logsDir: string
  readonly closers: Closers
  readonly events: PartEvents
  readonly say: (text: string) => void
  readonly signal: AbortSignal
}

/**
 * An outage costs one page of ids per stream, whatever its length. This is the limit of a sole user
 * of an IP address.
 */
const REST_WEIGHT_PER_MINUTE = '5400'
const COMMAND_LIMIT_MS = 60_000
const TOPIC_SETTINGS = [
  'KAFKA_TRADES_TOPIC',
  'KAFKA_BOOK_TICKER_TOPIC',
  'KAFKA_DEPTH_TOPIC',
  'KAFKA_GAPS_TOPIC',
  'KAFKA_CHECKPOINTS_TOPIC',
  'KAFKA_DEAD_LETTERS_TOPIC',
] as const
/** Kafka's internal topic for the offsets of consumer groups. */
const GROUP_OFFSETS_TOPIC = '__consumer_offsets'

/**
 * Starts all parts. The consumer starts before ingestion, so that its start positions precede the
 * first message.
 */
export async function setStage(given: StageOptions): Promise<Stage> {
  const { options, folder, logsDir, closers, events, say, signal } = given
  mkdirSync(logsDir, { recursive: true })
  const supervised = (name: PartName, launch: () => Promise<PartProcess>, label: string = name) => {
    const part = new SupervisedPart(name, launch, events, label)
    closers.add(label, () => part.end())
    return part
  }

  say('starting Kafka and TimescaleDB')
  const kafka = await layOutKafka(given)
  const brokerParts = kafka.nodes.map((node) =>
    supervised(
      'broker',
      () => launchBroker(() => kafka.start(node, signal)),
      kafka.nodes.length === 1 ? 'broker' : `broker ${node}`,
    ),
  )
  const { brokers } = kafka
  const database = await openDatabase(given)
  const databasePart = supervised('database', database.launch)
  await Promise.all([...brokerParts, databasePart].map((part) => part.start(signal)))

  const symbols = symbolNames(options.symbols)
  const exchange = await startSimulatedExchange({
    messagesPerSecond: options.rate,
    seed: options.seed,
    symbols,
    // Consecutive connections cut the changes of a book at different moments, as on Binance.
    depthGroups: 2,
  })
  closers.add('exchange', () => exchange.close())
  const [ingestPort, consumerPort] = [await freePort(), await freePort()]
  const settings: Record<string, string> & { DATABASE_URL: string } = {
    REST_WEIGHT_PER_MINUTE,
    ...(symbols.length === DEFAULT_SYMBOLS.length ? {} : { SYMBOLS: '*' }),
    ...(options.depth ? { STREAM_TYPES: [...DEFAULT_EVENT_TYPES, 'depth'].join() } : {}),
    ...options.settings,
    KAFKA_BROKERS: brokers,
    ...(kafka.nodes.length === 1 ? {} : { KAFKA_REPLICATION_FACTOR: '3', KAFKA_MIN_INSYNC_REPLICAS: '2' }),
    DATABASE_URL: database.url(),
    BINANCE_WS_URL: exchange.wsUrl,
    BINANCE_REST_URL: exchange.restUrl,
    INGEST_PORT: String(ingestPort),
    CONSUMER_PORT: String(consumerPort),
  }
  const topic = (name: SettingName) => settings[name] ?? String(DEFINITIONS[name].fallback)
  await runTapeline(['topics', 'init'], settings)
  await runTapeline(['migrate'], settings)
  const cluster = new Brokers(brokerParts, brokers.split(','), [
    ...TOPIC_SETTINGS.map(topic),
    GROUP_OFFSETS_TOPIC,
  ])
  await cluster.inSync(signal)
  const probes = {
    ingestion: new Probe(folder, 'ingestion', options.heap),
    consumer: new Probe(folder, 'consumer', options.heap),
  }
  const { PATH, HOME, LANG } = process.env
  const environment = { PATH, HOME, LANG, [MARK]: process.env[MARK], ...settings }
  const service = (name: ServiceName, command: 'ingest' | 'consume') => {
    const env = { ...environment, ...probes[name].environment() }
    return supervised(name, () => launchService(command, env, join(logsDir, `${name}.log`)))
  }
  const consumer = service('consumer', 'consume')
  const ingestion = service('ingestion', 'ingest')
  const archive = options.archive
    ? await layOutArchive({
        ...{ folder, logsDir, closers, say, env: environment },
        supervised: (label, launch) => supervised('archive', launch, label),
      })
    : null
  return {
    exchange,
    parts: {
      broker: brokerParts,
      database: [databasePart],
      consumer: [consumer],
      ingestion: [ingestion],
      archive: archive?.parts ?? [],
    },
    ingestion,
    consumer,
    cluster,
    probes,
    settings,
    brokers,
    topics: {
      trades: topic('KAFKA_TRADES_TOPIC'),
      bookTicker: topic('KAFKA_BOOK_TICKER_TOPIC'),
      depth: topic('KAFKA_DEPTH_TOPIC'),
      gaps: topic('KAFKA_GAPS_TOPIC'),
      deadLetters: topic('KAFKA_DEAD_LETTERS_TOPIC'),
    },
    databaseUrl: settings.DATABASE_URL,
    databaseKind: database.kind,
    ingestionUrl: `http://127.0.0.1:${ingestPort}`,
    consumerUrl: `http://127.0.0.1:${consumerPort}`,
    archiveUrls: archive?.urls ?? [],
    archiveFolder: archive?.folder ?? null,
    archiveDisk: archive?.disk ?? null,
  }
}

/** Prepares one broker, or a cluster of three, without starting them. */
async function layOutKafka({ options, folder, signal }: StageOptions): Promise<ClusterLayout> {
  const distributionDir = await ensureKafkaDistribution({
    cacheDir: CACHE_DIRECTORY,
    onProgress: () => undefined,
    signal,
  })
  const dataDir = join(folder, 'kafka')
  if (options.brokers === 3) return layOutCluster(distributionDir, dataDir)
  const port = await freePort()
  return {
    nodes: [1],
    brokers: `127.0.0.1:${port}`,
    start: (_, abort) =>
      startKafkaBroker({ distributionDir, dataDir, port, ...(abort === undefined ? {} : { signal: abort }) }),
  }
}

/** The exchange's three default symbols, followed by generated ones. */
function symbolNames(count: number): string[] {
  return Array.from({ length: count }, (_, i) => DEFAULT_SYMBOLS[i] ?? `COIN${i + 1}USDT`)
}

/** Runs a command to its end. @returns its output; throws if it does not exit with 0 */
async function runTapeline(args: readonly string[], env: Readonly<Record<string, string>>): Promise<string> {
  await using command = startTapeline(args, { env })
  await command.assertExit(0, COMMAND_LIMIT_MS)
  return command.output()
}

async function openDatabase({
  options,
  folder,
  logsDir,
  closers,
  say,
  signal,
}: StageOptions): Promise<{ kind: string; url: () => string; launch: () => Promise<PartProcess> }> {
  let why = 'as requested'
  if (options.database !== 'embedded') {
    const native = await openNative(CACHE_DIRECTORY, say)
    if (!('skip' in native)) {
      closers.add('data of TimescaleDB', () => native.server.stop())
      return { kind: 'native TimescaleDB', url: () => native.server.url, launch: native.launch }
    }
    why = native.skip
    if (options.database === 'native') throw new Error(`No native TimescaleDB: ${why}`)
    say(`no native TimescaleDB (${why}): using the embedded one`)
  }
  const port = await freePort()
  let url = ''
  return {
    kind: `embedded TimescaleDB (${why})`,
    url: () => url,
    async launch() {
      const server = await launchEmbedded({ folder, port, logFile: join(logsDir, 'database.log') }, signal)
      url = server.url
      return server
    },
  }
}
