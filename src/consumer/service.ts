import { openGroupClient } from '../foundation/consumption/group-client.ts'
import { LagProbe } from '../foundation/consumption/lag-probe.ts'
import { topicKinds } from '../foundation/consumption/partition-reader.ts'
import { DeadLetterSender } from '../foundation/dead-letters/dead-letter-sender.ts'
import { awaitAccess } from '../foundation/kafka/access.ts'
import { PartitionFetcher } from '../foundation/kafka/partition-fetcher.ts'
import { byEventType } from '../foundation/market/event.ts'
import { systemClock } from '../foundation/runtime/clock.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { startHealthServer } from '../foundation/telemetry/health-server.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { createMetrics } from '../foundation/telemetry/metrics.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import { Closers, type RunningService, type ServicePorts, VERSION } from '../foundation/telemetry/service.ts'
import type { ConsumerStatus } from '../foundation/telemetry/status.ts'
import { archivedRetention } from './archived-retention.ts'
import { WriteCounts } from './batch-writer.ts'
import { type ChunkMaintenance, startChunkMaintenance } from './chunk-maintenance.ts'
import { type ConsumerConfig, consumerRights } from './config.ts'
import { databaseStore } from './database-store.ts'
import { openDatabase, sourceCheck } from './db.ts'
import { type EnvironmentProbe, NOTHING_KNOWN, startEnvironmentProbe } from './environment-probe.ts'
import { Keyframes } from './keyframes.ts'
import { CONSUMER_METRICS } from './metrics.ts'
import { Reopener } from './reopener.ts'
import { Worker } from './worker.ts'

/** How long a stop waits for connections to close, once the number of unstored messages is known. */
const CLOSE_MS = 800

/**
 * Starts the consumer service: Kafka to TimescaleDB. Its HTTP server answers at once, with 503
 * until partitions are assigned and the database accepts batches.
 *
 * @throws TapelineError `ENVIRONMENT` when its port is taken
 */
export async function startConsumer(config: ConsumerConfig, log: Logger): Promise<RunningService> {
  const clock = systemClock()
  const ports: ServicePorts = { clock, random: Math.random, log }
  const startedAtMs = clock.monotonicMs()
  const counts = new WriteCounts()
  const ended = Promise.withResolvers<unknown>()
  const closers = new Closers()
  const starting = new AbortController()
  let waitingFor = 'the database has not answered yet'
  let worker: Worker | null = null
  let environment: EnvironmentProbe | null = null
  let lag: LagProbe | null = null
  let maintenance: ChunkMaintenance | null = null
  let keyframes: Keyframes | null = null

  const archived =
    config.archivedDaysTopic === null
      ? null
      : archivedRetention(config.kafka, config.archivedDaysTopic, ports)

  const readiness = () => {
    const reason = (worker === null ? waitingFor : worker.problem) || (maintenance?.problem ?? '')
    return { ready: reason === '', reason }
  }
  const status = (): ConsumerStatus => {
    const nowMs = clock.monotonicMs()
    const { flushes, retries, inserted, alreadyThere, deadLettered } = counts.totals
    const { consumed, discarded } = worker?.batchBuilder.counters ?? { consumed: 0, discarded: 0 }
    const pending = worker?.batchBuilder.pending ?? 0
    return {
      service: 'consumer',
      version: VERSION,
      ...readiness(),
      uptimeMs: nowMs - startedAtMs,
      generation: worker?.generation ?? null,
      partitions: lag?.partitions() ?? [],
      counters: { consumed, inserted, alreadyThere, deadLettered, discarded, pending },
      rows: byEventType((type) => Object.fromEntries(counts.rows[type])),
      flushes,
      retries,
      eventToRowMs: counts.eventToRow.summary(nowMs),
      receiptToRowMs: counts.receiptToRow.summary(nowMs),
    }
  }
  const sources = () => {
    return {
      status: status(),
      counts,
      worker,
      environment: environment?.known ?? NOTHING_KNOWN,
      archived,
      keyframes,
    }
  }
  const http = await startHealthServer(
    { host: config.host, port: config.port, portSetting: 'CONSUMER_PORT' },
    { readiness, status, metrics: createMetrics('consumer', sources, CONSUMER_METRICS) },
  )
  closers.add('http', () => http.close())

  const work = async () => {
    const database = await openDatabase(config, ports, starting.signal)
    closers.add('database', () => database.close())
    waitingFor = 'Kafka has not answered yet'
    const rights = consumerRights(config)
    const present = await awaitAccess(config, 'tapeline-consumer', rights, ports, starting.signal)
    const topics = [...topicKinds(config.topics).keys()]
    const lackingTopics = new Set(topics.filter((topic) => !present.has(topic)))
    const chunks = startChunkMaintenance(database, config.chunkMaintenance, clock, log, archived)
    closers.add('chunk maintenance', () => chunks.stop())
    maintenance = chunks
    const books = new Keyframes(database, log)
    books.start(clock)
    closers.add('keyframes', () => books.stop())
    keyframes = books
    const watch = startEnvironmentProbe(database, config, ports, lackingTopics)
    closers.add('environment probe', () => watch.stop())
    environment = watch
    const reopener = new Reopener(config, database, ports)
    closers.add('reopener', () => reopener.stop())
    const letters = new DeadLetterSender(config, ports)
    closers.add('dead letters', () => letters.close())
    const running = new Worker(config, {
      ...ports,
      counts,
      store: databaseStore(database, clock, log),
      lackingTopics,
      openFetcher: () =>
        new PartitionFetcher(config.kafka, 'tapeline-consumer-fetch', topics, undefined, lackingTopics),
      openGroupClient: (names) => openGroupClient({ ...config, clientId: 'tapeline-consumer' }, names),
      sendLetters: (found, signal) => letters.send(found, signal),
      checkSource: sourceCheck(config, database, ports),
      onLost: () => reopener.notice(),
      onFatal: ended.resolve,
    })
    worker = running
    const progress = () => ({ assigned: running.assigned, stored: running.batchBuilder.progress() })
    const probe = new LagProbe(
      ...([config.kafka, 'tapeline-consumer-lag', topics, progress, ports, lackingTopics] as const),
    )
    closers.add('lag', () => probe.stop())
    lag = probe
    running.start()
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
        const fix = 'Nothing is lost: start the consumer, and it reads them again.'
        const what = `${plural(left, 'message')} read from Kafka and not stored`
        throw new TapelineError('STOPPED_DIRTY', what, { fix })
      }
      // The database holds the authoritative offsets, and the next owner of the partitions commits
      // them.
      if (!committed)
        log.warn('Kafka did not accept the last commit of the group; the next start commits these offsets')
      log.info('Consumer stopped, 0 messages left')
    },
  }
}
