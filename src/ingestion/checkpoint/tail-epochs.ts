import type { KafkaPort, RecordFetcher } from '../../foundation/kafka/kafka-port.ts'
import { deleteTopic, keyOf, type TopicPartition } from '../../foundation/kafka/partition.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'

/** The position after an acknowledged message. */
export interface Tail extends TopicPartition {
  readonly offset: number
}

const LIMITS = { maxWaitMs: 0, minBytes: 1, maxBytes: 1 << 20 }

/** A checkpoint without leader epochs is better than a late one. */
const LIMIT_MS = 2000

/**
 * Requests the leader epochs of the last acknowledged messages: a producer does not receive them,
 * and the epochs of metadata may be newer or older than the message.
 */
export class TailEpochs {
  readonly #fetcher: RecordFetcher
  readonly #clock: Clock
  readonly #log: Logger
  readonly #known = new Map<string, { readonly offset: number; readonly leaderEpoch: number }>()
  #connected: Promise<unknown> | null = null
  #asking: Promise<void> | null = null

  constructor(kafka: Pick<KafkaPort, 'fetcher'>, topics: readonly string[], clock: Clock, log: Logger) {
    this.#fetcher = kafka.fetcher('tapeline-ingestion-tails', topics)
    this.#clock = clock
    this.#log = log
  }

  /** Learns what it can within two seconds. Never rejects. */
  async learn(tails: readonly Tail[]): Promise<void> {
    this.#asking ??= this.#learnAll(tails).finally(() => {
      this.#asking = null
    })
    const limit = Promise.withResolvers<void>()
    const cancel = this.#clock.schedule(LIMIT_MS, limit.resolve)
    await Promise.race([this.#asking, limit.promise])
    cancel()
  }

  /** Forgets a topic that was deleted and recreated: its epochs begin at 0. */
  recreated(topic: string): void {
    deleteTopic(this.#known, topic)
    this.#connected = null
  }

  /** Returns the leader epoch; −1 if unknown. */
  leaderEpoch(tail: Tail): number {
    const known = this.#known.get(keyOf(tail))
    return known?.offset === tail.offset ? known.leaderEpoch : -1
  }

  async close(): Promise<void> {
    await this.#fetcher.close()
  }

  async #learnAll(tails: readonly Tail[]): Promise<void> {
    try {
      this.#connected ??= this.#fetcher.connect()
      await this.#connected
    } catch (error) {
      this.#connected = null
      this.#log.debug({ err: error }, `Requesting leader epochs failed: ${describeError(error)}`)
      return
    }
    await Promise.all(tails.map((tail) => this.#learn(tail)))
  }

  async #learn(tail: Tail): Promise<void> {
    const { topic, partition, offset } = tail
    if (offset === 0 || this.leaderEpoch(tail) >= 0) return
    try {
      const { messages } = await this.#fetcher.read({ topic, partition, offset: offset - 1 }, LIMITS)
      const last = messages.find((message) => message.offset === offset - 1)
      if (last !== undefined) this.#known.set(keyOf(tail), { offset, leaderEpoch: last.leaderEpoch })
    } catch (error) {
      // The topic may have been recreated.
      this.#connected = null
      this.#log.debug({ err: error, topic, partition }, 'Requesting a leader epoch failed')
    }
  }
}
