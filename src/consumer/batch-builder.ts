import { deadLetter, mirroredLetter } from '../foundation/dead-letters/dead-letter.ts'
import type { FetchedPartition } from '../foundation/kafka/codec/fetch-api.ts'
import type { FetchedMessage } from '../foundation/kafka/codec/record-batch.ts'
import { Decoder, type TopicKind } from '../foundation/kafka/message-decoder.ts'
import {
  keyOf,
  type PartitionOrigin,
  type Position,
  type TopicPartition,
} from '../foundation/kafka/partition.ts'
import type { StoredOffset } from '../foundation/store/consumer-offsets.ts'
import { type Loss, lossKey } from '../foundation/store/losses.ts'
import { Batch, FirstEvents } from './batch.ts'
import type { OffsetToCommit } from './group-client.ts'

export interface BatchBuilderOptions {
  readonly kindOf: ReadonlyMap<string, TopicKind>
  /** Messages in a batch; up to {@link GROWTH} times as many while the database cannot keep up. */
  readonly batchSize: number
  readonly flushIntervalMs: number
  /** Sealed batches that may wait for the database. Fetching pauses at this many. */
  readonly maxSealed: number
  /** Bytes that may be held, including the batch being written. Fetching pauses at this many. */
  readonly maxBytes: number
}

/** A range of offsets that the broker no longer has. */
export interface Hole extends TopicPartition {
  readonly from: number
  readonly to: number
}

/**
 * While a sealed batch waits for the one before it, the next batch may grow by this factor, so that
 * more rows share the cost of one transaction. A batch has its usual size while the database keeps
 * up.
 */
const GROWTH = 10

/**
 * Memory that a message takes in addition to its bytes: the record, its row in the columns, its
 * origin.
 */
const MESSAGE_OVERHEAD_BYTES = 500

interface Assigned extends PartitionOrigin {
  readonly kind: TopicKind
  /** The offset expected next from a fetch. */
  next: number
  /** The leader epoch of the previous message; −1 when it is unknown. */
  leaderEpoch: number
  /** All messages below this offset are in the database. */
  stored: number
  /**
   * When ingestion received the last event taken in, and the last event stored; null while there is
   * none.
   */
  takenUs: number | null
  storedUs: number | null
  /** Set after messages expired unread, and from the very first start. */
  loss: FirstEvents | null
}

/**
 * Holds messages that are read and not yet stored: the positions of the assigned partitions, the
 * open batch, and the sealed batches in the order in which they must be written. Does no I/O and
 * uses no clock.
 *
 * Rows of a revoked partition stay in their batches. Another consumer may store them too, which
 * adds no row, and `consumer_offsets` only moves past stored messages, no matter which consumer
 * stored them. Only commits to Kafka are limited to assigned partitions.
 */
export class BatchBuilder {
  readonly #options: BatchBuilderOptions
  readonly #assigned = new Map<string, Assigned>()
  readonly #decoder = new Decoder()
  readonly #sealed: Batch[] = []
  #open: Batch | null = null
  #writing: Batch | null = null
  readonly counters = { consumed: 0, discarded: 0, skipped: 0 }

  constructor(options: BatchBuilderOptions) {
    this.#options = options
  }

