import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import type { ExchangeIdentity } from '../foundation/kafka/exchange-identity-mark.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import { VERSION } from '../foundation/telemetry/service.ts'
import type { IngestionStatus } from '../foundation/telemetry/status.ts'
import type { IngestionConfig } from './config.ts'
import type { Connections } from './connections.ts'
import { NO_FRAMES } from './core.ts'
import type { KafkaProducer } from './kafka-producer.ts'
import type { Pipeline } from './pipeline.ts'
import type { SymbolSelection } from './symbol-selection.ts'

/** The parts of ingestion that status and metrics show. */
export interface StatusSources {
  readonly config: Pick<IngestionConfig, 'queueMaxBytes' | 'connectionMaxAgeMs' | 'snapshotMaxAgeMs'>
  readonly producer: KafkaProducer
  readonly connections: Connections | null
  readonly gate: ExchangeGate
  readonly selection: SymbolSelection
  /** Null before recovery. */
  readonly pipeline: Pipeline | null
  /** Null until the exchange has answered. */
  readonly identity: ExchangeIdentity | null
  /** Why ingestion does not run yet; empty once it does. */
  readonly waitingFor: string
  readonly clock: Clock
  /** On the monotonic clock. */
  readonly startedAtMs: number
}

export function ingestionStatus(sources: StatusSources): IngestionStatus {
  const { connections, producer, gate, pipeline, identity } = sources
  const nowMs = sources.clock.monotonicMs()
  const slots = connections?.slots ?? []
  const core = pipeline?.core
  return {
    service: 'ingestion',
    version: VERSION,
    ...readiness(sources),
    source: identity?.source ?? null,
    timeUnit: identity?.timeUnit ?? null,
    uptimeMs: Math.round(nowMs - sources.startedAtMs),
    connections: slots.flatMap((slot) => slot.status()),
    rollovers: connections?.rollovers ?? 0,
    streams: core?.rates.status(connections?.streams ?? [], nowMs) ?? {},
    counters: {
      ...(core?.counters ?? NO_FRAMES),
      backfilled: pipeline?.backfill.backfilled ?? 0,
      acknowledged: producer.batches.acknowledged,
      discarded: producer.batches.discarded,
      queued: producer.queued,
      inFlight: producer.inFlight,
    },
    openGaps: pipeline?.backfill.status() ?? [],
    books: pipeline?.anchors?.status() ?? null,
    refusals: gate.status(),
    ignoredByReason: core?.reasons('ignored') ?? {},
    rejectedByReason: core?.reasons('rejected') ?? {},
    rejectedStreams: core?.rejections.status(nowMs) ?? [],
    queueBytes: producer.queue.bytes + producer.batches.held.bytes,
    heldPartitions: producer.batches.held.status(nowMs),
    kafkaProblem: producer.batches.problem,
    oldestUnacknowledgedMs: Math.round(producer.oldestUnacknowledgedMs(nowMs)),
    eventToReceiptMs: core?.eventToReceipt.summary(nowMs) ?? { count: 0, p50: 0, p90: 0, p99: 0, max: 0 },
    clockOffsetMs: core?.eventToReceipt.min(nowMs) ?? null,
  }
}

/** Without an acknowledgement for so long, Kafka counts as not producing. */
const PRODUCING_LIMIT_MS = 10_000

/** Returns whether ingestion is ready, and why not. */
export function readiness(sources: StatusSources): { ready: boolean; reason: string } {
  const reason = whyNotReady(sources)
  return { ready: reason === '', reason }
}

function whyNotReady({
  producer,
  pipeline,
  connections,
  selection,
  gate,
  clock,
  ...sources
}: StatusSources): string {
  const nowMs = clock.monotonicMs()
  const slots = connections?.slots ?? []
  const waitingFor = sources.waitingFor || selection.problem
  const refused = gate.summary
  // Kafka first: without it a start waits, or a full queue pauses the connections, which the
  // exchange then closes.
  const { batches } = producer
  const held = batches.held.status(nowMs)
  const [first] = held
  if (first !== undefined) {
    const { topic, partition, heldMs, reason } = first
    const others = held.length === 1 ? '' : ` and ${plural(held.length - 1, 'other partition')}`
    return `Kafka has not taken ${topic}/${partition}${others} for ${Math.round(heldMs / 1000)} s: ${reason}`
  }
  const waitedMs = producer.oldestUnacknowledgedMs(nowMs)
  if (waitedMs > PRODUCING_LIMIT_MS) {
    const { problem } = batches
    return `Kafka has not acknowledged for ${Math.round(waitedMs / 1000)} s${problem === null ? '' : `: ${problem}`}`
  }
  const because = refused === '' ? '' : `; ${refused}`
  // The cause first: a terminal may cut the line.
  const waiting = waitingFor === '' || refused === '' ? waitingFor : `${refused}; ${waitingFor}`
  const problem = pipeline?.topics.problem || waiting || pipeline?.core.rejections.problem(nowMs) || ''
  if (problem !== '') return problem
  const down = slots.filter((slot) => !slot.isOpen).length
  if (down > 0) return `${down} of ${slots.length} connections to the exchange are down${because}`
  const silentMs = Math.max(0, ...slots.map((slot) => slot.silentMs(nowMs) ?? 0))
  return silentMs > 0
    ? `a connection to the exchange has delivered nothing for ${Math.round(silentMs / 1000)} s`
    : ''
}
