import { describeKafkaError } from '../foundation/kafka/broker-errors.ts'
import type { KafkaPort, RecordProducer } from '../foundation/kafka/kafka-port.ts'
import type { BaseOffset, Compression } from '../foundation/kafka/record-sender.ts'
import { type BackoffPolicy, delayFor } from '../foundation/runtime/backoff.ts'
import { sleepOn } from '../foundation/runtime/clock.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import { Wake } from '../foundation/runtime/wake.ts'
import { LatencyWindow } from '../foundation/telemetry/latency.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { LatencySummary } from '../foundation/telemetry/status.ts'
import type { MessageQueue } from './messages/message-queue.ts'
import type { OutgoingMessage } from './messages/outgoing-message.ts'
import type { Ports } from './ports.ts'

export interface KafkaProducerOptions {
  readonly compression: Compression
  readonly lingerMs: number
  /** Messages in one send. */
  readonly batchSize: number
  readonly backoff: BackoffPolicy
}

/** How often the same reason is logged again. */
const REPEAT_LOG_MS = 60_000

/** Brokers take 1 MiB a partition and send by default, whatever it was compressed to. */
const SEND_MAX_BYTES = 900_000

/**
 * A send was acknowledged. `nextOffsets`: of each partition in it, the offset behind its last message. The queue
 * may have room again.
 */
export type OnAcknowledged = (
  messages: readonly OutgoingMessage[],
  nextOffsets: ReadonlyArray<{ readonly topic: string; readonly partition: number; readonly offset: number }>,
) => void

/**
 * Empties the queue into Kafka, one send at a time, in order. The sender repeats a send until it is acknowledged. If it
 * rejects all the same, a new producer takes over: Kafka may then hold a message twice, the tables may not.
 */
export class KafkaProducer {
  readonly #options: KafkaProducerOptions
  readonly #ports: Pick<Ports, 'clock' | 'random'> & { readonly kafka: Pick<KafkaPort, 'producer'> }
  readonly #queue: MessageQueue
  readonly #onAcknowledged: OnAcknowledged
  readonly #log: Logger
  readonly #wake: Wake
  readonly #giveUp = new AbortController()
  #producer: RecordProducer
  #running: Promise<void> | null = null
  #draining = false
  #closing: Promise<void> | null = null
  #problem: { readonly reason: string; readonly loggedAtMs: number } | null = null
  #inFlight: readonly OutgoingMessage[] = []
  #acknowledgedMessages = 0
  readonly #fences: Array<{ readonly after: number; readonly resolve: () => void }> = []
  readonly #sendTimes = new LatencyWindow()
  /** Events that Kafka has acknowledged. */
  acknowledged = 0
  /** Batches that Kafka has acknowledged. */
  sends = 0
  /** Attempts to send a batch that failed and were repeated. */
  failures = 0

  constructor(
    options: KafkaProducerOptions,
    ports: Pick<Ports, 'clock' | 'random'> & { readonly kafka: Pick<KafkaPort, 'producer'> },
    queue: MessageQueue,
    onAcknowledged: OnAcknowledged,
    log: Logger,
  ) {
    this.#options = options
    this.#ports = ports
    this.#wake = new Wake(ports.clock)
    this.#queue = queue
    this.#onAcknowledged = onAcknowledged
    this.#log = log
    this.#producer = this.#create()
  }

  /** Events sent and not acknowledged yet. */
  get inFlight(): number {
    return this.#inFlight.reduce((count, message) => count + (message.mark !== null ? 1 : 0), 0)
  }

  /** Why the batch under way is not acknowledged yet; null when nothing has failed since the last acknowledgement. */
  get problem(): string | null {
    return this.#problem?.reason ?? null
  }

  /** How long the oldest message has waited for its acknowledgement; 0 when none waits. */
  oldestUnacknowledgedMs(nowMs: number): number {
    const oldest = this.#inFlight[0]?.queuedAtMs ?? this.#queue.oldestQueuedAtMs
    return oldest === null ? 0 : Math.max(0, nowMs - oldest)
  }

