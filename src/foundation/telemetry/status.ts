import type { RefusalStatus } from '../binance/refusal.ts'
import type { EventType } from '../market/event.ts'
import type { TimeUnit } from '../market/time-unit.ts'
import { plural } from './plural.ts'

/** The status of the services at `GET /status`. Counters start at 0 with the process. */

/** Percentiles in milliseconds over the last minute; `count` 0 means nothing was measured. */
export interface LatencySummary {
  readonly count: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly max: number
}

export interface ConnectionStatus {
  readonly id: number
  /** `streaming` once market data has arrived on it. */
  readonly state: 'waiting' | 'connecting' | 'open' | 'streaming' | 'paused'
  readonly streams: number
  /** Milliseconds since the WebSocket opened; null while it is not open. */
  readonly ageMs: number | null
  /** Milliseconds since it last delivered market data; null if it has not since it opened. */
  readonly lastDataAgeMs: number | null
  readonly attempts: number
  /** Milliseconds until its replacement; null while it is not open. */
  readonly rolloverInMs: number | null
}

export interface StreamStatus {
  readonly events: number
  /** Milliseconds since its last event; null without one. */
  readonly lastSeenAgeMs: number | null
  /** Its last trade id, aggregate trade id or update id. */
  readonly lastId: number | null
  /** Silent for much longer than its usual interval. */
  readonly quiet: boolean
}

/** The snapshots of the recorded order books. */
export interface BookStatus {
  /** Symbols whose order book is delivered now. */
  readonly symbols: number
  /** How many of them need a snapshot, by reason; `missing`: no book can be built of what comes now. */
  readonly needs: Readonly<Record<string, number>>
  /** The oldest of the usable snapshots; 0 without one. */
  readonly oldestAnchorAgeMs: number
  /** The first symbols that lack one, and why the last request brought none; null if none has failed. */
  readonly withoutAnchor: ReadonlyArray<{ readonly symbol: string; readonly problem: string | null }>
}

export interface IngestionStatus {
  readonly service: 'ingestion'
  readonly version: string
  readonly ready: boolean
  /** Why it is not ready; empty if it is. */
  readonly reason: string
  /** `binance`, `simulated…` or `replay:…`; null before the first connection. */
  readonly source: string | null
  /** Unit of the recorded times; null as long as `source` is. */
  readonly timeUnit: TimeUnit | null
  readonly uptimeMs: number
  readonly connections: readonly ConnectionStatus[]
  /** Connections replaced without a break. */
  readonly rollovers: number
  readonly streams: Readonly<Record<string, StreamStatus>>
  /**
   * received = forwarded + duplicate + control + ignored + rejected + held;
   * forwarded + backfilled = acknowledged + discarded + queued + inFlight.
   */
  readonly counters: {
    readonly received: number
    readonly forwarded: number
    readonly duplicate: number
    readonly held: number
    readonly backfilled: number
    readonly control: number
    readonly ignored: number
    readonly rejected: number
    readonly acknowledged: number
    /** Events whose set-aside partition had no room, or which are larger than their topic accepts. */
    readonly discarded: number
    readonly queued: number
    readonly inFlight: number
  }
  readonly openGaps: ReadonlyArray<{
    readonly gapId: string
    readonly fromId: number
    readonly toId: number
    readonly cause: string
    /** Why the last request for it returned nothing; null if it did not fail, or before the first. */
    readonly problem: string | null
    /** The request failed or was refused; false if REST answered without the trades. */
    readonly isFailing: boolean
    /** What a person can do about the problem; null if waiting is enough. */
    readonly fix: string | null
  }>
  /** Null if no order books are recorded. */
  readonly books: BookStatus | null
  /** Null if the exchange does not refuse us. */
  readonly refusals: { readonly rest: RefusalStatus | null; readonly handshakes: RefusalStatus | null }
  readonly ignoredByReason: Readonly<Record<string, number>>
  readonly rejectedByReason: Readonly<Record<string, number>>
  /** Streams with more than 1 % rejected frames in the last minute; an empty name for frames without one. */
  readonly rejectedStreams: ReadonlyArray<{
    readonly stream: string
    /** From 0 to 1. */
    readonly share: number
    /** The reason of the latest rejection. */
    readonly reason: string
  }>
  readonly queueBytes: number
  /** Set-aside partitions, which Kafka does not take. Their messages wait in up to half of the queue. */
  readonly heldPartitions: ReadonlyArray<{
    readonly topic: string
    readonly partition: number
    readonly heldMs: number
    readonly messages: number
    readonly discarded: number
    readonly reason: string
  }>
  /** Why Kafka does not acknowledge; null if it does. */
  readonly kafkaProblem: string | null
  /** Age of the oldest unacknowledged message, in milliseconds; 0 without one. */
  readonly oldestUnacknowledgedMs: number
  /** Receipt minus the exchange's event time; negative if the clocks differ. */
  readonly eventToReceiptMs: LatencySummary
  /** The minimum of the last minute: our clock's lead plus the shortest delay. Null without trades. */
  readonly clockOffsetMs: number | null
}

