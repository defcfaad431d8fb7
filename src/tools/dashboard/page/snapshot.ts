import type {
  ConnectionStatus,
  LatencySummary,
  PartitionStatus,
} from '../../../foundation/telemetry/status.ts'

/* The JSON of the dashboard's server. Prices have all digits; times are ms since the Unix epoch. */

export type Health = 'well' | 'ailing' | 'away'

/** The state of a part of the pipeline as it reports it; `away` means that it does not answer. */
export interface PartView {
  readonly name: string
  readonly url: string
  readonly health: Health
  /** Why it is not ready, or what the exchange refuses it; empty if there is nothing to report. */
  readonly reason: string
  readonly uptimeMs: number | null
}

/** The newest rows of a symbol; null where there are none. */
export interface SymbolView {
  readonly symbol: string
  readonly price: string | null
  readonly tradeTimeMs: number | null
  readonly bid: string | null
  readonly ask: string | null
  readonly quoteTimeMs: number | null
}

/** A connection of an ingestion. Ids are unique only within that ingestion. */
export interface ConnectionView extends ConnectionStatus {
  readonly part: string
}

export interface StreamView {
  readonly stream: string
  readonly perSecond: number
  readonly events: number
  readonly silentMs: number | null
  readonly quiet: boolean
}

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

/** Data of the database, which is polled less often than the services. */
export interface StoredView {
  readonly symbols: readonly SymbolView[]
  /** Open gaps first, then the most recently changed. */
  readonly gaps: readonly GapView[]
  readonly gapsByStatus: Readonly<Record<string, number>>
  readonly deadLetters: readonly DeadLetterView[]
  readonly unresolvedDeadLetters: number
}

/** All archives together, since each one's start. */
export interface ArchiveView {
  /** Rows in files, and the bytes of these. */
  readonly rows: number
  readonly bytes: number
  /** Messages read per second. */
  readonly perSecond: number
  /** Messages in Kafka that are not in files; null while unknown. */
  readonly lag: number | null
  /** Time since the oldest message that is not in a file was read from Kafka. */
  readonly oldestUncommittedMs: number
  readonly newestDay: string | null
}

/** A problem that appeared or was solved, or another change. */
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
  /** Current problems; empty when there are none. */
  readonly problems: readonly string[]
  /** Gaps that cannot be filled now, and why: one line for each ingestion service. */
  readonly unfilled: readonly string[]
  /** Order books without a usable snapshot, and why: likewise. */
  readonly unknownBooks: readonly string[]
  readonly connections: readonly ConnectionView[]
  /** The quiet streams and the busiest ones. */
  readonly streams: readonly StreamView[]
  readonly streamsLeftOut: number
  readonly partitions: readonly PartitionStatus[]
  readonly eventToReceiptMs: LatencySummary
  readonly receiptToRowMs: LatencySummary
  /** Sum over all ingestion services; null while none answers. */
  readonly received: number | null
  /** Rows that all consumers have inserted, as last reported; null while none answers. */
  readonly inserted: number | null
  readonly rowsPerSecond: number | null
  /** False where only the archive keeps the rows. */
  readonly hasDatabase: boolean
  /** Null while the database does not answer, and without one. */
  readonly stored: StoredView | null
  /** Null without an archive. */
  readonly archive: ArchiveView | null
  /** Incidents since the previous snapshot. */
  readonly incidents: readonly Incident[]
  readonly moment: Moment
}

/** Values of the charts at one time. Null means unknown. */
export interface Moment {
  readonly atMs: number
  readonly receiptP50: number | null
  readonly receiptP99: number | null
  readonly rowP50: number | null
  readonly rowP99: number | null
  /** Also null while a consumer does not answer. */
  readonly lag: number | null
  readonly rowsPerSecond: number | null
  readonly messagesPerSecond: number | null
}

/** History that a page receives first. A {@link Snapshot} follows every second. */
export interface Past {
  readonly moments: readonly Moment[]
  readonly incidents: readonly Incident[]
}

/** Values of one second of a symbol; prices are only for drawing. */
export interface SeriesPoint {
  readonly atMs: number
  readonly price: number | null
  readonly bid: number | null
  readonly ask: number | null
}

/** A side of an order book near its best price; prices and sums are only for drawing. */
export interface BookSideView {
  /** The best first, with the sum of the quantities up to it. */
  readonly levels: ReadonlyArray<readonly [price: number, sum: number]>
  /** Whether there are more levels. */
  readonly isCut: boolean
  /** Null: the side is complete. */
  readonly horizon: { readonly price: string; readonly basisPoints: number | null } | null
}

/** The newest order book of a symbol. */
export type BookView =
  /** Order books of this symbol are not recorded. */
  | { readonly kind: 'none' }
  /** It is not known at the moment. */
  | { readonly kind: 'refused'; readonly text: string }
  | {
      readonly kind: 'book'
      /** Event time and last id of its last change. */
      readonly atMs: number
      readonly updateId: number
      /** The best bid is at or above the best ask, so a recorded change is wrong. */
      readonly isCrossed: boolean
      /** The snapshot that it began from, and the time between the receipts of both. */
      readonly anchorUpdateId: number
      readonly ageMs: number
      readonly bids: BookSideView
      readonly asks: BookSideView
    }
