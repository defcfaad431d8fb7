import type { TopicNames } from '../../foundation/kafka/config.ts'
import { keyOf, partitionOf } from '../../foundation/kafka/partition.ts'
import type { TopicMetadata } from '../../foundation/kafka/topic-metadata.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import type { OutgoingMessage } from '../messages/message.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'
import { type Checkpoint, checkpointText } from './checkpoint.ts'
import type { Tail, TailEpochs } from './tail-epochs.ts'

/** Symbols without trades are checkpointed too, so that a restart replays minutes and not days. */
const IDLE_EVERY_MS = 60_000

/** Below `max.message.bytes` of the topic, to leave room for the start record of a later instance. */
const MAX_BYTES = 6 << 20

export interface CheckpointWriterOptions {
  readonly instance: string
  readonly symbols: ReadonlySet<string>
  readonly names: TopicNames
  readonly topics: ReadonlyMap<string, TopicMetadata>
  readonly clock: Clock
  /** The highest counter that was read, by symbol. */
  readonly counters: ReadonlyMap<string, number>
  /** Returns up to which offset the ledger was read for rows of other instances. */
  readonly ledgerRead: (partition: number) => number
  readonly epochs: Pick<TailEpochs, 'learn' | 'leaderEpoch'>
  readonly topicId: (topic: string) => string
  readonly acknowledged: AcknowledgedState
  readonly send: (message: OutgoingMessage) => void
}

/** Writes the acknowledged state of each symbol into the compacted topic. Specification: C1 to C4. */
export class CheckpointWriter {
  readonly #options: CheckpointWriterOptions
  readonly #counters: Map<string, number>
  readonly #writtenAtMs = new Map<string, number>()
  /** Symbols whose last checkpoint is unacknowledged: another would only grow the queue. */
  readonly #underWay = new Set<string>()
  readonly #quoteReceiptsMs = new Map<string, number>()
  #isHeld = false

  constructor(options: CheckpointWriterOptions) {
    this.#options = options
    this.#counters = new Map(options.counters)
  }

  /** Writes the first record of this instance for each symbol. An older instance that reads one stops. */
  writeStart(symbols: Iterable<string> = this.#options.symbols): void {
    for (const symbol of symbols) this.#write(symbol, this.#draft(symbol, 'start'))
  }

  /** Writes the symbols that changed, and the idle ones at longer intervals. */
  async writeChanged(): Promise<void> {
    if (this.#isHeld) return
    const { clock, symbols, epochs, acknowledged } = this.#options
    const nowMs = clock.monotonicMs()
    const due = [...symbols].filter((symbol) => {
      if (this.#underWay.has(symbol)) return false
      const idleMs = nowMs - (this.#writtenAtMs.get(symbol) ?? 0)
      return acknowledged.hasChanged(symbol) || idleMs >= IDLE_EVERY_MS
    })
    const drafts = due.map((symbol) => ({ symbol, draft: this.#draft(symbol, 'running') }))
    // Acknowledgements during the wait do not change the drafts, so events and offsets match.
    const tails = drafts.flatMap(({ draft }) => tailsOf(draft))
    await epochs.learn([...new Map(tails.map((tail) => [keyOf(tail), tail])).values()])
    if (this.#isHeld) {
      for (const symbol of due) acknowledged.noteUnwritten(symbol)
      return
    }
    for (const { symbol, draft } of drafts) this.#write(symbol, draft)
  }

  /** Stops writing until {@link resume}: Kafka may have lost acknowledged messages. */
  hold(): void {
    this.#isHeld = true
  }

  resume(): void {
    this.#isHeld = false
  }

  /** Receipt of the last quote in the last checkpoint, milliseconds since the Unix epoch, or null. */
  quoteReceiptMs(symbol: string): number | null {
    return this.#quoteReceiptsMs.get(symbol) ?? null
  }

  /** Allows the next checkpoint of a symbol once the last one is acknowledged or discarded. */
  onSettled(messages: readonly OutgoingMessage[]): void {
    for (const { topic, key } of messages) {
      if (topic === this.#options.names.checkpoints && key !== null) this.#underWay.delete(key.toString())
    }
  }

  /** Returns the offset up to which everything is known; in the ledger also rows of an older instance. */
  #offset(topic: string, partition: number): number {
    const { names, ledgerRead, acknowledged } = this.#options
    const offset = acknowledged.nextOffset(topic, partition)
    return topic === names.gaps ? Math.min(offset, ledgerRead(partition)) : offset
  }

  #partitionOf(symbol: string, topic: string): number {
    return partitionOf(symbol, this.#options.topics.get(topic)?.partitions ?? 1)
  }

  /** Offsets and events are taken at the same moment: both reflect the last acknowledgement. */
  #draft(symbol: string, kind: Checkpoint['kind']): Checkpoint {
    const { instance, names, topics, clock, topicId, acknowledged } = this.#options
    const all = [names.trades, names.bookTicker, names.depth, names.gaps]
    // Order books may not be recorded.
    const topicsBehind = all.filter((topic) => topics.has(topic))
    const partition = (topic: string) => this.#partitionOf(symbol, topic)
    const ofEach = <Value>(value: (topic: string) => Value) =>
      Object.fromEntries(topicsBehind.map((topic) => [topic, value(topic)]))
    return {
      version: 1,
      kind,
      instance,
      counter: (this.#counters.get(symbol) ?? 0) + 1,
      written_at: Math.floor(clock.wallMicros() / 1000),
      offsets: ofEach((topic) => this.#offset(topic, partition(topic))),
      leader_epochs: {},
      topic_ids: ofEach(topicId),
      partitions: ofEach(partition),
      ...acknowledged.snapshot(symbol),
    }
  }

  #write(symbol: string, draft: Checkpoint): void {
    const { names, clock, epochs, send } = this.#options
    const leaderEpochs = tailsOf(draft).map((tail) => [tail.topic, epochs.leaderEpoch(tail)] as const)
    const checkpoint = {
      ...draft,
      leader_epochs: Object.fromEntries(leaderEpochs.filter(([, leaderEpoch]) => leaderEpoch >= 0)),
    }
    const value = Buffer.from(checkpointText(checkpoint))
    // The topic would refuse it and block later messages. The next start replays the topics instead.
    if (value.length > MAX_BYTES && checkpoint.kind === 'running') return
    this.#counters.set(symbol, checkpoint.counter)
    this.#underWay.add(symbol)
    this.#writtenAtMs.set(symbol, clock.monotonicMs())
    if (checkpoint.bookTicker !== null) this.#quoteReceiptsMs.set(symbol, checkpoint.bookTicker.last_receipt)
    send({
      topic: names.checkpoints,
      partition: this.#partitionOf(symbol, names.checkpoints),
      key: Buffer.from(symbol),
      value,
      headers: new Map(),
      timestampMs: checkpoint.written_at,
      mark: null,
      queuedAtMs: clock.monotonicMs(),
    })
  }
}

/** Returns the positions at which a checkpoint holds. */
export function tailsOf({ offsets, partitions = {} }: Checkpoint): Tail[] {
  return Object.entries(offsets).flatMap(([topic, offset]) => {
    const partition = partitions[topic]
    return partition === undefined ? [] : [{ topic, partition, offset }]
  })
}
