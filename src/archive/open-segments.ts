import { randomUUID } from 'node:crypto'
import type { ChainHead } from '../foundation/archive/commit-chain.ts'
import type { Hole, MessageBuffer } from '../foundation/consumption/fetch-loop.ts'
import type { FetchedPartition } from '../foundation/kafka/codec/fetch-api.ts'
import type { TopicKind } from '../foundation/kafka/message-decoder.ts'
import {
  keyOf,
  type PartitionOrigin,
  type Position,
  type TopicPartition,
} from '../foundation/kafka/partition.ts'
import { type SegmentBuffers, SegmentRows } from './segment-rows.ts'

/** Days that a segment may touch, so that few files must be read again for a day. */
const MAX_DAYS = 8

export interface OpenSegmentsOptions {
  readonly kindOf: ReadonlyMap<string, TopicKind>
  /** Age at which a segment is sealed. */
  readonly flushIntervalMs: number
  /** Bytes of all open segments at which the largest is sealed. */
  readonly sealBytes: number
  /** Bytes of all segments, also those being written, at which fetching pauses. */
  readonly maxBytes: number
}

/** Rows of one partition, from one offset to another. */
export interface Segment extends SegmentBuffers {
  /** UUID. */
  readonly id: string
  readonly incarnation: number
  readonly firstOffset: number
  /** The offset after its last message. */
  nextOffset: number
  /** Leader epoch of its last message; −1 if unknown. */
  leaderEpoch: number
  messages: number
  /** Messages in its range that Kafka no longer had. */
  lost: number
  /** On the monotonic clock. */
  readonly openedAtMs: number
}

/** A partition and the end of its chain. */
export interface OwnedPartition extends PartitionOrigin {
  readonly head: ChainHead
}

interface Owned extends PartitionOrigin {
  readonly kind: TopicKind
  readonly incarnation: number
  next: number
  leaderEpoch: number
  open: Segment | null
  writing: Segment | null
  /** Everything below this offset is committed. */
  committed: number
  /** Where the chain continues in another incarnation, since the log lost its tail; null if not. */
  restartAt: number | null
}

/**
 * Holds the messages that are read and not committed, one open segment per partition. Does no I/O and
 * uses no clock.
 *
 * The segments of a partition are committed in order: the next one is not taken before the one
 * being written is committed or lost.
 */
export class OpenSegments implements MessageBuffer {
  readonly #options: OpenSegmentsOptions
  readonly #owned = new Map<string, Owned>()
  readonly #rows = new SegmentRows()
  /** Segments of a topic that was recreated: no other copy of their messages is left. */
  #retired: Segment[] = []
  #isDraining = false
  #consumed = 0

  constructor(options: OpenSegmentsOptions) {
    this.#options = options
  }

  /** Replaces the assignment. A kept partition continues; what is not committed of a lost one is dropped. */
  assign(partitions: readonly OwnedPartition[]): void {
    const keys = new Set(partitions.map(keyOf))
    for (const key of [...this.#owned.keys()]) if (!keys.has(key)) this.#owned.delete(key)
    for (const one of partitions) if (!this.owns(one)) this.continueAt(one)
  }

  /**
   * Reads a partition from the end of its chain. Drops what is not committed of it, except messages
   * of an older topic with its name.
   */
  continueAt({ topic, topicId, partition, head }: OwnedPartition): void {
    const kind = this.#options.kindOf.get(topic)
    if (kind === undefined) return
    const before = this.#owned.get(keyOf({ topic, partition }))
    if (before !== undefined && before.topicId !== topicId && before.open !== null)
      this.#retired.push(before.open)
    this.#owned.set(keyOf({ topic, partition }), {
      ...{ topic, topicId, partition, kind },
      incarnation: head.incarnation,
      next: head.nextOffset,
      leaderEpoch: head.leaderEpoch,
      open: null,
      writing: null,
      committed: head.nextOffset,
      restartAt: null,
    })
  }

