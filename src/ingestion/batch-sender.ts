import { describeKafkaError } from '../foundation/kafka/broker-errors.ts'
import type { KafkaPort, RecordProducer } from '../foundation/kafka/kafka-port.ts'
import { keyOf, type TopicPartition } from '../foundation/kafka/partition.ts'
import type {
  BaseOffset,
  Compression,
  LeftPartition,
  PartitionRecords,
} from '../foundation/kafka/record-sender.ts'
import { isForGood, lacksReplicas } from '../foundation/kafka/refused-records.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import { LatencyWindow } from '../foundation/telemetry/latency.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { LatencySummary } from '../foundation/telemetry/status.ts'
import { HeldPartition, HeldPartitions, type HeldView } from './messages/held-partition.ts'
import { countEvents, type DiscardCause, type OutgoingMessage, type SendEvents } from './messages/message.ts'
import { SendProblem } from './messages/send-problem.ts'
import type { Ports } from './ports.ts'

export type SenderPorts = Pick<Ports, 'clock'> & { readonly kafka: Pick<KafkaPort, 'producer'> }

export interface BatchSenderOptions {
  readonly compression: Compression
  readonly batchSize: number
  readonly queueMaxBytes: number
}

/** How often a discarded message is logged. */
const DISCARD_LOG_MS = 60_000

/** In uncompressed bytes. Brokers take 1 MiB per partition and send by default, compressed. */
export const SEND_MAX_BYTES = 900_000
/** Wait before a partition is set aside, if Kafka takes others or names its leader. */
const HOLD_AFTER_MS = 2000

/** A send that takes longer is counted. */
const SLOW_SEND_MS = 10_000

/**
 * Sends batches and retries each until Kafka acknowledges it. A partition that Kafka refuses is set
 * aside: its messages wait in up to half of the queue's bytes, later ones are discarded, and the
 * others continue. Specification: K7 to K9.
 */
export class BatchSender {
  readonly #options: BatchSenderOptions
  readonly #clock: Ports['clock']
  readonly #log: Logger
  readonly #problem: SendProblem
  readonly #producer: RecordProducer
  readonly #held = new HeldPartitions()
  readonly held: HeldView = this.#held
  /** Learns the fate of messages; null before the start. */
  events: SendEvents | null = null
  /** Running sends, and set-aside partitions that are being drained. */
  readonly #background = new Set<Promise<void>>()
  #closing: Promise<void> | null = null
  /** The current batch: what is sent, and neither acknowledged nor set aside. */
  #underWay = { batch: [] as readonly OutgoingMessage[], messages: 0, events: 0, settled: new Set<string>() }
  #acknowledgedAtMs = Number.NEGATIVE_INFINITY
  #discardLoggedAtMs = Number.NEGATIVE_INFINITY
  /** When a leader last reported missing replicas, on the monotonic clock. */
  lackedReplicasAtMs = Number.NEGATIVE_INFINITY
  readonly #sendTimes = new LatencyWindow()
  acknowledged = 0
  discarded = 0
  sends = 0
  /** Sends that took longer than 10 s. */
  slowSends = 0
  /** Failed attempts to send a batch, each of which was retried. */
  failures = 0

  constructor(options: BatchSenderOptions, { clock, kafka }: SenderPorts, log: Logger) {
    this.#options = options
    this.#clock = clock
    this.#log = log
    this.#problem = new SendProblem(log)
    this.#producer = kafka.producer('tapeline-ingestion', options.compression)
  }

  /** Events sent and not acknowledged yet. */
  get inFlight(): number {
    return this.#underWay.events + this.#held.inFlight
  }

  /** Why the current batch is not acknowledged; null when nothing failed since the last success. */
  get problem(): string | null {
    return this.#problem.reason
  }

  /** When Kafka last acknowledged anything, on the monotonic clock. */
  get acknowledgedAtMs(): number {
    return this.#acknowledgedAtMs
  }

  /** When the oldest message was queued, on the monotonic clock; null when there is none. */
  get oldestQueuedAtMs(): number | null {
    const held = this.#held.oldestQueuedAtMs
    const { batch, messages } = this.#underWay
    const first = messages === 0 ? undefined : batch[0]
    return first === undefined ? held : Math.min(first.queuedAtMs, held ?? Number.POSITIVE_INFINITY)
  }

