import { markArchive } from '../foundation/archive/archive-mark.ts'
import { newestPublishedDay } from '../foundation/archive/day-list.ts'
import { openDuckDb } from '../foundation/archive/duckdb.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { openStore } from '../foundation/archive/open-store.ts'
import { openGroupClient } from '../foundation/consumption/group-client.ts'
import { LagProbe } from '../foundation/consumption/lag-probe.ts'
import { topicKinds } from '../foundation/consumption/partition-reader.ts'
import { awaitAccess } from '../foundation/kafka/access.ts'
import {
  EXCHANGE_IDENTITY_KEY,
  markOf,
  parseMark,
  rejectOtherTopics,
} from '../foundation/kafka/exchange-identity-mark.ts'
import { PartitionFetcher } from '../foundation/kafka/partition-fetcher.ts'
import { latestValue } from '../foundation/kafka/read-range.ts'
import { repeat, retry, unlessAborted } from '../foundation/runtime/backoff.ts'
import { systemClock } from '../foundation/runtime/clock.ts'
import { describeWithFix, isFinal, TapelineError } from '../foundation/runtime/errors.ts'
import { startHealthServer } from '../foundation/telemetry/health-server.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { createMetrics } from '../foundation/telemetry/metrics.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import { Closers, type RunningService, type ServicePorts, VERSION } from '../foundation/telemetry/service.ts'
import type { ArchiveStatus } from '../foundation/telemetry/status.ts'
import { Announcer } from './announcer.ts'
import { Archiver } from './archiver.ts'
import { type ArchiveConfig, archiveRights } from './config.ts'
import { ArchiveCounts } from './counts.ts'
import { DayEnds } from './day-ends.ts'
import { duckDbCompaction } from './day-merge.ts'
import { ArchiveKeyframes } from './keyframes.ts'
import { ARCHIVE_METRICS } from './metrics.ts'
import { Publishing } from './publishing.ts'
import { StoreProblem } from './store-problem.ts'

const CLOSE_MS = 800
const COMPACT_EVERY_MS = 3_600_000
/** Until the next check whether to publish: after a failure, and while a day waits for its ends. */
const AGAIN_MS = 60_000
const KEYFRAMES_EVERY_MS = 600_000

/**
 * Starts the archive service: Kafka to Parquet files. Its HTTP server answers at once, with 503 until
 * partitions are assigned and segments can be written.
 *
 * @throws TapelineError `ENVIRONMENT` when its port is taken
 */
