import type { TopicNames } from '../../foundation/kafka/config.ts'
import { partitionOf } from '../../foundation/kafka/partition-map.ts'
import type { TopicMetadata } from '../../foundation/kafka/topic-metadata.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import type { OutgoingMessage } from '../messages/outgoing-message.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'
import { type Checkpoint, checkpointText } from './checkpoint.ts'

/**
 * A symbol without trades is checkpointed too, this often: its offsets move on with the others of its partition, so
 * that a restart replays minutes and not days.
 */
const IDLE_EVERY_MS = 60_000

/** Below `max.message.bytes` of the topic, so that a start record of a later instance has room. */
const MAX_BYTES = 6 << 20

export interface CheckpointWriterOptions {
  readonly instance: string
  readonly symbols: readonly string[]
  readonly names: TopicNames
  readonly topics: ReadonlyMap<string, TopicMetadata>
  readonly clock: Clock
  /** The highest counter that was read, by symbol. */
  readonly counters: ReadonlyMap<string, number>
  /** Up to where the ledger's topic has been read for what other instances wrote. */
  readonly ledgerRead: (partition: number) => number
}

/** Writes what is acknowledged, by symbol, into the compacted topic. Specification: C1 to C4. */
export class CheckpointWriter {
  readonly #options: CheckpointWriterOptions
  readonly #acknowledged: AcknowledgedState
  readonly #send: (message: OutgoingMessage) => void
  readonly #counters: Map<string, number>
  readonly #writtenAtMs = new Map<string, number>()
  /** Symbols whose last checkpoint is not acknowledged: another would only grow the queue. */
  readonly #underWay = new Set<string>()

  constructor(
    options: CheckpointWriterOptions,
    acknowledged: AcknowledgedState,
    send: (message: OutgoingMessage) => void,
  ) {
    this.#options = options
    this.#counters = new Map(options.counters)
    this.#acknowledged = acknowledged
    this.#send = send
  }

  /** The first record of this instance for every symbol: an older instance that meets it stops. */
  writeStart(): void {
    for (const symbol of this.#options.symbols) this.#write(symbol, 'start')
  }

  /** Those symbols of which something was acknowledged since, and the idle ones now and then. */
  writeChanged(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const symbol of this.#options.symbols) {
      if (this.#underWay.has(symbol)) continue
      const idleMs = nowMs - (this.#writtenAtMs.get(symbol) ?? 0)
      if (this.#acknowledged.hasChanged(symbol) || idleMs >= IDLE_EVERY_MS) this.#write(symbol, 'running')
    }
  }

  /** A checkpoint is acknowledged, or discarded: the symbol may have another. */
  onSettled(messages: readonly OutgoingMessage[]): void {
    for (const { topic, key } of messages) {
      if (topic === this.#options.names.checkpoints && key !== null) this.#underWay.delete(key.toString())
    }
  }

  /** Up to where everything is known: of the ledger, also what an older instance wrote between our own rows. */
  #offset(topic: string, partition: number): number {
    const acknowledged = this.#acknowledged.nextOffset(topic, partition)
    const { names, ledgerRead } = this.#options
    return topic === names.gaps ? Math.min(acknowledged, ledgerRead(partition)) : acknowledged
  }

  #write(symbol: string, kind: Checkpoint['kind']): void {
    const { instance, names, topics, clock } = this.#options
    const partition = (topic: string) => partitionOf(symbol, topics.get(topic)?.partitions ?? 1)
    const nowMs = Math.floor(clock.wallMicros() / 1000)
    // Offsets and events are taken together: both are what the last acknowledgement left.
    const topicsBehind = [names.trades, names.bookTicker, names.gaps]
    const checkpoint: Checkpoint = {
      version: 1,
      kind,
      instance,
      counter: (this.#counters.get(symbol) ?? 0) + 1,
      written_at: nowMs,
      offsets: Object.fromEntries(
        topicsBehind.map((topic) => [topic, this.#offset(topic, partition(topic))]),
      ),
      partitions: Object.fromEntries(topicsBehind.map((topic) => [topic, partition(topic)])),
      ...this.#acknowledged.snapshot(symbol),
    }
    const value = Buffer.from(checkpointText(checkpoint))
    // The topic would not take it, and everything behind would wait: what stands in the topics is replayed instead.
    if (value.length > MAX_BYTES && kind === 'running') return
    this.#counters.set(symbol, checkpoint.counter)
    this.#underWay.add(symbol)
    this.#writtenAtMs.set(symbol, clock.monotonicMs())
    this.#send({
      topic: names.checkpoints,
      partition: partition(names.checkpoints),
      key: Buffer.from(symbol),
      value,
      headers: new Map(),
      timestampMs: nowMs,
      mark: null,
      queuedAtMs: clock.monotonicMs(),
    })
  }
}
