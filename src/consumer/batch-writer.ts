import { deadLetter, type FoundDeadLetter } from '../foundation/dead-letters/dead-letter.ts'
import { SECOND_UNDER_ID } from '../foundation/market/event.ts'
import { type BackoffPolicy, delayFor, sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { type Clock, type Wake, wallMs } from '../foundation/runtime/clock.ts'
import { describeError, isTapelineError, TapelineError } from '../foundation/runtime/errors.ts'
import { failureKind } from '../foundation/store/failures.ts'
import { describeRefusal, sqlStateOf } from '../foundation/store/sql-state.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import { type Batch, ROW_TABLES, type RowTable } from './batch.ts'
import type { BatchBuilder } from './batch-builder.ts'
import { type ConsumerStore, OffsetsMovedError, SecondUnderIdError, type Written } from './consumer-store.ts'
import type { OffsetToCommit } from './group-client.ts'
import { findRejected, MAX_REJECTIONS, type Rejection, RejectionLimit } from './rejected-rows.ts'

export interface BatchWriterPorts {
  readonly clock: Clock
  /** In [0, 1). */
  readonly random: () => number
  readonly store: Pick<ConsumerStore, 'write' | 'probe'>
  /** Resolves once all are acknowledged; rejects when the signal aborts. */
  readonly sendLetters: (letters: readonly FoundDeadLetter[], signal: AbortSignal) => Promise<void>
  /**
   * Rejects when the messages come from another source than the database's rows. @returns whether
   * no further check is needed
   */
  readonly checkSource: () => Promise<boolean>
  readonly log: Logger
}

/** What the writer shares with the other parts of the worker. */
export interface BatchWriterPeers {
  readonly batchBuilder: BatchBuilder
  /** Rings when the batch builder has more. */
  readonly filled: Wake
  /** The writer rings it when the batch builder has room. */
  readonly room: Wake
  /** Commits offsets of the group soon. */
  readonly commitSoon: (offsets: readonly OffsetToCommit[]) => void
}

export interface BatchWriterEvents {
  /** A batch is committed, `tookMs` milliseconds after it was taken. */
  onStored(batch: Batch, written: Written, tookMs: number): void
  /** Messages were lost before those of a stored batch. */
  onLost(): void
  /** Writing failed and will be retried. */
  onRetry(): void
  /**
   * The batch is stored, but its topic was recreated after it was read: positions must be read
   * again.
   */
  onRecreated(batch: Batch): void
  /**
   * The offsets in the database differ from ours: the batch was discarded, positions must be read
   * again.
   */
  onMoved(why: string): void
}

/**
 * Writes one batch after another: first sends its dead letters, then writes rows, dead letters and
 * offsets in one transaction. Decides what a failure means: retry the batch, set the refused rows
 * aside, or stop. Does no I/O except through its ports.
 */
export class BatchWriter {
  readonly #peers: BatchWriterPeers
  readonly #ports: BatchWriterPorts
  readonly #events: BatchWriterEvents
  readonly #backoff: BackoffPolicy
  /** From the first refused row. */
  #limit: RejectionLimit | null = null
  readonly #giveUp = new AbortController()
  readonly #lettersSent = new WeakMap<Batch, number>()
  #draining = false
  #isSourceKnown = false
  #since: { readonly ms: number; waitsFor: 'Kafka' | 'database' } | null = null
  /** The error of the last attempt, until one succeeds. */
  failure: string | null = null

  constructor(
    peers: BatchWriterPeers,
    ports: BatchWriterPorts,
    events: BatchWriterEvents,
    backoff: BackoffPolicy,
  ) {
    this.#peers = peers
    this.#ports = ports
    this.#events = events
    this.#backoff = backoff
  }

  /**
   * What the current batch waits for, and how long it has been tried; null when there is no batch.
   */
  get waiting(): { readonly ms: number; readonly for: 'Kafka' | 'database' } | null {
    const since = this.#since
    return since === null ? null : { ms: this.#ports.clock.monotonicMs() - since.ms, for: since.waitsFor }
  }

  /** Makes {@link run} end once everything that was taken in is written. */
  drain(): void {
    this.#draining = true
    this.#peers.batchBuilder.flush()
    this.#peers.filled.ring()
  }

  /** Makes {@link run} end at once. Unstored batches stay in the batch builder. */
  giveUp(reason: unknown): void {
    this.#giveUp.abort(reason)
  }

  /**
   * Rejects with errors that a retry cannot fix. Nothing of the current batch is committed then.
   */
  async run(): Promise<void> {
    const { signal } = this.#giveUp
    await unlessAborted(this.#writeBatches(signal), signal).catch((error: unknown) => {
      if (!signal.aborted) throw error
    })
  }

  async #writeBatches(signal: AbortSignal): Promise<void> {
    const { batchBuilder, filled, room } = this.#peers
    while (!signal.aborted) {
      const nowMs = this.#ports.clock.monotonicMs()
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
    const { clock, random, log } = this.#ports
    const sinceMs = clock.monotonicMs()
    this.#since = { ms: sinceMs, waitsFor: 'database' }
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        const written = await this.#attempt(batch)
        // After giving up, the batch counts as left, although it may be stored.
        if (!signal.aborted) this.#stored(batch, written, clock.monotonicMs() - sinceMs)
        return
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof OffsetsMovedError) {
          this.#peers.batchBuilder.abandon(batch)
          this.#since = null
          this.#events.onMoved(error.message)
          return
        }
        this.failure = describeError(error)
        if (isTapelineError(error) || failureKind(error) !== 'retry') throw error
        this.#events.onRetry()
        log.warn({ err: error }, `Storing a batch failed, retrying: ${describeError(error)}`)
        await sleep(delayFor(failures, this.#backoff, random()), signal, clock).catch(() => {})
      }
    }
  }

  #stored(batch: Batch, written: Written, tookMs: number): void {
    this.#since = null
    this.failure = null
    const offsets = this.#peers.batchBuilder.stored(batch)
    if (written.isOfRecreated) this.#events.onRecreated(batch)
    else this.#peers.commitSoon(offsets)
    this.#events.onStored(batch, written, tookMs)
    if (batch.firstsAfterLoss.length > 0) this.#events.onLost()
  }

  async #attempt(batch: Batch): Promise<Written> {
    const { store, checkSource } = this.#ports
    if (!this.#isSourceKnown) this.#isSourceKnown = await checkSource()
    for (;;) {
      await this.#sendLetters(batch)
      try {
        const written = await store.write(batch)
        const limit = this.#limit
        if (limit !== null) for (const table of ROW_TABLES) limit.accepted(table, batch.rowCount(table))
        return written
      } catch (error) {
        if (error instanceof SecondUnderIdError) this.#setSecondAside(batch, error.indexes)
        else if (failureKind(error) === 'row') await this.#setRefusedAside(batch, error)
        else throw error
      }
    }
  }

  /**
   * Sends the dead letters that were not acknowledged before. A later attempt may have found more.
   */
  async #sendLetters(batch: Batch): Promise<void> {
    const sent = this.#lettersSent.get(batch) ?? 0
    const { length } = batch.found
    if (sent === length) return
    if (this.#since !== null) this.#since.waitsFor = 'Kafka'
    await this.#ports.sendLetters(batch.found.slice(sent), this.#giveUp.signal)
    if (this.#since !== null) this.#since.waitsFor = 'database'
    this.#lettersSent.set(batch, length)
  }

  /**
   * Turns rows whose id and time another event has into dead letters. Discarding them would leave
   * no trace.
   */
  #setSecondAside(batch: Batch, indexes: readonly number[]): void {
    const { clock, log } = this.#ports
    const failedAtMs = wallMs(clock)
    const letters = indexes.toReversed().map((index) => {
      const { partition, message } = batch.removeRow('trades', index)
      return deadLetter(partition, message, SECOND_UNDER_ID, failedAtMs)
    })
    batch.found.push(...letters.reverse())
    log.warn(
      { rows: indexes.length },
      `${plural(indexes.length, 'row')} of trades became dead letters: ${SECOND_UNDER_ID}`,
    )
  }

  /** Turns the rows that the database refuses into dead letters of the batch. */
  async #setRefusedAside(batch: Batch, refusal: unknown): Promise<void> {
    const found = await this.#ports.store.probe(batch, async (rowsOf) => {
      const all: Array<{ table: RowTable; refused: Rejection[] }> = []
      for (const table of ROW_TABLES) {
        all.push({
          table,
          refused: await findRejected(batch.rowCount(table), rowsOf(table), MAX_REJECTIONS + 1),
        })
      }
      return all
    })
    if (found.every(({ refused }) => refused.length === 0)) {
      throw new TapelineError(
        'DATABASE',
        `Batch insert failed, but every row succeeded individually: ${describeRefusal(refusal)}`,
        {
          fix: 'Look for triggers or constraints that were added to the tables. No row of the batch was committed.',
          cause: refusal,
        },
      )
    }
    for (const { table, refused } of found) this.#setAside(batch, table, refused)
  }

  #setAside(batch: Batch, table: RowTable, refused: readonly Rejection[]): void {
    let next = 0
    this.#limit ??= new RejectionLimit()
    for (const { index, error } of refused) {
      this.#limit.accepted(table, index - next)
      next = index + 1
      if (this.#limit.refused(table, constraintOf(error))) throw refusesAsARule(table, error)
    }
    const { clock, log } = this.#ports
    const failedAtMs = wallMs(clock)
    const letters = [...refused].reverse().map(({ index, error }) => {
      const { partition, message } = batch.removeRow(table, index)
      return deadLetter(partition, message, `refused by the database: ${describeRefusal(error)}`, failedAtMs)
    })
    batch.found.push(...letters.reverse())
    log.warn(
      { table, rows: refused.length, err: refused[0]?.error },
      `The database refused ${plural(refused.length, 'row')} of ${table}, which became dead letters: ${describeRefusal(refused[0]?.error)}`,
    )
  }
}

function refusesAsARule(table: RowTable, error: unknown): TapelineError {
  return new TapelineError(
    'DATABASE',
    `The database refuses too many rows of ${table}: ${describeRefusal(error)}`,
    {
      fix:
        'Fix or drop the constraint or trigger and start the consumer again: no row of the batch was committed. ' +
        'Then store the earlier dead letters: bin/tapeline dead-letters retry',
      cause: error,
    },
  )
}

/**
 * Identifies the refusal by SQLSTATE and constraint name, if any. Strips the chunk number that
 * TimescaleDB puts before it.
 */
function constraintOf(error: unknown): string {
  const name: unknown = error instanceof Error ? Reflect.get(error, 'constraint') : null
  return `${sqlStateOf(error) ?? ''} ${typeof name === 'string' ? name.replace(/^\d+_\d+_/, '') : ''}`
}
