import { partitionOf } from '../foundation/kafka/partition-map.ts'
import type { BaseOffset } from '../foundation/kafka/record-sender.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import type { AcknowledgedState } from './checkpoint/acknowledged-state.ts'
import type { CheckpointWriter } from './checkpoint/checkpoint-writer.ts'
import type { GapLedger } from './continuity/gap-ledger.ts'
import type { OutgoingMessage } from './messages/outgoing-message.ts'
import type { PipelineContext } from './pipeline-context.ts'

/** How long a process that must stop waits for the last rows of its ledger. */
const LIMIT_MS = 5000

export interface LostTailOptions {
  readonly context: Pick<PipelineContext, 'topics' | 'symbols' | 'settled' | 'onFatal' | 'log'> & {
    readonly ports: Pick<PipelineContext['ports'], 'clock'>
  }
  readonly bookTicker: string
  readonly acknowledged: AcknowledgedState
  readonly checkpoints: CheckpointWriter
  readonly ledger: Pick<GapLedger, 'outage'>
}

/**
 * Notices that messages are acknowledged with offsets that others had before: Kafka has lost those. Which they were only the topics
 * can say, so that this process ends and the next start reads them. No checkpoint may say until then that Kafka has them.
 */
export class LostTail {
  readonly #options: LostTailOptions
  #isLost = false

  constructor(options: LostTailOptions) {
    this.#options = options
  }

  /** To be called before the acknowledgement is taken over. `next`: the offset after the messages, which are of one partition. */
  check(messages: readonly OutgoingMessage[], next: BaseOffset | null): void {
    if (next === null || this.#isLost) return
    const { topic, partition } = next
    const first = next.offset - messages.length
    const known = this.#options.acknowledged.nextOffset(topic, partition)
    if (first < known) this.#end(topic, partition, first, known)
  }

  #end(topic: string, partition: number, first: number, known: number): void {
    this.#isLost = true
    const { context, checkpoints, bookTicker } = this.#options
    checkpoints.stop()
    const message = `Partition ${partition} of ${topic} lost messages that Kafka had acknowledged, from ${first} to ${known}`
    context.log.error({ topic, partition, from: first, to: known }, message)
    if (topic === bookTicker) this.#enterQuotes(partition)
    const fatal = new TapelineError('KAFKA', message, {
      fix: 'Start ingestion again, as its supervisor does: it reads what the topics still have and backfills the trades.',
    })
    const limit = new AbortController()
    const cancel = context.ports.clock.schedule(LIMIT_MS, () => limit.abort(fatal))
    const end = () => {
      cancel()
      context.onFatal(fatal)
    }
    // The windows are in Kafka first, if it takes them.
    context.settled(limit.signal).then(end, end)
  }

  /** The lost quotes came after the last checkpoint; if not, the next start does not believe that one, and enters the window. */
  #enterQuotes(partition: number): void {
    const { context, checkpoints, ledger, bookTicker } = this.#options
    const nowMs = Math.floor(context.ports.clock.wallMicros() / 1000)
    const partitions = context.topics.get(bookTicker)?.partitions ?? 1
    for (const symbol of context.symbols) {
      const fromMs = checkpoints.quoteReceiptMs(symbol)
      if (fromMs !== null && partitionOf(symbol, partitions) === partition)
        ledger.outage(symbol, fromMs, nowMs, 'truncation')
    }
  }
}
