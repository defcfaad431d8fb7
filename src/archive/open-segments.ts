import { randomUUID } from 'node:crypto'
import type { ChainHead } from '../foundation/archive/commit-chain.ts'
import type { Hole, MessageBuffer, ReadPosition } from '../foundation/consumption/message-buffer.ts'
import type { FetchedPartition } from '../foundation/kafka/codec/fetch-api.ts'
import type { TopicKind } from '../foundation/kafka/message-decoder.ts'
import { keyOf, type PartitionOrigin } from '../foundation/kafka/partition.ts'
import { bytesOf, isFull, type Segment } from './segment.ts'
import { SegmentRows } from './segment-rows.ts'

export interface OpenSegmentsOptions {
  readonly kindOf: ReadonlyMap<string, TopicKind>
  /** Age at which a segment is sealed. */
  readonly flushIntervalMs: number
  /** Bytes of all open segments at which the largest is sealed. */
  readonly sealBytes: number
  /** Bytes of all segments, also those being written, at which fetching pauses. */
  readonly maxBytes: number
}

/** A partition and the end of its chain. */
export interface OwnedPartition extends PartitionOrigin {
  readonly head: ChainHead
}

/** A chain whose incarnation must end. */
export interface ChainRestart extends PartitionOrigin {
  readonly incarnation: number
  /** The end of the chain. */
  readonly before: number
  readonly restart: { readonly offset: number; readonly leaderEpoch: number }
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
  restart: { readonly offset: number; readonly leaderEpoch: number } | null
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
  readonly #retired = new Map<Segment, 'open' | 'writing'>()
  #isDraining = false
  #consumed = 0

  constructor(options: OpenSegmentsOptions) {
    this.#options = options
  }

  /**
   * Replaces the assignment. A kept partition continues; others are read from the end of their chains.
   * Messages of a lost one that are not committed are dropped.
   */
  assign(partitions: readonly OwnedPartition[]): void {
    const keys = new Set(partitions.map(keyOf))
    for (const key of [...this.#owned.keys()]) if (!keys.has(key)) this.#owned.delete(key)
    for (const one of partitions) if (this.#stateOf(one) === undefined) this.#continueAt(one)
  }

  #continueAt({ topic, topicId, partition, head }: OwnedPartition): void {
    const kind = this.#options.kindOf.get(topic)
    if (kind === undefined) return
    this.#owned.set(keyOf({ topic, partition }), {
      ...{ topic, topicId, partition, kind },
      incarnation: head.incarnation,
      next: head.nextOffset,
      leaderEpoch: head.leaderEpoch,
      open: null,
      writing: null,
      committed: head.nextOffset,
      restart: null,
    })
  }