  /** Times from sending a batch to its acknowledgement, over the last minute. */
  sendTimes(nowMs: number): LatencySummary {
    return this.#sendTimes.summary(nowMs)
  }

  /** Whether nothing may be discarded: set-aside messages fill up while Kafka takes nothing. */
  isFull(nowMs: number): boolean {
    const isSilent = nowMs - this.#acknowledgedAtMs >= SLOW_SEND_MS
    return this.#held.size > 0 && this.#isHeldFull && isSilent && !this.#held.isAnyRefused
  }

  get #isHeldFull(): boolean {
    return this.#held.bytes >= this.#options.queueMaxBytes / 2
  }

  /** Resolves once every partition of the batch is acknowledged or set aside, or on close. */
  async send(batch: readonly OutgoingMessage[]): Promise<void> {
    this.#underWay = { batch, messages: batch.length, events: countEvents(batch), settled: new Set() }
    const held = Promise.withResolvers<void>()
    const sending = this.#send(batch, (left) => {
      for (const place of left) this.#hold(place)
      held.resolve()
    })
    this.#track(sending)
    await Promise.race([sending, held.promise])
  }

  /** Removes and returns the messages that Kafka has not acknowledged. */
  takeUnacknowledged(): OutgoingMessage[] {
    const { batch, settled } = this.#underWay
    const left = batch.filter(({ topic, partition }) => !settled.has(keyOf({ topic, partition })))
    return [...left, ...this.#held.takeAll()]
  }

  /** Resolves when nothing is sent any more; an acknowledgement may begin to drain a partition. */
  async drained(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background)
  }

  /** Aborts the sends that wait for a broker. */
  close(): Promise<void> {
    this.#closing ??= this.#producer.close().catch((error: unknown) => {
      this.#log.debug({ err: error }, `Closing the producer failed: ${describeError(error)}`)
    })
    return this.#closing
  }

  async #send(
    batch: readonly OutgoingMessage[],
    onLeft: (left: ReadonlyArray<LeftPartition<OutgoingMessage>>) => void,
  ): Promise<void> {
    const sentAtMs = this.#clock.monotonicMs()
    let isSlow = false
    let wasLeft = false
    let thereSinceMs: number | null = null
    try {
      await this.#producer.send(batch, {
        limitMs: Number.POSITIVE_INFINITY,
        onAcknowledged: (base, messages) => this.#guard(() => this.#acknowledge(base, messages)),
        onTooLarge: (refused, error) => this.#guard(() => this.#split(refused, describeKafkaError(error))),
        onRetry: (error, left, namedAtMs) => {
          const nowMs = this.#clock.monotonicMs()
          const waitedMs = nowMs - sentAtMs
          this.failures++
          this.#problem.note(error, waitedMs, nowMs)
          if (left.some(({ problem }) => lacksReplicas(problem))) this.lackedReplicasAtMs = nowMs
          if (waitedMs > SLOW_SEND_MS && !isSlow) this.slowSends++
          isSlow ||= waitedMs > SLOW_SEND_MS
          for (const one of left) this.#held.get(one)?.note(one.problem)
          // In a batch of this partition alone, no other acknowledgement can show that Kafka works.
          thereSinceMs = namedAtMs === null ? null : (thereSinceMs ?? namedAtMs)
          const isThere = thereSinceMs !== null && nowMs - thereSinceMs >= HOLD_AFTER_MS
          const isRefused = left.some(({ problem }) => isForGood(problem))
          const kafkaAnswers = isRefused || isThere || this.#acknowledgedAtMs > sentAtMs
          if (wasLeft || waitedMs < HOLD_AFTER_MS || !kafkaAnswers) return
          wasLeft = true
          onLeft(left)
        },
      })
    } catch (error) {
      if (this.#closing === null) throw error
      return
    }
    this.sends++
    const nowMs = this.#clock.monotonicMs()
    this.#sendTimes.record(nowMs - sentAtMs, nowMs)
  }

  #acknowledge({ topic, partition, offset }: BaseOffset, messages: readonly OutgoingMessage[]): void {
    this.#acknowledgedAtMs = this.#clock.monotonicMs()
    if (this.#held.size === 0) this.#problem.clear()
    this.acknowledged += countEvents(messages)
    this.#settle(messages)
    const next = offset < 0 ? null : { topic, partition, offset: offset + messages.length }
    this.events?.onAcknowledged(messages, next)
    this.#drainHeld({ topic, partition })
  }

  /** Removes messages of one partition from the current batch. */
  #settle(messages: readonly OutgoingMessage[]): void {
    const [first] = messages
    if (first === undefined) return
    const held = this.#held.get(first)
    if (held !== undefined && held.sending.length > 0) {
      held.sending = []
      return
    }
    this.#underWay.messages -= messages.length
    this.#underWay.events -= countEvents(messages)
    this.#underWay.settled.add(keyOf(first))
  }

  #hold(left: LeftPartition<OutgoingMessage>): void {
    const { topic, partition, records, problem } = left
    this.#settle(records)
    const held = this.#heldOf(left, describeKafkaError(problem))
    held.note(problem)
    held.sending = records
    this.#log.error(
      { topic, partition },
      `Kafka does not take ${topic}/${partition}; its messages are set aside`,
    )
  }

  #heldOf(place: TopicPartition, reason: string): HeldPartition {
    const known = this.#held.get(place)
    if (known !== undefined) return known
    const held = new HeldPartition(place, this.#options.batchSize, reason, this.#clock.monotonicMs())
    this.#held.add(held)
    return held
  }

  /** Sends the waiting messages in order, until the partition is no longer set aside. */
  #drainHeld(place: TopicPartition): void {
    const held = this.#held.get(place)
    if (held === undefined || held.isDraining) return
    held.isDraining = true
    this.#track(this.#drain(held))
  }

  async #drain(held: HeldPartition): Promise<void> {
    while (this.#closing === null) {
      held.sending = held.take(SEND_MAX_BYTES)
      if (held.sending.length === 0) {
        this.#held.delete(held)
        const { topic, partition, discarded } = held
        this.#log.info({ topic, partition, discarded }, `Kafka takes ${topic}/${partition} again`)
        return
      }
      await this.#send(held.sending, () => {})
    }
  }

  #track(work: Promise<void>): void {
    const tracked = work
      .catch((error: unknown) => this.events?.onDefect(error))
      .finally(() => this.#background.delete(tracked))
    this.#background.add(tracked)
  }

  /** The sender would treat an exception of ours as a broker error and retry. */
  #guard(ours: () => void): void {
    try {
      ours()
    } catch (error) {
      this.events?.onDefect(error)
    }
  }

  /** Handles messages of a partition that Kafka found too large together. */
  #split({ topic, partition, records }: PartitionRecords<OutgoingMessage>, reason: string): void {
    this.#settle(records)
    const [first] = records
    if (records.length === 1 && first !== undefined) this.#discard(first, 'too large', reason)
    else this.#heldOf({ topic, partition }, reason).split(records)
    this.#drainHeld({ topic, partition })
  }

  /** Keeps or discards messages of set-aside partitions. @returns the others, for sending */
  setAside(messages: readonly OutgoingMessage[]): readonly OutgoingMessage[] {
    if (this.#held.size === 0 && this.discarded === 0) return messages
    return messages.filter((message) => !this.#setAside(message))
  }

  /** @returns false when its partition is not set aside */
  #setAside(message: OutgoingMessage): boolean {
    const held = this.#held.get(message)
    // Ledger rows and checkpoints, which have keys and no mark, are few: they are always kept.
    const mayBeDiscarded = message.mark !== null || message.key === null
    if (held !== undefined && mayBeDiscarded && this.#isHeldFull) {
      held.discarded++
      this.#discard(message, 'refused', held.reason)
      return true
    }
    this.events?.onKept(message)
    held?.push(message)
    return held !== undefined
  }

  #discard(message: OutgoingMessage, cause: DiscardCause, reason: string): void {
    if (message.mark !== null) this.discarded++
    const nowMs = this.#clock.monotonicMs()
    if (cause === 'too large' || nowMs - this.#discardLoggedAtMs >= DISCARD_LOG_MS) {
      const { topic, partition } = message
      this.#discardLoggedAtMs = nowMs
      this.#log.error(
        { topic, partition, discardedEvents: this.discarded },
        `A message for ${topic}/${partition} was discarded: ${reason}`,
      )
    }
    this.events?.onDiscarded(message, cause)
  }
}