  /** From sending a batch to its acknowledgement, over the last minute. */
  sendTimes(nowMs: number): LatencySummary {
    return this.#sendTimes.summary(nowMs)
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** To be called after a message was queued. */
  notice(): void {
    const { length } = this.#queue
    // In between the linger runs; a wake for each message would cost more than the message.
    if (length === 1 || length === this.#options.batchSize) this.#wake.ring()
  }

  /** Resolves when everything queued so far is acknowledged; rejects with the signal's reason when it aborts before. */
  allAcknowledged(signal: AbortSignal): Promise<void> {
    const after = this.#queue.pushed
    if (after <= this.#acknowledgedMessages) return Promise.resolve()
    if (signal.aborted) return Promise.reject(signal.reason)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    this.#fences.push({
      after,
      resolve: () => {
        signal.removeEventListener('abort', onAbort)
        resolve()
      },
    })
    return promise
  }

  /**
   * Delivers what is queued and closes.
   *
   * @returns how many messages were not acknowledged before the signal aborted
   */
  async stop(signal: AbortSignal): Promise<number> {
    const giveUp = () => {
      this.#giveUp.abort(signal.reason)
      // Ends the send that waits for a broker.
      this.#closing = this.#close(this.#producer)
    }
    if (signal.aborted) giveUp()
    signal.addEventListener('abort', giveUp, { once: true })
    this.#draining = true
    this.#wake.ring()
    await this.#running
    signal.removeEventListener('abort', giveUp)
    this.#closing ??= this.#close(this.#producer)
    await this.#closing
    return this.#queue.length + this.#inFlight.length
  }

  async #run(): Promise<void> {
    const { lingerMs, batchSize } = this.#options
    for (;;) {
      const oldest = this.#queue.oldestQueuedAtMs
      if (oldest === null) {
        if (this.#draining) return
        await this.#wake.wait()
        continue
      }
      const lingerLeftMs = oldest + lingerMs - this.#ports.clock.monotonicMs()
      if (lingerLeftMs > 0 && this.#queue.length < batchSize && !this.#draining) {
        await this.#wake.wait(lingerLeftMs)
        continue
      }
      this.#inFlight = this.#queue.take(batchSize, SEND_MAX_BYTES)
      const batch = this.#inFlight
      const nextOffsets = await this.#deliver(batch)
      if (nextOffsets === null) return
      this.acknowledged += this.inFlight
      this.#acknowledgedMessages += batch.length
      this.#inFlight = []
      this.#onAcknowledged(batch, nextOffsets)
      this.#releaseFences()
    }
  }

  /** The offsets behind them once Kafka has acknowledged all of them; null when the stop gave up first. */
  async #deliver(batch: readonly OutgoingMessage[]): Promise<Parameters<OnAcknowledged>[1] | null> {
    const { signal } = this.#giveUp
    const { clock } = this.#ports
    const sentAtMs = clock.monotonicMs()
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        const offsets = await this.#producer.send(batch, {
          limitMs: Number.POSITIVE_INFINITY,
          onRetry: (error) => this.#noteRetry(error, clock.monotonicMs() - sentAtMs),
        })
        this.#noteAcknowledged()
        this.sends++
        const nowMs = clock.monotonicMs()
        this.#sendTimes.record(nowMs - sentAtMs, nowMs)
        return nextOffsets(batch, offsets)
      } catch (error) {
        if (signal.aborted) return null
        this.#noteRetry(error, clock.monotonicMs() - sentAtMs)
        const waitMs = delayFor(failures, this.#options.backoff, this.#ports.random())
        await sleepOn(clock, waitMs, signal).catch(() => {})
        await this.#renew()
      }
    }
    return null
  }

  /** Logs a reason once, and again after {@link REPEAT_LOG_MS}. */
  #noteRetry(error: unknown, waitedMs: number): void {
    this.failures++
    const reason = describeKafkaError(error)
    const nowMs = this.#ports.clock.monotonicMs()
    if (this.#problem?.reason === reason && nowMs - this.#problem.loggedAtMs < REPEAT_LOG_MS) return
    this.#problem = { reason, loggedAtMs: nowMs }
    this.#log.warn(
      { err: error, waitedMs: Math.round(waitedMs) },
      `Kafka did not acknowledge a batch, retrying: ${reason}`,
    )
  }

  #noteAcknowledged(): void {
    if (this.#problem === null) return
    this.#problem = null
    this.#log.info('Kafka acknowledges again')
  }

  #releaseFences(): void {
    while (this.#fences[0] !== undefined && this.#fences[0].after <= this.#acknowledgedMessages) {
      this.#fences.shift()?.resolve()
    }
  }

  async #renew(): Promise<void> {
    const old = this.#producer
    this.#producer = this.#create()
    await this.#close(old)
  }

  #create(): RecordProducer {
    return this.#ports.kafka.producer('tapeline-ingestion', this.#options.compression)
  }

  async #close(producer: RecordProducer): Promise<void> {
    try {
      await producer.close()
    } catch (error) {
      this.#log.debug({ err: error }, `Closing a producer failed: ${describeError(error)}`)
    }
  }
}

/** Kafka tells the offset of the first message of each partition in a send. */
function nextOffsets(
  batch: readonly OutgoingMessage[],
  baseOffsets: readonly BaseOffset[],
): Parameters<OnAcknowledged>[1] {
  return baseOffsets.flatMap(({ topic, partition, offset }) => {
    // A batch that the broker had already, but no longer remembers where.
    if (offset < 0) return []
    const count = batch.filter((message) => message.topic === topic && message.partition === partition).length
    return [{ topic, partition, offset: offset + count }]
  })
}
