import { keyOf, partitionOf, type TopicPartition } from '../foundation/kafka/partition.ts'
import type { BaseOffset } from '../foundation/kafka/record-sender.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import { sleep } from '../foundation/runtime/backoff.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { AcknowledgedState } from './checkpoint/acknowledged-state.ts'
import type { CheckpointWriter } from './checkpoint/checkpoint-writer.ts'
import type { GapLedger } from './continuity/gap-ledger.ts'
import type { Delivery } from './core.ts'
import type { OutgoingMessage } from './messages/message.ts'
import type { Ports } from './ports.ts'
import type { TopicWatch } from './topic-watch.ts'

/** How long a stopping process waits until Kafka has the last ledger rows. */
const LIMIT_MS = 5000

/** Brokers learn of a recreated topic in turn: one answer with the old id proves nothing. */
const ANSWERS = 2
const ASK_EVERY_MS = 1000

export interface LostTailOptions {
  readonly context: {
    readonly topics: ReadonlyMap<string, TopicMetadata>
    readonly symbols: ReadonlySet<string>
    readonly ports: Pick<Ports, 'clock'>
    readonly producer: Pick<Delivery, 'settled'>
    readonly onFatal: (error: unknown) => void
    readonly log: Logger
  }
  readonly bookTicker: string
  readonly acknowledged: AcknowledgedState
  readonly checkpoints: CheckpointWriter
  readonly ledger: Pick<GapLedger, 'outage'>
  readonly topicWatch: Pick<TopicWatch, 'idOf' | 'check'>
  /** Aborts when this process stops. */
  readonly signal: AbortSignal
}

/** A partition that acknowledged messages at offsets of earlier messages. */
interface Suspect extends TopicPartition {
  readonly topicId: string
  readonly from: number
  readonly to: number
  /** How many answers since then have shown the same topic id. */
  answers: number
}

/**
 * Detects messages that Kafka acknowledges at offsets of earlier messages. Either the topic was
 * deleted and recreated, which {@link TopicWatch} handles, or Kafka has lost messages. Only the
 * topics can tell which ones, so this process ends and the next start reads them. Until then no
 * checkpoint may claim that Kafka has them.
 */
export class LostTail {
  readonly #options: LostTailOptions
  readonly #suspects = new Map<string, Suspect>()
  #isJudging = false
  #isLost = false

  constructor(options: LostTailOptions) {
    this.#options = options
  }

  /** Checks messages of a partition before they count as acknowledged. `next`: the offset after. */
  check(messages: readonly OutgoingMessage[], next: BaseOffset | null): void {
    if (next === null || this.#isLost) return
    const { acknowledged, checkpoints, context, topicWatch } = this.#options
    const { topic, partition } = next
    const from = next.offset - messages.length
    const to = acknowledged.nextOffset(topic, partition)
    const place = keyOf({ topic, partition })
    if (from >= to || this.#suspects.has(place)) return
    this.#suspects.set(place, { topic, partition, topicId: topicWatch.idOf(topic), from, to, answers: 0 })
    checkpoints.hold()
    if (this.#isJudging) return
    this.#isJudging = true
    this.#judge().catch((error: unknown) => {
      if (!this.#options.signal.aborted) context.onFatal(error)
    })
  }

  async #judge(): Promise<void> {
    const { context, checkpoints, topicWatch, signal } = this.#options
    for (;;) {
      const asked = [...this.#suspects]
      const isAnswered = await topicWatch.check()
      signal.throwIfAborted()
      for (const [place, suspect] of asked) {
        if (topicWatch.idOf(suspect.topic) !== suspect.topicId) this.#suspects.delete(place)
        else if (isAnswered && ++suspect.answers >= ANSWERS) return this.#end(suspect)
      }
      if (this.#suspects.size === 0) break
      await sleep(ASK_EVERY_MS, signal, context.ports.clock)
    }
    this.#isJudging = false
    checkpoints.resume()
  }

  #end({ topic, partition, from, to }: Suspect): void {
    this.#isLost = true
    const { context, bookTicker } = this.#options
    const message = `Partition ${partition} of ${topic} lost messages that Kafka had acknowledged, from ${from} to ${to}`
    context.log.error({ topic, partition, from, to }, message)
    if (topic === bookTicker) this.#enterQuotes(partition)
    const fatal = new TapelineError('KAFKA', message, {
      fix: 'Restart ingestion (its supervisor does): it reads what is left in the topics and backfills the lost trades.',
    })
    const limit = new AbortController()
    const cancel = context.ports.clock.schedule(LIMIT_MS, () => limit.abort(fatal))
    const end = () => {
      cancel()
      context.onFatal(fatal)
    }
    // Waits for Kafka to take the windows, up to the limit.
    context.producer.settled(limit.signal).then(end, end)
  }

  /** Enters a window for quotes after the last checkpoint; the next start checks earlier ones. */
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
