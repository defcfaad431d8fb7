import { gapRecord } from '../foundation/kafka/gap-sender.ts'
import { HEADER } from '../foundation/kafka/headers.ts'
import { partitionOf } from '../foundation/kafka/partition.ts'
import { schemaHeader } from '../foundation/kafka/schema-of.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import type { Gap } from '../foundation/market/gap.ts'
import { RECORDING_KEY, type Recording } from '../foundation/market/recording.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { AcknowledgedState } from './checkpoint/acknowledged-state.ts'
import type { IngestionConfig } from './config.ts'
import type { MessageSink, OutgoingMessage } from './messages/message.ts'
import type { Ports } from './ports.ts'

interface PublisherContext {
  readonly topics: ReadonlyMap<string, TopicMetadata>
  readonly ports: Pick<Ports, 'clock'>
  readonly instance: string
  readonly source: string
  readonly timeUnit: TimeUnit
  readonly queue: MessageSink
  readonly log: Logger
}

/** Sends ledger rows and keeps them for checkpoints until Kafka has them. */
export class LedgerPublisher {
  readonly #context: PublisherContext
  readonly #topic: string
  readonly #acknowledged: AcknowledgedState
  #isStarted = false
  #announced: Recording | null = null
  /** Kafka discarded the announcement. */
  #isDiscarded = false

  /** @param topic of the ledger */
  constructor(context: PublisherContext, topic: string, acknowledged: AcknowledgedState) {
    this.#context = context
    this.#topic = topic
    this.#acknowledged = acknowledged
  }

  /** Starts sending rows. The start record holds earlier rows, which are then published again. */
  start(): void {
    this.#isStarted = true
  }

  publish(gap: Gap): void {
    if (!this.#isStarted) {
      this.#acknowledged.published(gap)
      return
    }
    if (!this.#acknowledged.publishedNow(gap)) this.#noteUnsaved()
    const { topics, ports, instance, queue } = this.#context
    queue.push({
      ...gapRecord(gap, this.#topic, topics.get(this.#topic)?.partitions ?? 1, instance),
      mark: null,
      gap,
      queuedAtMs: ports.clock.monotonicMs(),
    })
  }

  /** Announces what is recorded from now on. */
  announce(
    { topics: names, shard, eventTypes }: Pick<IngestionConfig, 'topics' | 'shard' | 'eventTypes'>,
    symbols: ReadonlySet<string>,
  ): void {
    const { instance, source, timeUnit, ports } = this.#context
    this.#announced = {
      instance,
      at: Math.floor(ports.clock.wallMicros() / 1000),
      source,
      time_unit: timeUnit,
      topics: {
        trades: names.trades,
        bookTicker: names.bookTicker,
        ...(eventTypes.includes('depth') ? { depth: names.depth } : {}),
        gaps: names.gaps,
      },
      shard: `${shard.index}/${shard.count}`,
      event_types: [...eventTypes],
      symbols: [...symbols].sort(),
    }
    this.announceAgain()
  }

  /** Repeats the announcement in a topic that was deleted and recreated. */
  announceAgain(): void {
    if (this.#announced === null) return
    this.#isDiscarded = false
    const { topics, ports, queue } = this.#context
    queue.push({
      topic: this.#topic,
      partition: partitionOf(RECORDING_KEY, topics.get(this.#topic)?.partitions ?? 1),
      key: Buffer.from(RECORDING_KEY),
      value: Buffer.from(JSON.stringify(this.#announced)),
      headers: new Map([[Buffer.from(HEADER.schema), Buffer.from(schemaHeader('recording', 'millisecond'))]]),
      timestampMs: Math.floor(ports.clock.wallMicros() / 1000),
      mark: null,
      queuedAtMs: ports.clock.monotonicMs(),
    })
  }

  /** Notes a discarded message. Ledger rows are in checkpoints; an announcement is nowhere else. */
  onDiscarded({ mark, key }: OutgoingMessage): void {
    if (mark === null && key?.toString() === RECORDING_KEY) this.#isDiscarded = true
  }

  /** Repeats a discarded announcement. Call it every few seconds. */
  repeatDiscarded(): void {
    if (this.#isDiscarded) this.announceAgain()
  }

  /** Logs the first, second, fourth, eighth… unsaved row. */
  #noteUnsaved(): void {
    const { unsavedRows } = this.#acknowledged
    if ((unsavedRows & (unsavedRows - 1)) !== 0) return
    const text =
      'More ledger rows wait for Kafka than a checkpoint can hold; the excess is lost if this process ends before Kafka takes them'
    this.#context.log.error({ rows: unsavedRows }, text)
  }
}
