import type { Hole, MessageBuffer, ReadPosition } from '../foundation/consumption/message-buffer.ts'
import { deadLetter, mirroredLetter } from '../foundation/dead-letters/dead-letter.ts'
import type { FetchedPartition } from '../foundation/kafka/codec/fetch-api.ts'
import type { FetchedMessage } from '../foundation/kafka/codec/record-batch.ts'
import { Decoder, type TopicKind } from '../foundation/kafka/message-decoder.ts'
import { keyOf, type PartitionOrigin } from '../foundation/kafka/partition.ts'
import type { StoredOffset } from '../foundation/store/consumer-offsets.ts'
import { type Loss, lossKey } from '../foundation/store/losses.ts'
import { Batch, FirstEvents, type ReadUpTo } from './batch.ts'

export interface BatchBuilderOptions {
  readonly kindOf: ReadonlyMap<string, TopicKind>
  /** Messages in a batch; up to {@link GROWTH} times as many while the database cannot keep up. */
  readonly batchSize: number
  readonly flushIntervalMs: number
  /** A batch is sealed when its messages take so many bytes in memory, however few they are. */
  readonly batchMaxBytes: number
  /** Fetching pauses while so many sealed batches wait for the database. */
  readonly maxSealed: number
  /** Fetching pauses at so many bytes, including those of the batch being written. */
  readonly maxBytes: number
}

