import { sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { Wake } from '../foundation/runtime/clock.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { BatchSender, type BatchSenderOptions, SEND_MAX_BYTES, type SenderPorts } from './batch-sender.ts'
import type { OutgoingMessage, SendEvents } from './messages/message.ts'
import { MessageQueue } from './messages/message-queue.ts'
import type { Ports } from './ports.ts'

export interface KafkaProducerOptions extends BatchSenderOptions {
  readonly lingerMs: number
}

const CHECK_MS = 200

/** Interval of batches that show whether Kafka takes others while set-aside partitions are full. */
const PROBE_EVERY_MS = 10_000

/** Node truncates a timer to whole milliseconds; one that fires too early would need another. */
const TIMER_MS = 1

/** Sends its queue to Kafka in order, one batch at a time. */
export class KafkaProducer {
  readonly batches: BatchSender
  readonly #options: KafkaProducerOptions
  readonly #clock: Ports['clock']
  readonly queue: MessageQueue
  readonly #wake: Wake
  readonly #giveUp = new AbortController()
  readonly #fences: Array<{ readonly after: number; readonly resolve: () => void }> = []
  #running: Promise<void> | null = null
  #stopping = false
  #passedMessages = 0
  #probedAtMs = 0
  /** Events not acknowledged when it was stopped; null before. */
  #left: { readonly queued: number; readonly inFlight: number } | null = null

  constructor(options: KafkaProducerOptions, ports: SenderPorts, log: Logger) {
    this.#options = options
    this.#clock = ports.clock
    this.#wake = new Wake(ports.clock)
    this.queue = new MessageQueue(options.queueMaxBytes, { wake: this.#wake, batchSize: options.batchSize })
    this.batches = new BatchSender(options, ports, log)
  }

  get queued(): number {
    return this.#left?.queued ?? this.queue.events + this.batches.held.events
  }

  /** Events sent and not acknowledged yet. */
  get inFlight(): number {
    return this.#left?.inFlight ?? this.batches.inFlight
  }

  /** Age of the oldest unacknowledged message; 0 when none waits. */
  oldestUnacknowledgedMs(nowMs: number): number {
    const oldest = this.batches.oldestQueuedAtMs ?? this.queue.oldestQueuedAtMs
    return oldest === null ? 0 : Math.max(0, nowMs - oldest)
  }

  start(events: SendEvents): void {
    this.batches.events = events
    this.#running ??= this.#run().catch((error: unknown) => events.onDefect(error))
  }

  /** Resolves when everything queued so far is acknowledged, discarded or set aside. */
  settled(signal: AbortSignal): Promise<void> {
    const after = this.queue.pushed
    if (after <= this.#passedMessages) return Promise.resolve()
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#fences.push({ after, resolve })
    return unlessAborted(promise, signal)
  }

  /** Resolves when everything queued so far for a topic is acknowledged or discarded. */
  async allAcknowledged(topic: string, signal: AbortSignal): Promise<void> {
    await this.settled(signal)
    const isHeld = () => this.batches.held.status(0).some((held) => held.topic === topic)
    while (isHeld()) await sleep(CHECK_MS, signal, this.#clock)
  }

  /** Delivers the queue and closes. @returns what Kafka had not acknowledged at the abort */
  async stop(signal: AbortSignal): Promise<readonly OutgoingMessage[]> {
    const giveUp = () => {
      this.#giveUp.abort(signal.reason)
      void this.batches.close()
    }
    if (signal.aborted) giveUp()
    signal.addEventListener('abort', giveUp, { once: true })
    this.#stopping = true
    this.#wake.ring()
    await this.#running
    await this.batches.drained()
    signal.removeEventListener('abort', giveUp)
    await this.batches.close()
    this.#left = { queued: this.queued, inFlight: this.inFlight }
    const queued = this.queue.take(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)
    return [...this.batches.takeUnacknowledged(), ...queued]
  }

  async #run(): Promise<void> {
    const { lingerMs, batchSize } = this.#options
    const { signal } = this.#giveUp
    while (!signal.aborted) {
      const oldest = this.queue.oldestQueuedAtMs
      if (oldest === null) {
        if (this.#stopping) return
        await this.#wake.wait()
        continue
      }
      const nowMs = this.#clock.monotonicMs()
      const lingerLeftMs = oldest + lingerMs - nowMs
      if (lingerLeftMs > TIMER_MS / 2 && this.queue.length < batchSize && !this.#stopping) {
        await this.#wake.wait(Math.ceil(lingerLeftMs / TIMER_MS) * TIMER_MS)
        continue
      }
      const isFull = this.batches.isFull(nowMs)
      if (isFull && nowMs - this.#probedAtMs < PROBE_EVERY_MS) {
        // The queue fills and the sockets pause.
        await sleep(CHECK_MS, signal, this.#clock).catch(() => {})
        continue
      }
      const sent = await this.#sendNext()
      if (isFull && sent > 0) this.#probedAtMs = nowMs
    }
  }

  /** @returns how many messages were sent rather than set aside */
  async #sendNext(): Promise<number> {
    const taken = this.queue.take(this.#options.batchSize, SEND_MAX_BYTES)
    const batch = this.batches.setAside(taken)
    this.queue.reserve(this.batches.held.bytes)
    if (batch.length > 0) await this.batches.send(batch)
    if (this.#giveUp.signal.aborted) return batch.length
    this.#passedMessages += taken.length
    while (this.#fences[0] !== undefined && this.#fences[0].after <= this.#passedMessages) {
      this.#fences.shift()?.resolve()
    }
    return batch.length
  }
}
