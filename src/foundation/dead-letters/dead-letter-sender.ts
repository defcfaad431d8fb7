import { describeKafkaError } from '../kafka/broker-errors.ts'
import type { KafkaConnection } from '../kafka/client.ts'
import type { TopicNames } from '../kafka/config.ts'
import { partitionOf } from '../kafka/partition.ts'
import { RecordSender } from '../kafka/record-sender.ts'
import { type BackoffPolicy, delayFor, sleep } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Logger } from '../telemetry/log.ts'
import type { FoundDeadLetter } from './dead-letter.ts'

export interface DeadLetterSenderOptions {
  readonly kafka: KafkaConnection
  readonly topics: Pick<TopicNames, 'deadLetters'>
  /** Delays between attempts. */
  readonly backoff: BackoffPolicy
}

export interface DeadLetterSenderPorts {
  readonly clock: Clock
  /** In [0, 1). */
  readonly random: () => number
  readonly log: Logger
}

/**
 * Sends messages that cannot be stored to the dead-letter topic, unchanged, with the reason in
 * headers.
 */
export class DeadLetterSender {
  readonly #options: DeadLetterSenderOptions
  readonly #ports: DeadLetterSenderPorts
  #producer: RecordSender | null = null

  constructor(options: DeadLetterSenderOptions, ports: DeadLetterSenderPorts) {
    this.#options = options
    this.#ports = ports
  }

  /** Resolves once every message is acknowledged. Retries until the signal aborts, then rejects. */
  async send(letters: readonly FoundDeadLetter[], signal: AbortSignal): Promise<void> {
    if (letters.length === 0) return
    const unsent = chunks(letters)
    for (let failures = 1; ; failures++) {
      try {
        for (let chunk = unsent[0]; chunk !== undefined; chunk = unsent[0]) {
          await this.#sendChunk(chunk)
          unsent.shift()
        }
        return
      } catch (error) {
        this.#ports.log.warn(
          { err: error },
          `Dead letters were not acknowledged, retrying: ${describeKafkaError(error)}`,
        )
        const { clock, random } = this.#ports
        await sleep(delayFor(failures, this.#options.backoff, random()), signal, clock)
      }
    }
  }

  async #sendChunk(letters: readonly FoundDeadLetter[]): Promise<void> {
    this.#producer ??= new RecordSender(this.#options.kafka, 'tapeline-consumer-dead-letters', 'lz4')
    const topic = this.#options.topics.deadLetters
    const partitions = (await this.#producer.topics([topic])).get(topic)?.partitions ?? 1
    await this.#producer.send(
      letters.map(({ row, headers }) => ({
        topic,
        key: row.key,
        value: row.payload,
        partition: partitionOf(row.key?.toString() ?? '', partitions),
        timestampMs: row.failedAtMs,
        headers: new Map(headers.map(([name, value]) => [Buffer.from(name), Buffer.from(value)])),
      })),
    )
  }

  async close(): Promise<void> {
    const producer = this.#producer
    this.#producer = null
    await producer?.close()
  }
}

/**
 * A source message is at most 1 MiB, and the dead-letter topic accepts 2 MiB per send and
 * partition.
 */
const SEND_MAX_BYTES = 1 << 20

function chunks(letters: readonly FoundDeadLetter[]): FoundDeadLetter[][] {
  const all: FoundDeadLetter[][] = []
  let bytes = Number.POSITIVE_INFINITY
  for (const letter of letters) {
    const headers = letter.headers.reduce((sum, [, value]) => sum + 3 * value.length, 0)
    const size = (letter.row.payload?.length ?? 0) + (letter.row.key?.length ?? 0) + headers + 500
    if (bytes + size > SEND_MAX_BYTES) {
      all.push([])
      bytes = 0
    }
    all.at(-1)?.push(letter)
    bytes += size
  }
  return all
}