/** How far a partition is stored. */
export interface Progress extends PartitionOrigin {
  /** Everything below this offset is in the database. */
  readonly nextOffset: number
  /** When ingestion received the last stored event, in microseconds; null if none was stored. */
  readonly receivedUs: number | null
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

interface Assigned extends PartitionOrigin, ReadUpTo {
  readonly kind: TopicKind
  next: number
  leaderEpoch: number
  receivedUs: number | null
  /** All messages below this offset are in the database. */
  stored: number
  /** When ingestion received the last event stored; null while there is none. */
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
export class BatchBuilder implements MessageBuffer {
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
   * stored offset, in a new batch: another owner may have advanced them.
   */
  assign(partitions: readonly StoredOffset[], losses: readonly Loss[] = []): void {
    const known = new Map(losses.map((loss) => [lossKey(loss), loss]))
    const keys = new Set(partitions.map(keyOf))
    for (const key of this.#assigned.keys()) if (!keys.has(key)) this.#assigned.delete(key)
    for (const { topic, topicId, partition, nextOffset, leaderEpoch } of partitions) {
      const key = keyOf({ topic, partition })
      const kind = this.#options.kindOf.get(topic)
      if (kind === undefined || this.#assigned.has(key)) continue
      const found = known.get(lossKey({ topicId, partition }))
      const loss = found === undefined ? null : FirstEvents.after(found, kind)
      const start = { next: nextOffset, leaderEpoch, receivedUs: null, stored: nextOffset, storedUs: null }
      this.#assigned.set(key, { topic, topicId, partition, kind, ...start, loss })
      this.flush()
    }
  }

  /** Whether a partition of the batch is still assigned under the id of its topic. */
  isReading(batch: Batch): boolean {
    return [...batch.steps].some(([key, { topicId }]) => this.#assigned.get(key)?.topicId === topicId)
  }

  /** Where to fetch from next. */
  positions(): ReadPosition[] {
    return Array.from(this.#assigned.values(), ({ topic, topicId, partition, next, leaderEpoch }) => {
      return { topic, topicId, partition, offset: next, leaderEpoch }
    })
  }

  /** How far each assigned partition is stored. */
  progress(): Progress[] {
    return Array.from(this.#assigned.values(), ({ topic, topicId, partition, stored, storedUs }) => {
      return { topic, topicId, partition, nextOffset: stored, receivedUs: storedUs }
    })
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
    const state = this.#stateOf(fetched)
    if (state === undefined) return null
    let batch: Batch | null = null
    let from = state.next
    try {
      for (const message of fetched.messages) {
        const { offset } = message
        if (offset < state.next) continue
        if (offset > state.next)
          return { topic: state.topic, partition: state.partition, from: state.next, to: offset }
        batch ??= this.#openBatch(nowMs)
        this.#add(batch, state, message, wallMs)
        batch.messages++
        batch.bytes += MESSAGE_OVERHEAD_BYTES + message.end - message.start + (message.key?.length ?? 0)
        this.counters.consumed++
        state.next = offset + 1
        state.leaderEpoch = message.leaderEpoch
        if (!this.#isFull(batch, this.#sealAt)) continue
        batch.advance(state, from, state)
        this.flush()
        batch = null
        from = state.next
      }
    } finally {
      if (batch !== null && state.next > from) batch.advance(state, from, state)
    }
    return null
  }

  /**
   * Continues at `offset`. Records the step over the hole, so that the stored offset can follow.
   * Records the first event of each symbol and type after it, for the ledger.
   */
  skipTo(position: ReadPosition, nowMs: number): void {
    const { offset } = position
    const state = this.#stateOf(position)
    if (state === undefined) return
    const { next, topicId, partition, kind } = state
    state.next = offset
    state.leaderEpoch = -1
    if (offset <= next) return
    // Earlier rows are stored in a batch before this one: the ledger entry needs the last stored
    // event, which is queried before a batch inserts its rows.
    this.flush()
    const batch = this.#openBatch(nowMs)
    batch.advance(state, next, state)
    this.counters.skipped += offset - next
    state.loss = FirstEvents.after({ topicId, partition, to: offset, cause: 'retention', seen: [] }, kind)
    state.loss?.noteIn(batch)
  }

  /** Milliseconds until the open batch is due, 0 when it is due; null when there is no open batch. */
  dueInMs(nowMs: number): number | null {
    return this.#open === null
      ? null
      : Math.max(0, this.#open.openedAtMs + this.#options.flushIntervalMs - nowMs)
  }

  /** Seals the open batch, so that it can be written. */
  flush(): void {
    if (this.#open !== null) this.#sealed.push(this.#open)
    this.#open = null
  }

  /**
   * Returns the next batch to write: sealed, full or due. It belongs to the writer until {@link
   * stored} or {@link abandon}.
   */
  take(nowMs: number): Batch | null {
    const isFull = this.#open !== null && this.#isFull(this.#open, this.#options.batchSize)
    const isWanted = isFull || this.dueInMs(nowMs) === 0
    if (this.#writing === null && this.#sealed.length === 0 && isWanted) this.flush()
    this.#writing ??= this.#sealed.shift() ?? null
    return this.#writing
  }

  /** Records that the taken batch is committed in the database. */
  stored(batch: Batch): void {
    if (batch !== this.#writing) return
    this.#writing = null
    for (const [key, { topicId, nextOffset, receivedUs }] of batch.steps) {
      const state = this.#assigned.get(key)
      // A delayed batch may end below what another owner has stored since.
      if (state?.topicId !== topicId || nextOffset < state.stored) continue
      state.stored = nextOffset
      state.storedUs = receivedUs ?? state.storedUs
    }
  }

  /** Records that the taken batch will not be written. */
  abandon(batch: Batch): void {
    if (batch !== this.#writing) return
    this.#writing = null
    this.counters.discarded += batch.messages
  }

  /**
   * Forgets all positions, which must be assigned again.
   *
   * @param discards whether to discard what is not stored, except the batch being written: {@link
   *   stored} or {@link abandon} decides about it
   */
  forgetPositions(discards: boolean): void {
    this.#assigned.clear()
    this.flush()
    if (!discards) return
    for (const { messages } of this.#sealed) this.counters.discarded += messages
    this.#sealed.length = 0
  }

  #isFull({ messages, bytes }: Batch, atMessages: number): boolean {
    return messages >= atMessages || bytes >= this.#options.batchMaxBytes
  }

  get #sealAt(): number {
    return this.#options.batchSize * (this.#sealed.length === 0 ? 1 : GROWTH)
  }

  /** The state of a partition under this id of its topic. */
  #stateOf(origin: PartitionOrigin): Assigned | undefined {
    const state = this.#assigned.get(keyOf(origin))
    return state?.topicId === origin.topicId ? state : undefined
  }

  #sum(of: (batch: Batch) => number): number {
    const held = [this.#open, this.#writing, ...this.#sealed]
    return held.reduce((sum, batch) => sum + (batch === null ? 0 : of(batch)), 0)
  }

  #openBatch(nowMs: number): Batch {
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
    state.receivedUs = decoder.event.receivedUs
    state.loss?.observe(batch, decoder.event)
  }
}