export async function startArchive(config: ArchiveConfig, log: Logger): Promise<RunningService> {
  const clock = systemClock()
  const ports: ServicePorts = { clock, random: Math.random, log }
  const startedAtMs = clock.monotonicMs()
  const counts = new ArchiveCounts()
  const ended = Promise.withResolvers<unknown>()
  const closers = new Closers()
  const starting = new AbortController()
  let waitingFor = 'the archive has not been opened yet'
  let archiver: Archiver | null = null
  let lag: LagProbe | null = null
  let stopPublishing = () => {}

  const readiness = () => {
    const reason = archiver === null ? waitingFor : (archiver.problem ?? '')
    return { ready: reason === '', reason }
  }
  const status = (): ArchiveStatus => ({
    service: 'archive',
    version: VERSION,
    ...readiness(),
    uptimeMs: clock.monotonicMs() - startedAtMs,
    partitions: lag?.partitions() ?? [],
    consumed: archiver?.segments.counters.consumed ?? 0,
    deadLetters: archiver?.segments.counters.deadLetters ?? 0,
    pending: archiver?.segments.pending ?? 0,
    heldBytes: archiver?.segments.heldBytes ?? 0,
    oldestUncommittedMs: archiver?.oldestUncommittedMs ?? 0,
    ...counts.totals,
  })
  const http = await startHealthServer(
    { host: config.host, port: config.port, portSetting: 'ARCHIVE_PORT' },
    { readiness, status, metrics: createMetrics('archive', status, ARCHIVE_METRICS) },
  )
  closers.add('http', () => http.close())

  const work = async () => {
    const store = await openStore(config.store)
    closers.add('store', () => store.close())
    const opening = new StoreProblem(log)
    const onUnusable = (error: unknown) => {
      if (isFinal(error)) throw error
      opening.failed(`The archive ${store.name} cannot be used`, error, clock.monotonicMs())
      waitingFor = opening.reason ?? waitingFor
    }
    const prepare = () => unlessAborted(store.prepare(), starting.signal)
    await retry(prepare, onUnusable, config.backoff, ports, starting.signal)
    opening.worked()
    waitingFor = 'Kafka has not answered yet'
    await awaitAccess(config, 'tapeline-archive', archiveRights(config), ports, starting.signal)
    waitingFor = 'the topics do not name the exchange of their data yet: ingestion has not started'
    const onUnmarked = (error: unknown) => {
      if (isFinal(error)) throw error
      waitingFor = `the archive cannot be marked yet: ${describeWithFix(error)}`
      log.warn(`Retrying: ${waitingFor}`)
    }
    const mark = () => unlessAborted(markByTopics(store, config), starting.signal)
    await retry(mark, onUnmarked, config.backoff, ports, starting.signal)
    const engine = await openDuckDb({
      memoryBytes: config.engineBytes,
      tempFolder: config.tempFolder ?? store.stagingFolder,
      threads: config.engineThreads,
    })
    closers.add('engine', () => engine.close())
    const topics = [...topicKinds(config.topics).keys()]
    const days = new DayEnds(store, () => running.readEnds(), clock)
    const running: Archiver = new Archiver(config, {
      ...ports,
      store,
      duckDb: await engine.connect(),
      openFetcher: () => new PartitionFetcher(config.kafka, 'tapeline-archive-fetch', topics),
      openGroupClient: (names) => openGroupClient({ ...config, clientId: 'tapeline-archive' }, names),
      onCommitted: (segment, files, tookMs) => {
        counts.committed(segment, files, tookMs)
        days.committed(files)
      },
      onFatal: ended.resolve,
    })
    archiver = running
    const progress = () => ({ assigned: running.assigned, stored: running.segments.progress() })
    const probe = new LagProbe(config.kafka, 'tapeline-archive-lag', topics, progress, ports)
    closers.add('lag', () => probe.stop())
    lag = probe
    running.start()
    const compactor = await engine.connect()
    const compaction = duckDbCompaction(store, compactor, clock)
    const announcer =
      config.announcer &&
      new Announcer({ kafka: config.kafka, ...config.announcer }, { store, duckDb: compactor, clock })
    const publishing = new Publishing({
      ...{ compaction, announcer, clock, graceMs: config.graceMs },
      isOver: (...of) => days.isOver(...of),
      onPublished: (one) => {
        counts.published(one)
        log.info(one, 'Published a day')
        if (one.conflicts !== null)
          log.error(
            one,
            'Rows contradict one with the same identity, which stays: they are in a separate file',
          )
      },
      onRemoved: (removed) => log.info({ removed }, 'Removed files that newer ones replace'),
    })
    const stopping = new AbortController()
    let nextAtMs = 0
    const publish = async () => {
      try {
        counts.newestDay = await newestPublishedDay(store)
        const nowMs = clock.monotonicMs()
        if (!running.isFirst || (nowMs < nextAtMs && !(await days.mayBeOver()))) return AGAIN_MS
        nextAtMs = 0
        await publishing.run(stopping.signal)
        nextAtMs = nowMs + COMPACT_EVERY_MS
        counts.newestDay = await newestPublishedDay(store)
        return AGAIN_MS
      } catch (error) {
        if (stopping.signal.aborted) return 0
        counts.failedCompactions++
        log.error({ err: error }, `Publishing days failed, retrying: ${describeWithFix(error)}`)
        return AGAIN_MS
      }
    }
    const repeating = repeat(publish, stopping.signal, clock)
    const keyframer = await engine.connect()
    const keyframes = new ArchiveKeyframes(store, keyframer, clock)
    const makeKeyframes = async () => {
      try {
        if (running.isFirst) await keyframes.round(stopping.signal)
      } catch (error) {
        if (!stopping.signal.aborted)
          log.warn({ err: error }, `Storing keyframes failed, retrying: ${describeWithFix(error)}`)
      }
      // Also what a round has stored before it failed.
      counts.keyframes = keyframes.made
      return KEYFRAMES_EVERY_MS
    }
    const keyframing = repeat(makeKeyframes, stopping.signal, clock)
    stopPublishing = () => {
      stopping.abort()
      for (const connection of [compactor, keyframer]) connection.interrupt()
    }
    closers.add('compaction', () => repeating)
    closers.add('keyframes', () => keyframing)
  }
  const working = work().catch((error: unknown) => {
    if (!starting.signal.aborted) ended.resolve(error)
  })
  log.info({ url: http.url, group: config.groupId, archive: config.store.url }, 'Archive started')

  return {
    url: http.url,
    ended: ended.promise,
    async stop(signal) {
      starting.abort(new Error('stopping'))
      await working
      // First, so that it does not delay the last segments.
      stopPublishing()
      const left = (await archiver?.stop(signal)) ?? 0
      await closers.closeAll(CLOSE_MS)
      if (left > 0) {
        throw new TapelineError(
          'STOPPED_DIRTY',
          `${plural(left, 'message')} read from Kafka and not archived`,
          {
            fix: 'Nothing is lost: start the archive, and it reads them again.',
          },
        )
      }
      log.info('Archive stopped, 0 messages left')
    },
  }
}

/** Marks the archive with the exchange. @throws while ingestion has not named it */
async function markByTopics(store: ObjectStore, { kafka, topics }: ArchiveConfig): Promise<void> {
  const text = await latestValue(
    new PartitionFetcher(kafka, 'tapeline-archive-mark', [topics.checkpoints]),
    topics.checkpoints,
    EXCHANGE_IDENTITY_KEY,
  )
  if (text === null) throw new Error('ingestion has not named the exchange of its data')
  const mark = parseMark(text, topics.checkpoints)
  rejectOtherTopics(topics.checkpoints, mark, markOf(mark, topics))
  await markArchive(store, mark)
}
