import { describeKafkaError } from '../../foundation/kafka/broker-errors.ts'
import { keyOf, type TopicPartition } from '../../foundation/kafka/partition.ts'
import { isForGood } from '../../foundation/kafka/refused-records.ts'
import type { IngestionStatus } from '../../foundation/telemetry/status.ts'
import { countEvents, type OutgoingMessage } from './message.ts'
import { MessageQueue } from './message-queue.ts'

/** A set-aside partition. Its messages wait here, in order, so that others do not wait for them. */
export class HeldPartition {
  readonly topic: string
  readonly partition: number
  /** On the monotonic clock. */
  readonly sinceMs: number
  readonly #queue = new MessageQueue(Number.POSITIVE_INFINITY)
  readonly #batchSize: number
  /** Messages in one send; lowered after Kafka found a batch too large. */
  #limit: number
  /** Sent before the queue: Kafka found these messages too large together. */
  #again: readonly OutgoingMessage[] = []
  sending: readonly OutgoingMessage[] = []
  isDraining = false
  /** Whether Kafka refused the messages with an error that is not retryable. */
  isRefused = false
  reason: string
  discarded = 0

  constructor(place: TopicPartition, batchSize: number, reason: string, nowMs: number) {
    this.topic = place.topic
    this.partition = place.partition
    this.sinceMs = nowMs
    this.reason = reason
    this.#batchSize = batchSize
    this.#limit = batchSize
  }

  /** Waiting messages, excluding those being sent. */
  get length(): number {
    return this.#queue.length + this.#again.length
  }

  get events(): number {
    return this.#queue.events + countEvents(this.#again)
  }

  get bytes(): number {
    return this.#queue.bytes
  }

  get oldestQueuedAtMs(): number | null {
    return this.sending[0]?.queuedAtMs ?? this.#again[0]?.queuedAtMs ?? this.#queue.oldestQueuedAtMs
  }

  note(problem: unknown): void {
    this.reason = describeKafkaError(problem)
    this.isRefused = isForGood(problem)
  }

  push(message: OutgoingMessage): void {
    this.#queue.push(message)
  }

  /** Returns the next messages to send; empty when none waits. */
  take(maxBytes: number): readonly OutgoingMessage[] {
    if (this.#again.length === 0) {
      this.#limit = this.#batchSize
      return this.#queue.take(this.#batchSize, maxBytes)
    }
    const taken = this.#again.slice(0, this.#limit)
    this.#again = this.#again.slice(this.#limit)
    return taken
  }

  /** Removes and returns all messages, including those being sent. */
  takeAll(): OutgoingMessage[] {
    const queued = this.#queue.take(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)
    const all = [...this.sending, ...this.#again, ...queued]
    this.sending = []
    this.#again = []
    return all
  }

  /** Splits messages that are too large together, to be sent before everything else. */
  split(messages: readonly OutgoingMessage[]): void {
    this.#limit = Math.max(1, Math.ceil(messages.length / 2))
    this.#again = [...messages, ...this.#again]
  }
}

/** What others may know of the set-aside partitions. */
export type HeldView = Pick<HeldPartitions, 'bytes' | 'events' | 'isAnyRefused' | 'has' | 'status'>

export class HeldPartitions {
  readonly #byPlace = new Map<string, HeldPartition>()

  get size(): number {
    return this.#byPlace.size
  }

  /** Waiting bytes, excluding messages being sent. */
  get bytes(): number {
    return this.#sum(({ bytes }) => bytes)
  }

  /** Whether Kafka permanently refuses a partition. */
  get isAnyRefused(): boolean {
    return this.#sum(({ isRefused }) => Number(isRefused)) > 0
  }

  get events(): number {
    return this.#sum(({ events }) => events)
  }

  get inFlight(): number {
    return this.#sum(({ sending }) => countEvents(sending))
  }

  /** When the oldest message was queued, on the monotonic clock; null when there is none. */
  get oldestQueuedAtMs(): number | null {
    const times = [...this.#byPlace.values()].flatMap(({ oldestQueuedAtMs: atMs }) => atMs ?? [])
    return times.length === 0 ? null : Math.min(...times)
  }

  has(place: TopicPartition): boolean {
    return this.#byPlace.has(keyOf(place))
  }

  get(place: TopicPartition): HeldPartition | undefined {
    return this.#byPlace.size === 0 ? undefined : this.#byPlace.get(keyOf(place))
  }

  add(held: HeldPartition): void {
    this.#byPlace.set(keyOf(held), held)
  }

  delete(place: TopicPartition): void {
    this.#byPlace.delete(keyOf(place))
  }

  /** Removes and returns all messages, including those being sent. */
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
