import { resolve } from 'node:path'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { describeError } from '../src/foundation/runtime/errors.ts'
import { describeExit, type Exit } from '../src/sandbox/processes/child-process.ts'
import type { RunPlace } from '../test/support/bounded-run.ts'
import { until } from '../test/support/wait-for.ts'
import { examine } from './aftermath.ts'
import { Observer } from './observer.ts'
import type { ChaosOptions, PartName } from './options.ts'
import { type ChaosResult, resultOf } from './result.ts'
import { Saboteur } from './saboteur.ts'
import { planFaults } from './schedule.ts'
import { type Stage, setStage } from './stage.ts'
import { Violations } from './violations.ts'

const READY_LIMIT_MS = 90_000
const PROGRESS_EVERY_MS = 5000
/** The system counts as quiet after this time without activity. */
const QUIET_MS = 5000
const LAG_LIMIT_MS = 120_000
/** A service may fail to deliver at shutdown if a part it needs had a fault within this time. */
const TROUBLE_MS = 20_000
/** A younger process may not handle signals yet, so SIGTERM ends it. It has no work in progress. */
const YOUNG_MS = 10_000
/** The parts that a clean shutdown of a service needs. */
const NEEDS: Readonly<Record<string, ReadonlyArray<PartName | 'disk'>>> = {
  ingestion: ['broker'],
  consumer: ['broker', 'database'],
  archive: ['broker', 'disk'],
}

/**
 * One run: starts everything, injects the faults of the seed, waits for quiet, stops the services,
 * and checks the result.
 *
 * @throws when the run itself fails; errors of the pipeline are in the result
 */
export async function runChaos(
  options: ChaosOptions,
  { folder, closers, say, signal }: RunPlace,
): Promise<ChaosResult> {
  const schedule = planFaults(options)
  const violations = new Violations((sentence) => say(`VIOLATION: ${sentence}`))
  let saboteur: Saboteur | null = null
  const events = {
    onViolation: (sentence: string) => violations.add(sentence),
    onFailedStart: say,
    onStopped(part: PartName, exit: Exit, ageMs: number) {
      const needs = NEEDS[part]
      if (needs === undefined || exit.code === 0) return
      if (exit.signal === 'SIGTERM' && ageMs < YOUNG_MS) return
      const inTrouble = needs.some(
        (name) => (saboteur?.lastTroubleMs.get(name) ?? 0) > Date.now() - TROUBLE_MS,
      )
      if (!inTrouble || exit.code !== 1)
        violations.add(
          `${part} exited with ${describeExit(exit)} after SIGTERM${inTrouble ? '' : ', although all parts that it needs were up'}.`,
        )
    },
  }
  const logsDir = options.logsDir ?? resolve(folder, 'logs')
  const stage = await setStage({ options, folder, logsDir, closers, events, say, signal })
  say(`broker ${stage.brokers}, ${stage.databaseKind}, exchange ${stage.exchange.wsUrl}`)
  const observer = new Observer(stage, violations)
  closers.add('observer', () => observer.stop())
  await stage.consumer.start(signal)
  observer.start()
  await ready('the consumer', () => observer.consumer?.ready, signal)
  await stage.ingestion.start(signal)
  await ready('ingestion', () => observer.ingestion?.ready && observer.received > 0, signal)
  for (const part of stage.parts.archive) await part.start(signal)
  await ready('the archive', () => observer.archives.every((one) => one?.ready === true), signal)

  const startedMs = performance.now()
  say(
    `${schedule.processFaults.length} faults of processes, ${schedule.clusterFaults.length} of the cluster, ${schedule.clockFaults.length} of clocks, ${schedule.exchangeFaults.length} of the exchange and ${schedule.diskFaults.length} of the archive's disk are planned`,
  )
  saboteur = new Saboteur(stage, observer)
  const progress = reportProgress(observer, saboteur, violations, say)
  try {
    const lasting = sleep(options.forMs, signal)
    await Promise.all([saboteur.carryOut(schedule, options.forMs, signal), lasting])
    stage.exchange.faults.clear()
    const brokenMs = performance.now() - startedMs
    say('faults are over; waiting until the system is quiet')
    await quiet(observer, options.quietMs, violations, signal)
    const durationMs = performance.now() - startedMs
    await stopServices(stage, observer, violations, signal)
    clearInterval(progress)
    const aftermath = await examine(options, stage, observer, saboteur, violations, say)
    return resultOf({ options, stage, observer, saboteur, violations, aftermath, brokenMs, durationMs })
  } finally {
    clearInterval(progress)
  }
}

