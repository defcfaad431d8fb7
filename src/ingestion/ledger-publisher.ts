import { gapRecord } from '../foundation/kafka/gap-sender.ts'
import { HEADER, schemaHeader } from '../foundation/kafka/headers.ts'
import { partitionOf } from '../foundation/kafka/partition-map.ts'
import type { Gap } from '../foundation/market/gap.ts'
import { RECORDING_KEY, type Recording } from '../foundation/market/recording.ts'
import type { AcknowledgedState } from './checkpoint/acknowledged-state.ts'
import type { IngestionConfig } from './config.ts'
import type { PipelineContext } from './pipeline-context.ts'

type PublisherContext = Pick<
  PipelineContext,
  'topics' | 'ports' | 'instance' | 'source' | 'timeUnit' | 'send' | 'log'
>

/** Sends rows of the ledger, and has them remembered for checkpoints until Kafka has them. */
export class LedgerPublisher {
  readonly #context: PublisherContext
  readonly #topic: string
  readonly #acknowledged: AcknowledgedState
  #isStarted = false
  #announced: Omit<Recording, 'at'> | null = null

  /** @param topic that of the ledger */
  constructor(context: PublisherContext, topic: string, acknowledged: AcknowledgedState) {
    this.#context = context
    this.#topic = topic
    this.#acknowledged = acknowledged
  }

  /** From now on rows are sent. Those of before are in the start record, and are published once more after it. */
  start(): void {
    this.#isStarted = true
  }

  publish(gap: Gap): void {
    if (!this.#isStarted) {
      this.#acknowledged.published(gap)
      return
    }
    if (!this.#acknowledged.publishedNow(gap)) this.#noteUnsaved()
    const { topics, ports, instance, send } = this.#context
    send({
      ...gapRecord(gap, this.#topic, topics.get(this.#topic)?.partitions ?? 1, instance),
      mark: null,
      gap,
      queuedAtMs: ports.clock.monotonicMs(),
    })
  }

  /** Says what is recorded from now on. */
  announce(
    { topics: names, shard, eventTypes }: Pick<IngestionConfig, 'topics' | 'shard' | 'eventTypes'>,
    symbols: ReadonlySet<string>,
  ): void {
    const { instance, source, timeUnit } = this.#context
    this.#announced = {
      instance,
      source,
      time_unit: timeUnit,
      topics: { trades: names.trades, bookTicker: names.bookTicker, gaps: names.gaps },
      shard: `${shard.index}/${shard.count}`,
      event_types: [...eventTypes],
      symbols: [...symbols].sort(),
    }
    this.announceAgain()
  }

  /** Repeats the announcement, into a topic that has lost it. */
  announceAgain(): void {
    if (this.#announced === null) return
    const { topics, ports, send } = this.#context
    const timestampMs = Math.floor(ports.clock.wallMicros() / 1000)
    const recording: Recording = { ...this.#announced, at: timestampMs }
    send({
      topic: this.#topic,
      partition: partitionOf(RECORDING_KEY, topics.get(this.#topic)?.partitions ?? 1),
      key: Buffer.from(RECORDING_KEY),
      value: Buffer.from(JSON.stringify(recording)),
      headers: new Map([[Buffer.from(HEADER.schema), Buffer.from(schemaHeader('recording', 'millisecond'))]]),
      timestampMs,
      mark: null,
      queuedAtMs: ports.clock.monotonicMs(),
    })
  }

  /** Logs the first, the second, the fourth and so on. */
  #noteUnsaved(): void {
    const { unsavedRows } = this.#acknowledged
    if ((unsavedRows & (unsavedRows - 1)) !== 0) return
    this.#context.log.error(
      { rows: unsavedRows },
      'More rows of the ledger wait for Kafka than checkpoints hold; these are lost if this process ends before Kafka takes them',
    )
  }
}