  /**
   * Replaces the assignment: kept partitions continue at their position, new ones start at their
   * stored offset.
   */
  assign(partitions: readonly StoredOffset[], losses: readonly Loss[] = []): void {
    const known = new Map(losses.map((loss) => [lossKey(loss), loss]))
    const keys = new Set(partitions.map(keyOf))
    for (const key of [...this.#assigned.keys()]) if (!keys.has(key)) this.#assigned.delete(key)
    for (const { topic, topicId, partition, nextOffset, leaderEpoch } of partitions) {
      const kind = this.#options.kindOf.get(topic)
      if (kind === undefined || this.#assigned.has(keyOf({ topic, partition }))) continue
      const loss = known.get(lossKey({ topicId, partition }))
      const state: Assigned = {
        topic,
        topicId,
        partition,
        kind,
        next: nextOffset,
        leaderEpoch,
        stored: nextOffset,
        takenUs: null,
        storedUs: null,
        loss: loss === undefined ? null : FirstEvents.after(loss, kind),
      }
      this.#assigned.set(keyOf(state), state)
    }
  }

  isAssigned(topic: string, partition: number): boolean {
    return this.#assigned.has(keyOf({ topic, partition }))
  }

  /** Whether a partition is assigned under this id of its topic. */
  isReading(origin: PartitionOrigin): boolean {
    return this.#assigned.get(keyOf(origin))?.topicId === origin.topicId
  }

  /** Where to fetch from next. */
  positions(): Position[] {
    return [...this.#assigned.values()].map(({ topic, partition, next, leaderEpoch }) => ({
      topic,
      partition,
      offset: next,
      leaderEpoch,
    }))
  }

  /** The offset below which each assigned partition is stored. */
  progress(): Array<PartitionOrigin & { readonly stored: number }> {
    return [...this.#assigned.values()].map(({ topic, topicId, partition, stored }) => ({
      topic,
      topicId,
      partition,
      stored,
    }))
  }

  /**
   * When ingestion received the last stored event of each assigned partition that has stored any.
   */
  storedReceipts(): Array<{ topic: string; partition: number; receivedUs: number }> {
    return [...this.#assigned.values()].flatMap(({ topic, partition, storedUs }) =>
      storedUs === null ? [] : [{ topic, partition, receivedUs: storedUs }],
    )
  }

  /** Whether more may be fetched. */
  get hasRoom(): boolean {
    return this.#sealed.length < this.#options.maxSealed && this.heldBytes < this.#options.maxBytes
  }

  /** Bytes of the messages that are not stored yet, including their overhead in memory. */
  get heldBytes(): number {
    return this.#sum((batch) => batch.bytes)
  }

  /** Messages that are not stored yet. */
  get pending(): number {
    return this.#sum((batch) => batch.messages)
  }

  /**
   * Takes in the messages of a fetch from the expected offset. Skips those below it: they were
   * taken in before.
   *
   * @param nowMs of the monotonic clock
   * @param wallMs of the wall clock, for the time of dead letters
   * @returns a hole when the fetch begins above the expected offset; nothing was taken in then
   * @throws TapelineError `SCHEMA` see {@link Decoder.decode}
   */
  accept(fetched: FetchedPartition, nowMs: number, wallMs: number): Hole | null {
    const state = this.#assigned.get(keyOf(fetched))
    if (state === undefined) return null
    let batch: Batch | null = null
    let from = state.next
    try {
      for (const message of fetched.messages) {
        const { offset } = message
        if (offset < state.next) continue
        if (offset > state.next)
          return { topic: state.topic, partition: state.partition, from: state.next, to: offset }
        batch ??= this.#openFor(state, nowMs)
        this.#add(batch, state, message, wallMs)
        batch.messages++
        batch.bytes += MESSAGE_OVERHEAD_BYTES + message.end - message.start + (message.key?.length ?? 0)
        this.counters.consumed++
        state.next = offset + 1
        state.leaderEpoch = message.leaderEpoch
        if (batch.messages < this.#sealAt) continue
        advance(batch, state, from)
        this.#seal()
        batch = null
        from = state.next
      }
    } finally {
      if (batch !== null && state.next > from) advance(batch, state, from)
    }
    return null
  }

  /**
   * Continues at `offset`. Records the step over the hole, so that the stored offset can follow.
   * Records the first event of each symbol and type after it, for the ledger.
   */
  skipTo(topic: string, partition: number, offset: number, nowMs: number): void {
    const state = this.#assigned.get(keyOf({ topic, partition }))
    if (state === undefined) return
    if (offset > state.next) {
      // Earlier rows are stored in a batch before this one: the ledger entry needs the last stored
      // event, which is queried before a batch inserts its rows.
      this.#seal()
      this.#openFor(state, nowMs).advance(state, state.next, { offset, leaderEpoch: -1 })
      this.counters.skipped += offset - state.next
      const { topicId, kind } = state
      state.loss = FirstEvents.after({ topicId, partition, to: offset, cause: 'retention', seen: [] }, kind)
      if (this.#open !== null) state.loss?.noteIn(this.#open)
    }
    state.next = offset
    state.leaderEpoch = -1
  }

  /**
   * Milliseconds until the open batch is due, 0 when it is due; null when there is no open batch.
   */
  dueInMs(nowMs: number): number | null {
    return this.#open === null
      ? null
      : Math.max(0, this.#open.openedAtMs + this.#options.flushIntervalMs - nowMs)
  }

  /** Seals the open batch, so that it can be written. */
  flush(): void {
    this.#seal()
  }

  /**
   * Returns the next batch to write: sealed, full or due. It belongs to the writer until {@link
   * stored} or {@link abandon}.
   */
  take(nowMs: number): Batch | null {
    const isWanted = this.#isFull || this.dueInMs(nowMs) === 0
    if (this.#writing === null && this.#sealed.length === 0 && isWanted) this.#seal()
    this.#writing ??= this.#sealed.shift() ?? null
    return this.#writing
  }

  /**
   * Records that the taken batch is committed in the database. @returns the stored offset of each
   * partition in it that is ours
   */
  stored(batch: Batch): OffsetToCommit[] {
    if (batch !== this.#writing) return []
    this.#writing = null
    return [...batch.steps.values()].flatMap((step) => {
      const state = this.#assigned.get(keyOf(step))
      if (state === undefined) return []
      // A delayed batch may end below what another owner has stored since.
      if (state.topicId === step.topicId && step.nextOffset >= state.stored) {
        state.stored = step.nextOffset
        state.storedUs = batch.lastReceivedUs.get(keyOf(step)) ?? state.storedUs
      }
      return [{ topic: state.topic, partition: state.partition, nextOffset: state.stored }]
    })
  }

  /** Records that the taken batch will not be written. */
  abandon(batch: Batch): void {
    if (batch !== this.#writing) return
    this.#writing = null
    this.counters.discarded += batch.messages
  }

  /**
   * Forgets all positions, which must be read again. Messages that were taken in are still stored.
   */
  forgetPositions(): void {
    this.#assigned.clear()
    this.#seal()
  }

  /**
   * Forgets all positions, which must be assigned again, and discards everything that is not
   * stored. The batch being written is kept: {@link stored} or {@link abandon} decides about it.
   */
  discardAll(): void {
    this.counters.discarded += this.pending - (this.#writing?.messages ?? 0)
    this.#assigned.clear()
    this.#sealed.length = 0
    this.#open = null
  }

  get #sealAt(): number {
    return this.#options.batchSize * (this.#sealed.length === 0 ? 1 : GROWTH)
  }

  get #isFull(): boolean {
    return this.#open !== null && this.#open.messages >= this.#options.batchSize
  }

  #sum(of: (batch: Batch) => number): number {
    const held = [this.#open, this.#writing, ...this.#sealed]
    return held.reduce((sum, batch) => sum + (batch === null ? 0 : of(batch)), 0)
  }

  /**
   * If another owner advanced the partition while it was not ours, its next messages begin a new
   * batch.
   */
  #openFor(state: Assigned, nowMs: number): Batch {
    if (this.#open?.continuesAt(state, state.next) === false) this.#seal()
    this.#open ??= new Batch(nowMs)
    return this.#open
  }

  #add(batch: Batch, state: Assigned, message: FetchedMessage, wallMs: number): void {
    if (state.kind === 'deadLetters') {
      const row = mirroredLetter(state, message, wallMs)
      if (row !== null) (row.origin === 'ingestion' ? batch.mirrored : batch.copies).push(row)
      return
    }
    const decoder = this.#decoder
    const reason = decoder.decode(state.kind, message)
    if (reason !== null) {
      batch.found.push(deadLetter(state, message, reason, wallMs))
      return
    }
    batch.add(state.kind, decoder, state, message)
    if (state.kind === 'gaps') return
    state.takenUs = decoder.event.receivedUs
    state.loss?.observe(batch, decoder.event)
  }

  #seal(): void {
    if (this.#open !== null) this.#sealed.push(this.#open)
    this.#open = null
  }
}

/** Records the progress of the partition in this batch, from `from`. */
function advance(batch: Batch, state: Assigned, from: number): void {
  batch.advance(state, from, { offset: state.next, leaderEpoch: state.leaderEpoch })
  if (state.takenUs !== null) batch.lastReceivedUs.set(keyOf(state), state.takenUs)
}
