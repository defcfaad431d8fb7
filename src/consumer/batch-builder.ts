import type { FetchedMessage } from '../foundation/kafka/codec/fetched-message.ts'
import { Decoder, type TopicKind } from '../foundation/kafka/message-decoder.ts'
import type { FetchedPartition } from '../foundation/kafka/partition-fetcher.ts'
import type { Position } from '../foundation/kafka/position.ts'
import type { StoredOffset } from '../foundation/store/consumer-offsets.ts'
import { type Loss, lossKey } from '../foundation/store/losses.ts'
import { Batch } from './batch.ts'
import { deadLetter, mirroredLetter } from './dead-letter.ts'
import { FirstEvents } from './first-events.ts'
import { keyOf, type PartitionOrigin } from './partition.ts'

export interface BatchBuilderOptions {
  readonly kindOf: ReadonlyMap<string, TopicKind>
  /** Messages in a batch; up to {@link GROWTH} times as many while the database is behind. */
  readonly batchSize: number
  readonly flushIntervalMs: number
  /** Sealed batches that may wait for the database; at this many, fetching stops. */
  readonly maxSealed: number
  /** Bytes that may be held, being written included; at this many, fetching stops. */
  readonly maxBytes: number
}

/** A stretch of offsets that the broker no longer has. */
export interface Hole {
  readonly topic: string
  readonly partition: number
  readonly from: number
  readonly to: number
}

/**
 * While a sealed batch waits for the one before it, the next grows: what a transaction costs is shared by more rows. When
 * the database keeps up a batch has its usual size.
 */
const GROWTH = 10

/** What a message costs beside its bytes: the record, its row in the columns, its origin. */
const MESSAGE_OVERHEAD_BYTES = 500

interface Assigned extends PartitionOrigin {
  readonly kind: TopicKind
  /** The offset expected next from a fetch. */
  next: number
  /** The leader epoch of the message before; −1 when it is not known. */
  leaderEpoch: number
  /** Everything below is in the database. */
  stored: number
  /** When ingestion received the last event that was taken in, and that is stored; null while there is none. */
  takenUs: number | null
  storedUs: number | null
  /** After messages had left the topic unread, and from the very first start on. */
  loss: FirstEvents | null
}

/**
 * What the consumer has taken in and not stored yet: positions of the assigned partitions, the batch being
 * gathered, and the sealed batches in the order in which they must be written. No I/O and no clock of its own.
 *
 * Rows of a partition that has been taken away stay in their batches: storing them again elsewhere adds no row,
 * and `consumer_offsets` moves only over what is stored, whoever stored it. Only commits to Kafka are limited to
 * what is assigned.
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

  /** Replaces the assignment: kept partitions go on where they are, new ones start at their stored offset. */
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

  /** Up to where each assigned partition is stored. */
  progress(): Array<PartitionOrigin & { readonly stored: number }> {
    return [...this.#assigned.values()].map(({ topic, topicId, partition, stored }) => ({
      topic,
      topicId,
      partition,
      stored,
    }))
  }

  /** When ingestion received what was stored last, of each assigned partition of events that has had any. */
  storedReceipts(): Array<{ topic: string; partition: number; receivedUs: number }> {
    return [...this.#assigned.values()].flatMap(({ topic, partition, storedUs }) =>
      storedUs === null ? [] : [{ topic, partition, receivedUs: storedUs }],
    )
  }

  /** Whether more may be fetched. */
  get hasRoom(): boolean {
    return this.#sealed.length < this.#options.maxSealed && this.heldBytes < this.#options.maxBytes
  }

  /** Bytes of the messages taken in that are not stored yet, with what keeping each costs. */
  get heldBytes(): number {
    return this.#sum((batch) => batch.bytes)
  }

  /** Messages taken in that are not stored yet. */
  get pending(): number {
    return this.#sum((batch) => batch.messages)
  }

  /**
   * Takes in what a fetch brought, from the expected offset on; what lies below was taken before.
   *
   * @param nowMs of the monotonic clock
   * @param wallMs of the wall clock, for the time of dead letters
   * @returns a hole when the fetch begins above the expected offset: nothing was taken then
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
   * Goes on at `offset`. The step over the hole is recorded, so that the stored offset can follow, and the first
   * event of each symbol and type behind it, for the ledger.
   */
  skipTo(topic: string, partition: number, offset: number, nowMs: number): void {
    const state = this.#assigned.get(keyOf({ topic, partition }))
    if (state === undefined) return
    if (offset > state.next) {
      // Rows from before are stored first: what is stored last is asked for before the rows of a batch are there.
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

  /** Milliseconds until the gathered batch is due, 0 when it is; null when nothing is gathered. */
  dueInMs(nowMs: number): number | null {
    return this.#open === null
      ? null
      : Math.max(0, this.#open.openedAtMs + this.#options.flushIntervalMs - nowMs)
  }

  /** Closes the gathered batch, so that it can be written. */
  flush(): void {
    this.#seal()
  }

  /** The next batch to write, which stays the writer's until {@link stored} or {@link abandon}. */
  take(): Batch | null {
    if (this.#writing === null && this.#sealed.length === 0 && this.#isFull) this.#seal()
    this.#writing ??= this.#sealed.shift() ?? null
    return this.#writing
  }

  /** The batch that was taken is committed in the database. */
  stored(batch: Batch): void {
    if (batch !== this.#writing) return
    this.#writing = null
    for (const step of batch.steps.values()) {
      const state = this.#assigned.get(keyOf(step))
      if (state?.topicId !== step.topicId || step.nextOffset < state.stored) continue
      state.stored = step.nextOffset
      state.storedUs = batch.lastReceivedUs.get(keyOf(step)) ?? state.storedUs
    }
  }

  /** The batch that was taken will not be written. */
  abandon(batch: Batch): void {
    if (batch !== this.#writing) return
    this.#writing = null
    this.counters.discarded += batch.messages
  }

  /** Forgets all positions, which must be read again; what was taken in is stored all the same. */
  forgetPositions(): void {
    this.#assigned.clear()
    this.#seal()
  }

  /**
   * Forgets all positions, which must be assigned anew, and everything that is not stored, except the batch that is
   * being written: what becomes of that is told by {@link stored} or {@link abandon}.
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

  /** Another owner may have moved a partition on while it was not ours: what then follows begins a batch of its own. */
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

/** Records how far the partition has got in this batch, from `from` on. */
function advance(batch: Batch, state: Assigned, from: number): void {
  batch.advance(state, from, { offset: state.next, leaderEpoch: state.leaderEpoch })
  if (state.takenUs !== null) batch.lastReceivedUs.set(keyOf(state), state.takenUs)
}