  /**
   * Ends reading a topic under other ids than this: it was recreated. What was read of it stays to be
   * committed, since no other copy is left.
   */
  retire(topic: string, topicId: string): void {
    for (const [key, state] of [...this.#owned]) {
      if (state.topic !== topic || state.topicId === topicId) continue
      if (state.writing !== null) this.#retired.set(state.writing, 'writing')
      if (state.open !== null) this.#retired.set(state.open, 'open')
      this.#owned.delete(key)
    }
  }

  /** Where to fetch from next. A partition whose chain must restart is not fetched. */
  positions(): ReadPosition[] {
    return [...this.#owned.values()]
      .filter((one) => one.restart === null && !isFull(one.open))
      .map(({ topic, topicId, partition, next, leaderEpoch }) => ({
        ...{ topic, topicId, partition, leaderEpoch },
        offset: next,
      }))
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
    return this.#held.reduce((sum, segment) => sum + bytesOf(segment), 0)
  }

  get hasRoom(): boolean {
    return this.heldBytes < this.#options.maxBytes
  }

  /** Messages that are not committed. */
  get pending(): number {
    return this.#held.reduce((sum, { messages }) => sum + messages, 0)
  }

  /** When the oldest uncommitted message was taken in, on the monotonic clock; null without one. */
  get oldestMs(): number | null {
    const opened = this.#held.map(({ openedAtMs }) => openedAtMs)
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
    const state = this.#stateOf(fetched)
    if (state === undefined || state.restart !== null) return null
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
  skipTo(position: ReadPosition, nowMs: number): void {
    const { offset } = position
    const state = this.#stateOf(position)
    if (state === undefined || offset <= state.next) return
    const segment = this.#segmentOf(state, nowMs)
    segment.lost += offset - state.next
    state.next = segment.nextOffset = offset
    state.leaderEpoch = segment.leaderEpoch = -1
  }

  /**
   * Ends the chain's incarnation, since the log lost its tail. Once what was read is committed,
   * another one begins at the position.
   */
  restart(position: ReadPosition): void {
    const { offset, leaderEpoch = -1 } = position
    const state = this.#stateOf(position)
    if (state !== undefined) state.restart = { offset, leaderEpoch }
  }

  /** Makes every open segment due. */
  drain(): void {
    this.#isDraining = true
  }

  /** Seals and returns the next segment to write, which belongs to the writer until {@link committed}. */
  take(nowMs: number): Segment | null {
    for (const [retired, state] of this.#retired) {
      if (state === 'writing') continue
      this.#retired.set(retired, 'writing')
      return retired
    }
    const ready = [...this.#owned.values()].filter(({ open, writing }) => open !== null && writing === null)
    const isDue = ({ open, restart }: Owned) =>
      this.#isDraining || restart !== null || isFull(open) || this.#dueInMs(open, nowMs) === 0
    // The oldest first: a store that is slower than the interval must not leave out small partitions.
    const openedMs = ({ open }: Owned) => open?.openedAtMs ?? nowMs
    const [oldest] = ready.filter(isDue).sort((a, b) => openedMs(a) - openedMs(b))
    const openBytes = [...this.#owned.values()].reduce((sum, { open }) => sum + bytesOf(open), 0)
    const isShort = openBytes >= this.#options.sealBytes
    const state = oldest ?? (isShort ? ready.sort((a, b) => bytesOf(b.open) - bytesOf(a.open))[0] : undefined)
    if (state === undefined) return null
    ;[state.writing, state.open] = [state.open, null]
    return state.writing
  }

  /** Returns the chains whose incarnation must end, and that have nothing left to commit. */
  restarts(): Array<ChainRestart> {
    return [...this.#owned.values()].flatMap(
      ({ topic, topicId, partition, incarnation, next, restart, open, writing }) =>
        restart === null || open !== null || writing !== null
          ? []
          : [{ topic, topicId, partition, incarnation, before: next, restart }],
    )
  }

  /** Continues a chain that had to restart at its end, unless the partition is not ours any more. */
  restarted(partition: PartitionOrigin, head: ChainHead): void {
    if (this.#stateOf(partition)?.restart) this.#continueAt({ ...partition, head })
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
    this.#retired.delete(segment)
    const state = this.#owned.get(keyOf(segment))
    if (state?.writing !== segment) return
    state.writing = null
    state.committed = segment.nextOffset
  }

  /**
   * Gives up a partition: another process has committed the offsets of its taken segment. What was
   * read after that segment does not begin at the end of the chain any more.
   * The segment's rows must not be read after this.
   */
  drop(segment: Segment): void {
    this.#rows.release(segment)
    if (this.#stateOf(segment)?.writing === segment) this.#owned.delete(keyOf(segment))
    for (const one of this.#retired.keys())
      if (one.topicId === segment.topicId && one.partition === segment.partition) this.#retired.delete(one)
  }

  /** All segments that are not committed. */
  get #held(): Segment[] {
    const owned = [...this.#owned.values()].flatMap(({ open, writing }) => [open ?? [], writing ?? []].flat())
    return [...owned, ...this.#retired.keys()]
  }

  /** The state of a partition under this id of its topic. */
  #stateOf(origin: PartitionOrigin): Owned | undefined {
    const state = this.#owned.get(keyOf(origin))
    return state?.topicId === origin.topicId ? state : undefined
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
}
