import { DeadLetterSender } from '../foundation/dead-letters/dead-letter-sender.ts'
import { PartitionFetcher } from '../foundation/kafka/partition-fetcher.ts'
import { systemClock } from '../foundation/runtime/clock.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { startHealthServer } from '../foundation/telemetry/health-server.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { createMetrics } from '../foundation/telemetry/metrics.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { RunningService } from '../foundation/telemetry/service.ts'
import { Closers } from '../foundation/telemetry/service.ts'
import { type ChunkMaintenance, startChunkMaintenance } from './chunk-maintenance.ts'
import type { ConsumerConfig } from './config.ts'
import { ConsumerCounts } from './counts.ts'
import { databaseStore } from './database-store.ts'
import { openDatabase, sourceCheck } from './db.ts'
import { EnvironmentProbe, NOTHING_KNOWN } from './environment-probe.ts'
import { openGroupClient } from './group-client.ts'
import { awaitKafkaAccess } from './kafka-access.ts'
import { LagProbe } from './lag-probe.ts'
import { CONSUMER_METRICS } from './metrics.ts'
import { Reopener } from './reopener.ts'
import { Worker } from './worker.ts'

/** A batch takes milliseconds. A database that takes longer than this is considered unhealthy. */
const WRITING_LIMIT_MS = 10_000

/**
 * How long a stop waits for connections to close, once the number of unstored messages is known.
 */
const CLOSE_MS = 800

/**
 * Starts the consumer service: Kafka to TimescaleDB. Its HTTP server answers at once, with 503
 * until partitions are assigned and the database accepts batches.
 *
 * @throws TapelineError `ENVIRONMENT` when its port is taken
 */
export async function startConsumer(config: ConsumerConfig, log: Logger): Promise<RunningService> {
  const clock = systemClock()
  const ports = { clock, random: Math.random, log }
  const startedAtMs = clock.monotonicMs()
  const counts = new ConsumerCounts(clock)
  const ended = Promise.withResolvers<unknown>()
  const closers = new Closers()
  const starting = new AbortController()
  let worker: Worker | null = null
  let environment: EnvironmentProbe | null = null
  let lag: LagProbe | null = null
  let maintenance: ChunkMaintenance | null = null

  let waitingFor = 'the database has not answered yet'

  const readiness = () => {
    const reason = (worker === null ? waitingFor : whyNotReady(worker)) || (maintenance?.problem ?? '')
    return { ready: reason === '', reason }
  }
  const health = () => ({ ...readiness(), uptimeMs: clock.monotonicMs() - startedAtMs })
  const partitions = () => lag?.partitions() ?? []
  const status = () => counts.status(worker, health(), partitions())
  const sources = () => ({
    status: status(),
    counts,
    worker,
    environment: environment?.known ?? NOTHING_KNOWN,
  })
  const http = await startHealthServer(
    { host: config.host, port: config.port, portSetting: 'CONSUMER_PORT' },
    {
      readiness,
      status,
      metrics: createMetrics('consumer', sources, CONSUMER_METRICS),
    },
  )
  closers.add('http', () => http.close())

  const work = async () => {
    const database = await openDatabase(config, ports, starting.signal)
    closers.add('database', () => database.close())
    const chunks = startChunkMaintenance(database, config.chunkMaintenance, clock, log)
    closers.add('chunk maintenance', () => chunks.stop())
    maintenance = chunks
    waitingFor = 'Kafka has not answered yet'
    await awaitKafkaAccess(config, ports, starting.signal)
    const watch = new EnvironmentProbe(database, config, clock, log)
    closers.add('environment probe', () => watch.stop())
    watch.start()
    environment = watch
    const reopener = new Reopener(config, database, clock, log)
    closers.add('reopener', () => reopener.stop())
    reopener.start()
    const letters = new DeadLetterSender(config, ports)
    closers.add('dead letters', () => letters.close())
    worker = new Worker(
      config,
      {
        ...ports,
        store: databaseStore(database, clock, log),
        openFetcher: () =>
          new PartitionFetcher(config.kafka, 'tapeline-consumer-fetch', sourceTopics(config)),
        openGroupClient: (topics) => openGroupClient(config, topics),
        sendLetters: (found, signal) => letters.send(found, signal),
        checkSource: sourceCheck(config, database, clock, log),
      },
      {
        onStored: counts.stored.bind(counts),
        onLost: () => reopener.notice(),
        onRetry: () => {
          counts.retries++
        },
        onFatal: ended.resolve,
      },
    )
    const running = worker
    const probe = new LagProbe(
      config,
      sourceTopics(config),
      () => ({ assigned: running.assigned, stored: running.batchBuilder.progress() }),
      clock,
      log,
    )
    closers.add('lag', () => probe.stop())
    probe.start()
    lag = probe
    worker.start()
  }
  const working = work().catch((error: unknown) => {
    if (!starting.signal.aborted) ended.resolve(error)
  })
  log.info({ url: http.url, group: config.groupId }, 'Consumer started')

  return {
    url: http.url,
    ended: ended.promise,
    async stop(signal) {
      starting.abort(new Error('stopping'))
      await working
      const { left, committed } = (await worker?.stop(signal)) ?? { left: 0, committed: true }
      await closers.closeAll(CLOSE_MS)
      if (left > 0) {
        throw new TapelineError(
          'STOPPED_DIRTY',
          `${plural(left, 'message')} read from Kafka and not stored`,
          {
            fix: 'Nothing is lost: start the consumer, and it reads them again.',
          },
        )
      }
      // The database holds the authoritative offsets, and the next owner of the partitions commits
      // them.
      if (!committed)
        log.warn('Kafka did not accept the last commit of the group; the next start commits these offsets')
      log.info('Consumer stopped, 0 messages left')
    },
  }
}

/** The topics that the consumer reads. Only ingestion reads the checkpoints. */
function sourceTopics({ topics }: ConsumerConfig): string[] {
  return [topics.trades, topics.bookTicker, topics.gaps, topics.deadLetters]
}

function whyNotReady(worker: Worker): string {
  if (worker.groupFailure !== null) return `the consumer group cannot be joined: ${worker.groupFailure}`
  if (!worker.isPositioned) return fetchProblem(worker) ?? 'no partitions are assigned yet'
  const { waiting } = worker
  if (waiting !== null && waiting.ms > WRITING_LIMIT_MS) {
    const what =
      waiting.for === 'Kafka' ? 'Kafka has not taken dead letters' : 'the database has not taken a batch'
    const why = worker.writeFailure === null ? '' : `: ${worker.writeFailure}`
    return `${what} for ${Math.round(waiting.ms / 1000)} s${why}`
  }
  const problem = fetchProblem(worker) ?? worker.backedOff
  if (problem !== null) return problem
  return worker.writeFailure === null ? '' : `the last flush failed: ${worker.writeFailure}`
}

function fetchProblem({ fetchFailure }: Worker): string | null {
  return fetchFailure === null ? null : `nothing can be fetched: ${fetchFailure}`
}
