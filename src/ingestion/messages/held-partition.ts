import { describeKafkaError } from '../../foundation/kafka/broker-errors.ts'
import { isForGood } from '../../foundation/kafka/refused-records.ts'
import type { IngestionStatus } from '../../foundation/telemetry/status.ts'
import { MessageQueue } from './message-queue.ts'
import type { OutgoingMessage } from './outgoing-message.ts'

/**
 * A partition that Kafka does not take. Its messages wait here, in order, so that the others
 * do not wait for them.
 */
export class HeldPartition {
  readonly topic: string
  readonly partition: number
  /** On the monotonic clock. */
  readonly sinceMs: number
  readonly #queue = new MessageQueue(Number.POSITIVE_INFINITY)
  readonly #batchSize: number
  /** Messages in one send: fewer after Kafka found one too large. */
  #limit: number
  /** They come before the queue: Kafka found them too large together. */
  #again: readonly OutgoingMessage[] = []
  /** Sent, and not acknowledged. */
  sending: readonly OutgoingMessage[] = []
  isDraining = false
  /** Kafka answered that it does not take them, and does not ask to repeat them. */
  isRefused = false
  /** Why Kafka does not take them. */
  reason: string
  discarded = 0

  constructor(
    place: { readonly topic: string; readonly partition: number },
    batchSize: number,
    reason: string,
    nowMs: number,
  ) {
    this.topic = place.topic
    this.partition = place.partition
    this.sinceMs = nowMs
    this.reason = reason
    this.#batchSize = batchSize
    this.#limit = batchSize
  }

  /** Messages that wait, without those under way. */
  get length(): number {
    return this.#queue.length + this.#again.length
  }

  /** Events that wait, without those under way. */
  get events(): number {
    return this.#queue.events + countEvents(this.#again)
  }

  get bytes(): number {
    return this.#queue.bytes
  }

  get oldestQueuedAtMs(): number | null {
    return this.sending[0]?.queuedAtMs ?? this.#again[0]?.queuedAtMs ?? this.#queue.oldestQueuedAtMs
  }

  /** An attempt to send its messages has failed. */
  note(problem: unknown): void {
    this.reason = describeKafkaError(problem)
    this.isRefused = isForGood(problem)
  }

  push(message: OutgoingMessage): void {
    this.#queue.push(message)
  }

  /** The next messages to send; none when nothing waits. */
  take(maxBytes: number): readonly OutgoingMessage[] {
    if (this.#again.length === 0) {
      this.#limit = this.#batchSize
      return this.#queue.take(this.#batchSize, maxBytes)
    }
    const taken = this.#again.slice(0, this.#limit)
    this.#again = this.#again.slice(this.#limit)
    return taken
  }

  /** Removes and returns all, with those under way. */
  takeAll(): OutgoingMessage[] {
    const queued = this.#queue.take(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)
    const all = [...this.sending, ...this.#again, ...queued]
    this.sending = []
    this.#again = []
    return all
  }

  /** They are too large together: they are sent again in smaller parts, before everything else. */
  split(messages: readonly OutgoingMessage[]): void {
    this.#limit = Math.max(1, Math.ceil(messages.length / 2))
    this.#again = [...messages, ...this.#again]
  }
}

export function countEvents(messages: readonly OutgoingMessage[]): number {
  return messages.reduce((count, { mark }) => count + (mark === null ? 0 : 1), 0)
}

type Place = Pick<HeldPartition, 'topic' | 'partition'>

/** All of them. */
export class HeldPartitions {
  readonly #byPlace = new Map<string, HeldPartition>()

  get size(): number {
    return this.#byPlace.size
  }

  /** Bytes that wait, without those under way. */
  get bytes(): number {
    return this.#sum(({ bytes }) => bytes)
  }

  get isAnyRefused(): boolean {
    return this.#sum(({ isRefused }) => (isRefused ? 1 : 0)) > 0
  }

  /** Events that wait. */
  get events(): number {
    return this.#sum(({ events }) => events)
  }

  /** Events under way. */
  get inFlight(): number {
    return this.#sum(({ sending }) => countEvents(sending))
  }

  /** On the monotonic clock; null when there is none. */
  get oldestQueuedAtMs(): number | null {
    const times = [...this.#byPlace.values()].flatMap(({ oldestQueuedAtMs: atMs }) => atMs ?? [])
    return times.length === 0 ? null : Math.min(...times)
  }

  get({ topic, partition }: Place): HeldPartition | undefined {
    return this.#byPlace.size === 0 ? undefined : this.#byPlace.get(`${topic}:${partition}`)
  }

  add(held: HeldPartition): void {
    this.#byPlace.set(`${held.topic}:${held.partition}`, held)
  }

  delete({ topic, partition }: Place): void {
    this.#byPlace.delete(`${topic}:${partition}`)
  }

  /** Removes and returns all messages, with those under way. */
  takeAll(): OutgoingMessage[] {
    return [...this.#byPlace.values()].flatMap((held) => held.takeAll())
  }

  status(nowMs: number): IngestionStatus['heldPartitions'] {
    return [...this.#byPlace.values()].map((held) => ({
      topic: held.topic,
      partition: held.partition,
      heldMs: Math.round(nowMs - held.sinceMs),
      messages: held.length + held.sending.length,
      discarded: held.discarded,
      reason: held.reason,
    }))
  }

  #sum(countOf: (held: HeldPartition) => number): number {
    let sum = 0
    for (const held of this.#byPlace.values()) sum += countOf(held)
    return sum
  }
}