  /** Whether a partition is assigned under this id of its topic. */
  owns(origin: PartitionOrigin): boolean {
    return this.#owned.get(keyOf(origin))?.topicId === origin.topicId
  }

  /** Where to fetch from next. A partition whose chain must restart is not fetched. */
  positions(): Position[] {
    return [...this.#owned.values()]
      .filter((one) => one.restartAt === null && !isFull(one.open))
      .map(({ topic, partition, next, leaderEpoch }) => ({ topic, partition, offset: next, leaderEpoch }))
  }

  /** The offset below which each partition is committed. */
  progress(): Array<PartitionOrigin & { readonly nextOffset: number }> {
    return [...this.#owned.values()].map(({ topic, topicId, partition, committed }) => ({
      ...{ topic, topicId, partition },
      nextOffset: committed,
    }))
  }

  get counters(): { readonly consumed: number; readonly deadLetters: number } {
    return { consumed: this.#consumed, deadLetters: this.#rows.deadLetters }
  }

  /** Bytes of all rows that are not committed. */
  get heldBytes(): number {
    return (
      this.#sum(({ open, writing }) => bytesOf(open) + bytesOf(writing)) +
      this.#retired.reduce((sum, segment) => sum + bytesOf(segment), 0)
    )
  }

  get hasRoom(): boolean {
    return this.heldBytes < this.#options.maxBytes
  }

  /** Messages that are not committed. */
  get pending(): number {
    return this.#sum(({ open, writing }) => (open?.messages ?? 0) + (writing?.messages ?? 0))
  }

  /** When the oldest uncommitted message was taken in, on the monotonic clock; null without one. */
  get oldestMs(): number | null {
    const opened = [...this.#owned.values()].flatMap(({ open, writing }) =>
      [open, writing].flatMap((one) => (one === null ? [] : [one.openedAtMs])),
    )
    return opened.length === 0 ? null : Math.min(...opened)
  }

  /**
   * Takes in the messages of a fetch from the expected offset, and skips those below it.
   *
   * @param nowMs of the monotonic clock
   * @param wallMs of the wall clock, for the time of dead letters
   * @returns a hole when the fetch begins above the expected offset; nothing was taken in then
   * @throws TapelineError `SCHEMA` see {@link Decoder.decode}
   */
  accept(fetched: FetchedPartition, nowMs: number, wallMs: number): Hole | null {
    const state = this.#owned.get(keyOf(fetched))
    if (state === undefined || state.restartAt !== null) return null
    for (const message of fetched.messages) {
      const { offset } = message
      if (offset < state.next) continue
      if (offset > state.next)
        return { topic: state.topic, partition: state.partition, from: state.next, to: offset }
      if (isFull(state.open)) return null
      const segment = this.#segmentOf(state, nowMs)
      this.#rows.add(state.kind, segment, message, wallMs)
      segment.messages++
      this.#consumed++
      state.next = segment.nextOffset = offset + 1
      state.leaderEpoch = segment.leaderEpoch = message.leaderEpoch
    }
    return null
  }

  /**
   * Continues at `offset`, since Kafka no longer has the messages before it. The next record covers
   * them, and counts them as lost.
   */
  skipTo(topic: string, partition: number, offset: number, nowMs: number): void {
    const state = this.#owned.get(keyOf({ topic, partition }))
    if (state === undefined || offset <= state.next) return
    const segment = this.#segmentOf(state, nowMs)
    segment.lost += offset - state.next
    state.next = segment.nextOffset = offset
    state.leaderEpoch = segment.leaderEpoch = -1
  }

  /**
   * Ends the chain's incarnation, since the log lost its tail. Once what was read is committed,
   * another one begins at `offset`.
   */
  restart(partition: TopicPartition, offset: number): void {
    const state = this.#owned.get(keyOf(partition))
    if (state !== undefined) state.restartAt = offset
  }

  /** Makes every open segment due. */
  drain(): void {
    this.#isDraining = true
  }

  /** Seals and returns the next segment to write, which belongs to the writer until {@link committed}. */
  take(nowMs: number): Segment | null {
    const retired = this.#retired.shift()
    if (retired !== undefined) return retired
    const ready = [...this.#owned.values()].filter(({ open, writing }) => open !== null && writing === null)
    const isDue = ({ open, restartAt }: Owned) =>
      this.#isDraining || restartAt !== null || isFull(open) || this.#dueInMs(open, nowMs) === 0
    // The oldest first: a store that is slower than the interval must not leave out small partitions.
    const openedMs = ({ open }: Owned) => open?.openedAtMs ?? nowMs
    const [oldest] = ready.filter(isDue).sort((a, b) => openedMs(a) - openedMs(b))
    const isShort = this.#sum(({ open }) => bytesOf(open)) >= this.#options.sealBytes
    const state = oldest ?? (isShort ? ready.sort((a, b) => bytesOf(b.open) - bytesOf(a.open))[0] : undefined)
    if (state === undefined) return null
    ;[state.writing, state.open] = [state.open, null]
    return state.writing
  }

  /** Returns the chains that must restart and have nothing left to commit. */
  restarts(): Array<PartitionOrigin & { incarnation: number; before: number; restartAt: number }> {
    return [...this.#owned.values()].flatMap(
      ({ topic, topicId, partition, incarnation, next, restartAt, open, writing }) =>
        restartAt === null || open !== null || writing !== null
          ? []
          : [{ topic, topicId, partition, incarnation, before: next, restartAt }],
    )
  }

  /** Milliseconds until a segment is due; null if none is open. */
  dueInMs(nowMs: number): number | null {
    const due = [...this.#owned.values()].flatMap(({ open, writing }) =>
      open === null || writing !== null ? [] : [this.#dueInMs(open, nowMs)],
    )
    return due.length === 0 ? null : Math.min(...due)
  }

  /** Notes that a taken segment is committed. Its rows must not be read any more. */
  committed(segment: Segment): void {
    this.#rows.release(segment)
    const state = this.#owned.get(keyOf(segment))
    if (state?.writing !== segment) return
    state.writing = null
    state.committed = segment.nextOffset
  }

  /**
   * Gives up a partition: another process has committed the offsets of its taken segment. The
   * segment's rows must not be read any more.
   */
  drop(segment: Segment): void {
    this.#rows.release(segment)
    const state = this.#owned.get(keyOf(segment))
    if (state?.writing === segment) this.#owned.delete(keyOf(segment))
  }

  #segmentOf(state: Owned, nowMs: number): Segment {
    state.open ??= {
      ...{ topic: state.topic, topicId: state.topicId, partition: state.partition },
      id: randomUUID(),
      incarnation: state.incarnation,
      firstOffset: state.next,
      nextOffset: state.next,
      leaderEpoch: state.leaderEpoch,
      buffers: new Map(),
      messages: 0,
      lost: 0,
      openedAtMs: nowMs,
    }
    return state.open
  }

  #dueInMs(open: Segment | null, nowMs: number): number {
    const openedMs = open?.openedAtMs ?? Number.POSITIVE_INFINITY
    return Math.max(0, openedMs + this.#options.flushIntervalMs - nowMs)
  }

  #sum(of: (state: Owned) => number): number {
    let sum = 0
    for (const state of this.#owned.values()) sum += of(state)
    return sum
  }
}

function bytesOf(segment: Segment | null): number {
  let bytes = 0
  for (const buffer of segment?.buffers.values() ?? []) bytes += buffer.bytes
  return bytes
}

function isFull(segment: Segment | null): boolean {
  if (segment === null) return false
  for (const { days } of segment.buffers.values()) if (days.size >= MAX_DAYS) return true
  return false
}
