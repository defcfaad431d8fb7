import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { countIds } from '../foundation/market/id-ranges.ts'
import type { IngestionStatus, LatencySummary } from '../foundation/telemetry/status.ts'
import type { RestMetricValues } from './backfill/rest-caller.ts'
import type { ConnectionSlot } from './connection-slot.ts'
import type { KafkaProducer } from './kafka-producer.ts'
import type { Pipeline } from './pipeline.ts'
import type { SymbolSelection } from './symbol-selection.ts'

/** Counts by event type or cause, and by what is counted of it. */
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

/** What metrics tell beyond `/status`. */
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
  /** Partitions that had lost messages that Kafka had acknowledged; null before ingestion has read its memory. */
  readonly truncations: number | null
  /** Rows of the ledger that waited for Kafka and that no checkpoint has; null likewise. */
  readonly unsavedRows: number | null
  /** Null before ingestion has read its memory. */
  readonly gaps: GapMetricValues | null
  readonly rest: RestMetricValues | null
  /** Since the start, by HTTP status. */
  /** Symbols that are subscribed to, by whether they trade. */
  readonly symbols: Readonly<Record<'trading' | 'halted', number>>
  /** Symbols that are not, by the reason. */
  readonly symbolsLeftOut: Readonly<Record<string, number>>
  readonly handshakesRefused: Readonly<Record<string, number>>
  /** How long no handshake is tried. */
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
    // Not by the spread operator: there may be more gaps than a call takes arguments.
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