async function ready(what: string, isReady: () => boolean | undefined, signal: AbortSignal): Promise<void> {
  await until(
    `${what} to be ready`,
    () => {
      signal.throwIfAborted()
      return isReady()
    },
    READY_LIMIT_MS,
  )
}

function reportProgress(
  observer: Observer,
  saboteur: Saboteur,
  violations: Violations,
  say: (text: string) => void,
): NodeJS.Timeout {
  let [lastMs, lastReceived] = [performance.now(), observer.received]
  return setInterval(() => {
    const nowMs = performance.now()
    const rate = Math.round(((observer.received - lastReceived) * 1000) / (nowMs - lastMs))
    lastMs = nowMs
    lastReceived = observer.received
    const state = (seen: { ready: boolean } | null) => (seen?.ready === true ? 'ok' : 'DOWN')
    const gaps = observer.ingestion?.status?.openGaps.length ?? '?'
    say(
      `ingestion ${state(observer.ingestion)} ${rate} msg/s, ${gaps} gaps open; consumer ${state(observer.consumer)}, lag ${observer.lag ?? 'unknown'}; ` +
        observer.archives.map((one, i) => `archive ${i + 1} ${state(one)}; `).join('') +
        `${saboteur.faults} faults, ${violations.count} violations`,
    )
  }, PROGRESS_EVERY_MS)
}

/** Waits until nothing is missing or in progress for a while. */
async function quiet(
  observer: Observer,
  limitMs: number,
  violations: Violations,
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + limitMs
  let quietSinceMs = performance.now()
  for (;;) {
    const nowMs = performance.now()
    const unrest = observer.unrest()
    if (unrest !== '') quietSinceMs = nowMs
    if (nowMs - quietSinceMs >= QUIET_MS) return
    if (nowMs >= deadline) {
      violations.add(`Not quiet within ${limitMs / 1000} s after the last fault: ${unrest}.`)
      return
    }
    await sleep(200, signal)
  }
}

/** Stops ingestion first, then consumer and archive once they have stored everything in Kafka. */
async function stopServices(
  stage: Stage,
  observer: Observer,
  violations: Violations,
  signal: AbortSignal,
): Promise<void> {
  await stage.ingestion.stop()
  const topics = Object.values(stage.topics)
  const kafka = new PartitionFetcher(
    { brokers: stage.brokers.split(','), tls: null, sasl: null },
    'tapeline-chaos',
    topics,
  )
  const stores = [
    { name: 'consumer', partitions: () => observer.consumer?.status?.partitions ?? [] },
    { name: 'archive', partitions: () => observer.archives.flatMap((one) => one?.status?.partitions ?? []) },
  ].filter(({ name }) => name === 'consumer' || observer.archives.length > 0)
  try {
    await kafka.connect()
    for (const { name, partitions } of stores) {
      const stored = async () => {
        signal.throwIfAborted()
        const ends = await kafka.offsetRanges()
        const own = partitions()
        return ends.every(({ topic, partition, start, end }) => {
          const isHere = (one: (typeof own)[number]) => one.topic === topic && one.partition === partition
          return end === start || own.some((one) => isHere(one) && (one.nextOffset ?? 0) >= end)
        })
      }
      await until(`the ${name} to store everything in Kafka`, stored, LAG_LIMIT_MS, 250).catch((error) => {
        if (signal.aborted) throw error
        violations.add(`The ${name} did not reach the end of the topics: ${describeError(error)}.`)
      })
    }
  } finally {
    await kafka.close()
  }
  await observer.stop()
  await stage.consumer.stop()
  for (const part of stage.parts.archive) await part.stop()
}
