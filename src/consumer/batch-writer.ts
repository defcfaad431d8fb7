import type { FetchWakes } from '../foundation/consumption/fetch-loop.ts'
import type { DeadLetterRow } from '../foundation/dead-letters/dead-letter.ts'
import { byEventType, type EventType } from '../foundation/market/event.ts'
import { type BackoffPolicy, delayFor, sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import { failureKind } from '../foundation/store/failures.ts'
import { LatencyWindow } from '../foundation/telemetry/latency.ts'
import { type Batch, ROW_TABLES } from './batch.ts'
import type { BatchBuilder } from './batch-builder.ts'
import { type ConsumerStore, OffsetsMovedError, SecondUnderIdError, type Written } from './consumer-store.ts'
import { type RejectionLimit, setRefusedAside, setSecondAside } from './rejected-rows.ts'

export interface BatchWriterPorts extends FetchWakes {
  readonly batchBuilder: BatchBuilder
  readonly store: Pick<ConsumerStore, 'write' | 'probe'>
  readonly counts: WriteCounts
  /** Resolves once all are acknowledged; rejects when the signal aborts. */
  readonly sendLetters: (letters: readonly DeadLetterRow[], signal: AbortSignal) => Promise<void>
  /**
   * Rejects when the messages come from another source than the database's rows. @returns whether
   * no further check is needed
   */
  readonly checkSource: () => Promise<boolean>
  /** Messages were lost before those of a stored batch. */
  readonly onLost: () => void
  /** The batch is stored, but its topic was recreated after it was read: positions must be read again. */
  readonly onRecreated: (batch: Batch) => void
  /**
   * The offsets in the database differ from ours: the batch was discarded, positions must be read
   * again.
   */
  readonly onMoved: (why: string) => void
}

/**
 * Writes one batch after another: first sends its dead letters, then writes rows, dead letters and
 * offsets in one transaction. Decides what a failure means: retry the batch, set the refused rows
 * aside, or stop. Does no I/O except through its ports.
 */
export class BatchWriter {
  readonly #ports: BatchWriterPorts
  readonly #backoff: BackoffPolicy
  /** From the first refused row. */
  #limit: RejectionLimit | null = null
  readonly #giveUp = new AbortController()
  readonly #lettersSent = new WeakMap<Batch, number>()
  #draining = false
  #isSourceKnown = false
  #since: { readonly ms: number; waitsFor: 'Kafka' | 'database' } | null = null
  #failure: string | null = null

  constructor(ports: BatchWriterPorts, backoff: BackoffPolicy) {
    this.#ports = ports
    this.#backoff = backoff
  }

  /** The error of the last attempt, until one succeeds. */
  get failure(): string | null {
    return this.#failure
  }

  /** What the current batch waits for, and how long it has been tried; null when there is no batch. */
  get waiting(): { readonly ms: number; readonly for: 'Kafka' | 'database' } | null {
    const since = this.#since
    return since === null ? null : { ms: this.#ports.clock.monotonicMs() - since.ms, for: since.waitsFor }
  }

  /** Makes {@link run} end once everything that was taken in is written. */
  drain(): void {
    this.#draining = true
    this.#ports.batchBuilder.flush()
    this.#ports.filled.ring()
  }

  /** Makes {@link run} end at once. Unstored batches stay in the batch builder. */
  giveUp(reason: unknown): void {
    this.#giveUp.abort(reason)
  }

  /** Rejects with errors that a retry cannot fix. Nothing of the current batch is committed then. */
  async run(): Promise<void> {
    const { signal } = this.#giveUp
    await unlessAborted(this.#writeBatches(signal), signal).catch((error: unknown) => {
      if (!signal.aborted) throw error
    })
  }

  async #writeBatches(signal: AbortSignal): Promise<void> {
    const { batchBuilder, filled, room, clock } = this.#ports
    while (!signal.aborted) {
      const nowMs = clock.monotonicMs()
      const batch = batchBuilder.take(nowMs)
      if (batch !== null) {
        room.ring()
        await this.#writeUntilStored(batch, signal)
        // A batch counts as held until it is stored.
        room.ring()
      } else {
        if (this.#draining) return
        await filled.wait(batchBuilder.dueInMs(nowMs) ?? undefined)
      }
    }
  }

  async #writeUntilStored(batch: Batch, signal: AbortSignal): Promise<void> {
    const { clock, random, counts } = this.#ports
    const sinceMs = clock.monotonicMs()
    this.#since = { ms: sinceMs, waitsFor: 'database' }
    for (let failures = 1; ; failures++) {
      try {
        const written = await this.#attempt(batch)
        // After giving up, the batch counts as left, although it may be stored.
        if (signal.aborted) return
        this.#stored(batch, written, sinceMs)
        return
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof OffsetsMovedError) {
          this.#since = null
          this.#ports.batchBuilder.abandon(batch)
          this.#ports.onMoved(error.message)
          return
        }
        const message = describeError(error)
        this.#failure = message
        if (isTapelineError(error) || failureKind(error) !== 'retry') throw error
        counts.retried()
        this.#ports.log.warn({ err: error }, `Storing a batch failed, retrying: ${message}`)
        await sleep(delayFor(failures, this.#backoff, random()), signal, clock)
      }
    }
  }

  #stored(batch: Batch, written: Written, sinceMs: number): void {
    const { clock, counts, batchBuilder, onRecreated, onLost } = this.#ports
    this.#since = null
    this.#failure = null
    batchBuilder.stored(batch)
    if (written.isOfRecreated) onRecreated(batch)
    counts.stored(batch, written, clock.monotonicMs() - sinceMs, clock)
    if (batch.firstsAfterLoss.length > 0) onLost()
  }

  async #attempt(batch: Batch): Promise<Written> {
    const { store, checkSource, log, clock } = this.#ports
    if (!this.#isSourceKnown) this.#isSourceKnown = await checkSource()
    for (;;) {
      await this.#sendLetters(batch)
      try {
        const written = await store.write(batch)
        const limit = this.#limit
        if (limit !== null) for (const table of ROW_TABLES) limit.accepted(table, batch.rowCount(table))
        return written
      } catch (error) {
        if (error instanceof SecondUnderIdError) setSecondAside(batch, error.indexes, wallMs(clock), log)
        else if (failureKind(error) === 'row')
          this.#limit = await setRefusedAside(batch, error, this.#limit, this.#ports)
        else throw error
      }
    }
  }

  /** Sends the dead letters that were not acknowledged before. A later attempt may have found more. */
  async #sendLetters(batch: Batch): Promise<void> {
    const sent = this.#lettersSent.get(batch) ?? 0
    const { length } = batch.found
    if (sent === length) return
    if (this.#since !== null) this.#since.waitsFor = 'Kafka'
    await this.#ports.sendLetters(batch.found.slice(sent), this.#giveUp.signal)
    if (this.#since !== null) this.#since.waitsFor = 'database'
    this.#lettersSent.set(batch, length)
  }
}

/** One label for all reasons that quote the database. */
const REFUSED = 'refused by the database'
const REJECTED = 'rejected by ingestion'

const NO_TOTALS = { inserted: 0, deadLettered: 0, alreadyThere: 0, flushes: 0, retries: 0, flushMs: 0 }

/** Counts of what was written since start. */
export class WriteCounts {
  readonly #totals = { ...NO_TOTALS }
  readonly #rows = byEventType(() => new Map<string, number>())
  readonly #deadLetters: Record<string, number> = {}
  readonly eventToRow = new LatencyWindow()
  readonly receiptToRow = new LatencyWindow()
  /** Time from taking a batch to its commit. */
  readonly flushTimes = new LatencyWindow()

  /** `flushMs`: the sum of {@link flushTimes} since start. */
  get totals(): Readonly<typeof NO_TOTALS> {
    return this.#totals
  }

  /** New rows by event type and symbol. */
  get rows(): Readonly<Record<EventType, ReadonlyMap<string, number>>> {
    return this.#rows
  }

  /** By reason, each a few words. */
  get deadLetters(): Readonly<Record<string, number>> {
    return this.#deadLetters
  }

  retried(): void {
    this.#totals.retries++
  }

  /** @param tookMs from taking the batch to its commit */
  stored(batch: Batch, written: Written, tookMs: number, clock: Clock): void {
    const totals = this.#totals
    totals.flushes++
    totals.inserted += written.inserted
    totals.deadLettered += written.deadLettered
    totals.alreadyThere += batch.messages - written.inserted - written.deadLettered
    for (const { type, symbol, rows } of written.rows)
      this.#rows[type].set(symbol, (this.#rows[type].get(symbol) ?? 0) + rows)
    for (const { reason } of batch.found) this.#countLetter(reason.startsWith(REFUSED) ? REFUSED : reason)
    // Ingestion counts these by reason.
    for (const _ of batch.mirrored) this.#countLetter(REJECTED)
    const nowMs = clock.monotonicMs()
    totals.flushMs += tookMs
    this.flushTimes.record(tookMs, nowMs)
    const committedMs = wallMs(clock)
    for (const { eventMs, receivedUs } of Object.values(batch.origins)) {
      for (const ms of eventMs) if (!Number.isNaN(ms)) this.eventToRow.record(committedMs - ms, nowMs)
      for (const us of receivedUs)
        if (!Number.isNaN(us)) this.receiptToRow.record(committedMs - us / 1000, nowMs)
    }
  }

  #countLetter(reason: string): void {
    this.#deadLetters[reason] = (this.#deadLetters[reason] ?? 0) + 1
  }
}
