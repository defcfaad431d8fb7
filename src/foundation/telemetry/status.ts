import type { RefusalStatus } from '../binance/refusal.ts'
import type { TimeUnit } from '../market/time-unit.ts'

/**
 * What the two services say of themselves at `GET /status`. The terminal display, `tapeline status` and tests
 * read these; counters start at 0 with the process.
 */

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
  /** Milliseconds since it last delivered market data; null when it has not since it opened. */
  readonly lastDataAgeMs: number | null
  readonly attempts: number
  /** Milliseconds until another takes its place; null while it is not open. */
  readonly rolloverInMs: number | null
}

export interface StreamStatus {
  readonly events: number
  /** Milliseconds since its last event; null when it has had none. */
  readonly lastSeenAgeMs: number | null
  /** Its last trade id, aggregate trade id or update id. */
  readonly lastId: number | null
  /** It has been silent for much longer than is its way. */
  readonly quiet: boolean
}

export interface IngestionStatus {
  readonly service: 'ingestion'
  readonly version: string
  readonly ready: boolean
  /** Why it is not ready; empty when it is. */
  readonly reason: string
  /** Which exchange this is: `binance`, `simulated…` or `replay:…`; null before the first connection. */
  readonly source: string | null
  /** The unit of the times that are recorded; null as long as `source` is. */
  readonly timeUnit: TimeUnit | null
  readonly uptimeMs: number
  readonly connections: readonly ConnectionStatus[]
  /** Connections that were replaced without a break. */
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
    /** Kafka refuses their partition and its half of the queue is full, or they are larger than their topic takes. */
    readonly discarded: number
    readonly queued: number
    readonly inFlight: number
  }
  /** Missing ids that are being looked for. */
  readonly openGaps: ReadonlyArray<{
    readonly gapId: string
    readonly fromId: number
    readonly toId: number
    readonly cause: string
    /** Why the last request for it brought nothing; null when it did, or before the first. */
    readonly problem: string | null
    /** The request failed or was refused; false if REST answered without the trades. */
    readonly isFailing: boolean
    /** What a person can do about the problem; null if waiting is enough. */
    readonly fix: string | null
  }>
  /** Null where the exchange does not refuse us. */
  readonly refusals: { readonly rest: RefusalStatus | null; readonly handshakes: RefusalStatus | null }
  readonly ignoredByReason: Readonly<Record<string, number>>
  readonly rejectedByReason: Readonly<Record<string, number>>
  /** Streams of which more than 1 % of the frames of the last minute were rejected; the empty name stands for frames that name none. */
  readonly rejectedStreams: ReadonlyArray<{
    readonly stream: string
    /** From 0 to 1. */
    readonly share: number
    /** Why the latest was rejected. */
    readonly reason: string
  }>
  readonly queueBytes: number
  /** Partitions that Kafka does not take although it names their leaders or takes others. Their messages wait in up to half of the queue. */
  readonly heldPartitions: ReadonlyArray<{
    readonly topic: string
    readonly partition: number
    readonly heldMs: number
    readonly messages: number
    readonly discarded: number
    readonly reason: string
  }>
  /** Why Kafka does not acknowledge; null when it does. */
  readonly kafkaProblem: string | null
  /** Age of the oldest message that Kafka has not acknowledged, in milliseconds; 0 when there is none. */
  readonly oldestUnacknowledgedMs: number
  /** Receipt minus the exchange's event time; can be negative when the clocks differ. */
  readonly eventToReceiptMs: LatencySummary
  /**
   * The least of these of the last minute: how far the clock is ahead of the exchange's, and the fastest way here.
   * Null when no trade came.
   */
  readonly clockOffsetMs: number | null
}

export interface PartitionStatus {
  readonly topic: string
  readonly partition: number
  /** Everything below is stored; null until it is known. While the database is away, the last known. */
  readonly nextOffset: number | null
  /** As the leader of the partition named it; null until it has. */
  readonly endOffset: number | null
  /** Null until both are known. */
  readonly lag: number | null
  /** Since the leader was asked, in milliseconds; since the assignment while the lag is not known. */
  readonly lagAgeMs: number
}

/** Whether everything is stored that was in Kafka so many milliseconds ago. */
export function isCaughtUp(partitions: readonly PartitionStatus[], sinceMs: number): boolean {
  return partitions.every(({ lag, lagAgeMs }) => lag === 0 && lagAgeMs < sinceMs)
}

/** Messages that are not stored yet; null while a partition's are not known. */
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
  readonly rows: Readonly<Record<'trade' | 'aggTrade' | 'bookTicker', Readonly<Record<string, number>>>>
  readonly flushes: number
  readonly retries: number
  /** Committed row minus the exchange's event time; backfilled rows and bookTicker (which has none) excluded. */
  readonly eventToRowMs: LatencySummary
  /** Committed row minus `ingestion_timestamp`; backfilled rows excluded. */
  readonly receiptToRowMs: LatencySummary
}
