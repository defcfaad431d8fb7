import type {
  ConnectionStatus,
  LatencySummary,
  PartitionStatus,
} from '../../../foundation/telemetry/status.ts'

/*
 * What the dashboard's server tells its pages, once a second, as JSON. Prices are the exchange's own digits. Times are
 * milliseconds since the Unix epoch.
 */

export type Health = 'well' | 'ailing' | 'away'

/** A part of the pipeline, as it says itself; `away` does not answer. */
export interface PartView {
  readonly name: string
  readonly url: string
  readonly health: Health
  /** Why it is not well, or what the exchange refuses it meanwhile; empty when there is nothing to say. */
  readonly reason: string
  readonly uptimeMs: number | null
}

/** The newest rows of a symbol; null where there is none. */
export interface SymbolView {
  readonly symbol: string
  readonly price: string | null
  readonly tradeTimeMs: number | null
  readonly bid: string | null
  readonly ask: string | null
  readonly quoteTimeMs: number | null
}

/** A connection of an ingestion; ids are its own. */
export interface ConnectionView extends ConnectionStatus {
  /** The name of the ingestion among the parts. */
  readonly part: string
}

export interface StreamView {
  readonly stream: string
  readonly perSecond: number
  readonly events: number
  /** Milliseconds since its last event. */
  readonly silentMs: number | null
  readonly quiet: boolean
}

/** A row of the ledger. */
export interface GapView {
  readonly gapId: string
  readonly revision: number
  readonly symbol: string
  readonly eventType: string
  readonly fromId: number | null
  readonly toId: number | null
  readonly fromMs: number | null
  readonly toMs: number | null
  readonly cause: string
  readonly status: string
  readonly reason: string | null
  readonly detectedMs: number
  readonly closedMs: number | null
}

export interface DeadLetterView {
  /** `topic/partition/offset`. */
  readonly place: string
  readonly origin: string
  readonly reason: string
  readonly failedMs: number
  readonly attempts: number
  readonly resolvedMs: number | null
}

/** What the database says; it is asked less often than the services. */
export interface StoredView {
  readonly symbols: readonly SymbolView[]
  /** The newest by their last change. */
  readonly gaps: readonly GapView[]
  readonly gapsByStatus: Readonly<Record<string, number>>
  readonly deadLetters: readonly DeadLetterView[]
  readonly unresolvedDeadLetters: number
}

/** Something changed for the worse, or was mended. */
export interface Incident {
  readonly number: number
  readonly atMs: number
  readonly kind: 'bad' | 'good' | 'note'
  readonly text: string
}

export interface Snapshot {
  readonly atMs: number
  readonly version: string
  readonly source: string | null
  readonly parts: readonly PartView[]
  /** What is wrong now; empty when all is well. */
  readonly problems: readonly string[]
  /** Gaps that cannot be filled now, and why: one line for each ingestion service. */
  readonly unfilled: readonly string[]
  readonly connections: readonly ConnectionView[]
  /** Those that have gone quiet, and the busiest. */
  readonly streams: readonly StreamView[]
  /** How many more there are. */
  readonly streamsLeftOut: number
  readonly partitions: readonly PartitionStatus[]
  readonly eventToReceiptMs: LatencySummary
  readonly receiptToRowMs: LatencySummary
  /** Of all ingestion services; null while none answers. */
  readonly received: number | null
  /** Rows that all consumers had inserted since their start when each last answered; null while none answers. */
  readonly inserted: number | null
  readonly rowsPerSecond: number | null
  readonly stored: StoredView | null
  /** Those that were not told before. */
  readonly incidents: readonly Incident[]
  readonly moment: Moment
}

/** One moment of what is drawn over time. Null where it is not known. */
export interface Moment {
  readonly atMs: number
  readonly receiptP50: number | null
  readonly receiptP99: number | null
  readonly rowP50: number | null
  readonly rowP99: number | null
  /** Null also while a consumer does not answer. */
  readonly lag: number | null
  readonly rowsPerSecond: number | null
  readonly messagesPerSecond: number | null
}

/** What a page is told first: what has been, and then a {@link Snapshot} a second. */
export interface Past {
  readonly moments: readonly Moment[]
  readonly incidents: readonly Incident[]
}

/** A second of a symbol; prices for drawing only. */
export interface SeriesPoint {
  readonly atMs: number
  readonly price: number | null
  readonly bid: number | null
  readonly ask: number | null
}
