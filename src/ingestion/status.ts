import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import type { ExchangeIdentity } from '../foundation/kafka/exchange-identity-mark.ts'
import { countIds } from '../foundation/market/id-ranges.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { IngestionStatus, LatencySummary } from '../foundation/telemetry/status.ts'
import { VERSION } from '../foundation/telemetry/version.ts'
import type { RestMetricValues } from './backfill/rest-caller.ts'
import type { Connections } from './connections.ts'
import { NO_FRAMES } from './core.ts'
import type { KafkaProducer } from './kafka-producer.ts'
import type { Pipeline } from './pipeline.ts'
import type { SymbolSelection } from './symbol-selection.ts'

/** Counts by event type or cause, then by what is counted. */
export type Counts = Readonly<Record<string, Readonly<Record<string, number>>>>

export interface GapMetricValues {
  /** By event type, then cause. */
  readonly opened: Counts
  /** By event type, then status. */
  readonly closed: Counts
  /** `count` and `ms` of windows without quotes, by cause. */
  readonly outages: Counts
  /** Ids of open gaps that are still missing. */
  readonly openIds: number
  /** Age of the oldest open gap, in milliseconds; 0 when there is none. */
  readonly oldestOpenMs: number
}

/** Metric values that `/status` does not show. */
export interface IngestionMetricValues {
  readonly status: IngestionStatus
  readonly queueMaxBytes: number
  readonly connectionMaxAgeMs: number
  readonly connectionsLost: number
  readonly parsedEvents: number
  readonly sends: number
  readonly sendFailures: number
  readonly slowSends: number
  readonly sendMs: LatencySummary
  /** Partitions that lost acknowledged messages; null before recovery. */
  readonly truncations: number | null
  /** Ledger rows that wait for Kafka and are in no checkpoint; null before recovery. */
  readonly unsavedRows: number | null
  /** Null before recovery. */
  readonly gaps: GapMetricValues | null
  readonly rest: RestMetricValues | null
  /** Subscribed symbols, by whether they trade. */
  readonly symbols: Readonly<Record<'trading' | 'halted', number>>
  /** Symbols without a subscription, by reason. */
  readonly symbolsLeftOut: Readonly<Record<string, number>>
  readonly handshakesRefused: Readonly<Record<string, number>>
  /** Remaining time without handshakes. */
  readonly handshakesBlockedMs: number
}

/** The parts of ingestion that status and metrics show. */
export interface StatusSources {
  readonly config: { readonly queueMaxBytes: number; readonly connectionMaxAgeMs: number }
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

export function ingestionMetricValues(sources: StatusSources): IngestionMetricValues {
  const { config, producer, gate, selection, pipeline, clock } = sources
  const slots = sources.connections?.slots ?? []
  const nowMs = clock.monotonicMs()
  const wallMs = clock.wallMicros() / 1000
  return {
    status: ingestionStatus(sources),
    queueMaxBytes: config.queueMaxBytes,
    connectionMaxAgeMs: config.connectionMaxAgeMs,
    connectionsLost: slots.reduce((sum, { lost }) => sum + lost, 0),
    parsedEvents: pipeline?.core.parsedEvents ?? 0,
    sends: producer.batches.sends,
    slowSends: producer.batches.slowSends,
    sendFailures: producer.batches.failures,
    sendMs: producer.batches.sendTimes(nowMs),
    truncations: pipeline?.truncations ?? null,
    unsavedRows: pipeline?.unsavedRows ?? null,
    gaps: pipeline === null ? null : gapMetricValues(pipeline, wallMs),
    rest: pipeline?.rest.metricValues() ?? null,
    symbols: {
      trading: selection.subscribed.size - selection.halted.size,
      halted: selection.halted.size,
    },
    symbolsLeftOut: leftOutByReason(selection),
    handshakesRefused: gate.handshakesRefused,
    handshakesBlockedMs: gate.leftMs('handshakes'),
  }
}

function leftOutByReason({ leftOut }: SymbolSelection): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const reason of leftOut.values()) counts[reason] = (counts[reason] ?? 0) + 1
  return counts
}

function gapMetricValues({ ledger, backfill }: Pipeline, wallMs: number): GapMetricValues {
  const { openGaps, opened, closed, outages } = ledger
  const detectedMs = openGaps.map((gap) => gap.detected_at)
  return {
    opened: opened.groups(),
    closed: closed.groups(),
    outages: outages.groups(),
    openIds: openGaps.reduce((sum, gap) => sum + countIds(backfill.missingIn(gap)), 0),
    // No spread: there may be more gaps than a call takes arguments.
    oldestOpenMs: Math.max(0, wallMs - detectedMs.reduce((least, ms) => Math.min(least, ms), wallMs)),
  }
}

/** Open gaps as `/status` shows them. */
function openGapStatus(pipeline: Pipeline | null): IngestionStatus['openGaps'] {
  if (pipeline === null) return []
  return pipeline.ledger.openGaps.map((gap) => {
    const { gap_id, from_id, to_id, cause } = gap
    return { gapId: gap_id, fromId: from_id, toId: to_id, cause, ...pipeline.backfill.problemOf(gap) }
  })
}

/** Returns the content of `/status`. */
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
    rollovers: slots.reduce((sum, { rollovers }) => sum + rollovers, 0),
    streams: core?.rates.status(connections?.streams ?? [], nowMs) ?? {},
    counters: {
      ...(core?.counters ?? NO_FRAMES),
      backfilled: pipeline?.backfill.backfilled ?? 0,
      acknowledged: producer.batches.acknowledged,
      discarded: producer.batches.discarded,
      queued: producer.queued,
      inFlight: producer.inFlight,
    },
    openGaps: openGapStatus(pipeline),
    refusals: gate.status(),
    ignoredByReason: core?.reasons('ignored') ?? {},
    rejectedByReason: core?.reasons('rejected') ?? {},
    rejectedStreams: core?.rejections.status(nowMs) ?? [],
    queueBytes: producer.queue.bytes + producer.batches.heldBytes,
    heldPartitions: producer.batches.heldPartitions(nowMs),
    kafkaProblem: producer.batches.problem,
    oldestUnacknowledgedMs: Math.round(producer.oldestUnacknowledgedMs(nowMs)),
    eventToReceiptMs: core?.eventToReceipt(nowMs) ?? { count: 0, p50: 0, p90: 0, p99: 0, max: 0 },
    clockOffsetMs: core?.leastEventToReceiptMs(nowMs) ?? null,
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
  const held = batches.heldPartitions(nowMs)
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