export interface PartitionStatus {
  readonly topic: string
  readonly partition: number
  /** Everything below is stored; null until known. While the database is down, the last known value. */
  readonly nextOffset: number | null
  /** As reported by the leader of the partition; null until then. */
  readonly endOffset: number | null
  /** Null until both are known. */
  readonly lag: number | null
  /** Milliseconds since the leader reported; since the assignment while the lag is unknown. */
  readonly lagAgeMs: number
}

/** Whether everything is stored that was in Kafka so many milliseconds ago. */
export function isCaughtUp(partitions: readonly PartitionStatus[], sinceMs: number): boolean {
  return partitions.every(({ lag, lagAgeMs }) => lag === 0 && lagAgeMs < sinceMs)
}

/** Messages that are not stored yet; null while that of a partition is unknown. */
export function totalLag(partitions: readonly PartitionStatus[]): number | null {
  return partitions.reduce<number | null>(
    (total, { lag }) => (total === null || lag === null ? null : total + lag),
    0,
  )
}

export interface ConsumerStatus {
  readonly service: 'consumer'
  readonly version: string
  readonly ready: boolean
  readonly reason: string
  readonly uptimeMs: number
  readonly generation: number | null
  readonly partitions: readonly PartitionStatus[]
  /** consumed = inserted + alreadyThere + deadLettered + discarded + pending. */
  readonly counters: {
    readonly consumed: number
    readonly inserted: number
    readonly alreadyThere: number
    readonly deadLettered: number
    readonly discarded: number
    readonly pending: number
  }
  /** Rows inserted by this process, by event type and symbol. */
  readonly rows: Readonly<Partial<Record<EventType, Readonly<Record<string, number>>>>>
  readonly flushes: number
  readonly retries: number
  /** Committed row minus the exchange's event time; without backfilled rows and bookTicker. */
  readonly eventToRowMs: LatencySummary
  /** Committed row minus `ingestion_timestamp`; backfilled rows excluded. */
  readonly receiptToRowMs: LatencySummary
}

/** Counters start at 0 with the process. */
export interface ArchiveStatus {
  readonly service: 'archive'
  readonly version: string
  readonly ready: boolean
  readonly reason: string
  readonly uptimeMs: number
  readonly partitions: readonly PartitionStatus[]
  /** Messages read from Kafka, those that became rows of `dead_letters`, and those not committed. */
  readonly consumed: number
  readonly deadLetters: number
  readonly pending: number
  readonly heldBytes: number
  /** Time since the oldest message that is not committed was read from Kafka. */
  readonly oldestUncommittedMs: number
  readonly segments: number
  /** Committed rows, by table. */
  readonly rows: Readonly<Record<string, number>>
  /** Size of the files of committed segments. */
  readonly bytes: number
  /** Messages that Kafka no longer had. */
  readonly lost: number
  readonly lastSegmentMs: number
  readonly publishedDays: number
  readonly publishedRows: number
  readonly duplicates: number
  /** Some of these, whose content differs from the row that stayed. */
  readonly conflicts: number
  readonly failedCompactions: number
  /** Order books that were rebuilt and stored, so that reading one is fast. */
  readonly keyframes: number
  /** The newest published day of any table, also of earlier processes; null before the first. */
  readonly newestDay: string | null
}

/** Messages in Kafka that are neither archived nor read; null while that of a partition is unknown. */
export function unreadBy({
  partitions,
  pending,
}: Pick<ArchiveStatus, 'partitions' | 'pending'>): number | null {
  const lag = partitions.length === 0 ? null : totalLag(partitions)
  return lag === null ? null : Math.max(0, lag - pending)
}

/**
 * Summarises the open gaps whose last request failed. Leaves out those for which REST answered without the
 * trades: the answer must repeat before it counts.
 * @returns null if there are none; `fix` is empty if waiting is enough
 */
export function unfilledGaps(
  openGaps: IngestionStatus['openGaps'],
): { readonly text: string; readonly fix: string } | null {
  const failed = openGaps.filter(({ isFailing }) => isFailing)
  const [first] = failed
  if (first === undefined) return null
  return {
    text: `${plural(failed.length, 'gap')} cannot be filled now: ${first.problem}`,
    fix: first.fix ?? '',
  }
}

/** Says how many order books cannot be built of what comes now, and why; null if there are none. */
export function unknownBooks(books: BookStatus | null): string | null {
  const count = books?.needs['missing'] ?? 0
  const [first] = books?.withoutAnchor ?? []
  if (count === 0 || first === undefined) return null
  const more = count === 1 ? '' : ` and ${plural(count - 1, 'other symbol')}`
  const why = first.problem === null ? '' : `: ${first.problem}`
  return `the order ${count === 1 ? 'book' : 'books'} of ${first.symbol}${more} cannot be built before the next snapshot${why}`
}
