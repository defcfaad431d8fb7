import { gapRecord } from '../foundation/kafka/gap-sender.ts'
import type { Gap } from '../foundation/market/gap.ts'
import type { AcknowledgedState } from './checkpoint/acknowledged-state.ts'
import type { PipelineContext } from './pipeline-context.ts'

/** Sends rows of the ledger, and has them remembered for checkpoints until Kafka has them. */
export class LedgerPublisher {
  readonly #context: Pick<PipelineContext, 'topics' | 'ports' | 'instance' | 'send' | 'log'>
  readonly #topic: string
  readonly #acknowledged: AcknowledgedState
  #isStarted = false

  /** @param topic that of the ledger */
  constructor(
    context: Pick<PipelineContext, 'topics' | 'ports' | 'instance' | 'send' | 'log'>,
    topic: string,
    acknowledged: AcknowledgedState,
  ) {
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
