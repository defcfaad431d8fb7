import { byEventType } from '../foundation/market/event.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'
import { LatencyWindow } from '../foundation/telemetry/latency.ts'
import { VERSION } from '../foundation/telemetry/service.ts'
import type { ConsumerStatus, PartitionStatus } from '../foundation/telemetry/status.ts'
import type { Batch } from './batch.ts'
import type { Written } from './consumer-store.ts'
import type { Worker } from './worker.ts'

interface Health {
  readonly ready: boolean
  readonly reason: string
  readonly uptimeMs: number
}

/** One label for all reasons that quote the database. */
const REFUSED = 'refused by the database'
const REJECTED = 'rejected by ingestion'

/** Counts of the consumer's work since start. */
export class ConsumerCounts {
  readonly #clock: Clock
  readonly #rows = byEventType(() => new Map<string, number>())
  /** By reason, each a few words. */
  readonly deadLetters: Record<string, number> = {}
  readonly #eventToRow = new LatencyWindow()
  readonly #receiptToRow = new LatencyWindow()
  /** Time from taking a batch to its commit. */
  readonly flushTimes = new LatencyWindow()
  /** Sum of these times since start. */
  flushTotalMs = 0
  #inserted = 0
  #deadLettered = 0
  #alreadyThere = 0
  #flushes = 0
  retries = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** @param tookMs from taking the batch to its commit */
  stored(batch: Batch, written: Written, tookMs: number): void {
    this.#flushes++
    this.#inserted += written.inserted
    this.#deadLettered += written.deadLettered
    this.#alreadyThere += batch.messages - written.inserted - written.deadLettered
    for (const { type, symbol, rows } of written.rows)
      this.#rows[type].set(symbol, (this.#rows[type].get(symbol) ?? 0) + rows)
    for (const { row } of batch.found) this.#countLetter(row.reason)
    // Ingestion counts these by reason.
    for (const _ of batch.mirrored) this.#countLetter(REJECTED)
    const nowMs = this.#clock.monotonicMs()
    this.flushTotalMs += tookMs
    this.flushTimes.record(tookMs, nowMs)
    const committedMs = wallMs(this.#clock)
    for (const { eventMs, receivedUs } of Object.values(batch.origins)) {
      for (const ms of eventMs) if (!Number.isNaN(ms)) this.#eventToRow.record(committedMs - ms, nowMs)
      for (const us of receivedUs)
        if (!Number.isNaN(us)) this.#receiptToRow.record(committedMs - us / 1000, nowMs)
    }
  }

  status(worker: Worker | null, health: Health, partitions: readonly PartitionStatus[]): ConsumerStatus {
    const nowMs = this.#clock.monotonicMs()
    return {
      service: 'consumer',
      version: VERSION,
      ...health,
      generation: worker?.generation ?? null,
      partitions,
      counters: {
        consumed: worker?.batchBuilder.counters.consumed ?? 0,
        inserted: this.#inserted,
        alreadyThere: this.#alreadyThere,
        deadLettered: this.#deadLettered,
        discarded: worker?.batchBuilder.counters.discarded ?? 0,
        pending: worker?.batchBuilder.pending ?? 0,
      },
      rows: byEventType((type) => Object.fromEntries(this.#rows[type])),
      flushes: this.#flushes,
      retries: this.retries,
      eventToRowMs: this.#eventToRow.summary(nowMs),
      receiptToRowMs: this.#receiptToRow.summary(nowMs),
    }
  }

  #countLetter(reason: string): void {
    const word = reason.startsWith(REFUSED) ? REFUSED : reason
    this.deadLetters[word] = (this.deadLetters[word] ?? 0) + 1
  }
}
