import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { countIds } from '../foundation/market/id-ranges.ts'
import type { IngestionStatus, LatencySummary } from '../foundation/telemetry/status.ts'
import type { RestMetricValues } from './backfill/rest-caller.ts'
import type { ConnectionSlot } from './connection-slot.ts'
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

export interface MetricInputs {
  readonly status: IngestionStatus
  readonly config: { readonly queueMaxBytes: number; readonly connectionMaxAgeMs: number }
  readonly producer: KafkaProducer
  readonly slots: readonly ConnectionSlot[]
  readonly gate: ExchangeGate
  readonly selection: SymbolSelection
  readonly pipeline: Pipeline | null
  /** On the monotonic clock. */
  readonly nowMs: number
  readonly wallMs: number
}

export function ingestionMetricValues(sources: MetricInputs): IngestionMetricValues {
  const { status, config, producer, slots, gate, selection, pipeline, nowMs, wallMs } = sources
  return {
    status,
    queueMaxBytes: config.queueMaxBytes,
    connectionMaxAgeMs: config.connectionMaxAgeMs,
    connectionsLost: slots.reduce((sum, { lost }) => sum + lost, 0),
    parsedEvents: pipeline?.handler.parsedEvents ?? 0,
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
export function openGapStatus(pipeline: Pipeline | null): IngestionStatus['openGaps'] {
  if (pipeline === null) return []
  return pipeline.ledger.openGaps.map((gap) => {
    const { gap_id, from_id, to_id, cause } = gap
    return { gapId: gap_id, fromId: from_id, toId: to_id, cause, ...pipeline.backfill.problemOf(gap) }
  })
}
