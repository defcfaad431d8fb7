import { describeKafkaError } from '../foundation/kafka/broker-errors.ts'
import { partitionOf } from '../foundation/kafka/partition-map.ts'
import { RecordSender } from '../foundation/kafka/record-sender.ts'
import { delayFor } from '../foundation/runtime/backoff.ts'
import { sleepOn } from '../foundation/runtime/clock.ts'
import type { FoundDeadLetter } from './batch.ts'
import type { ConsumerConfig } from './config.ts'
import type { StartPorts } from './kafka-access.ts'

/**
 * Sends messages that cannot be stored to the dead-letter topic, unchanged, with the reason in
 * headers.
 */
export class DeadLetterProducer {
  readonly #config: ConsumerConfig
  readonly #ports: StartPorts
  #producer: RecordSender | null = null

  constructor(config: ConsumerConfig, ports: StartPorts) {
    this.#config = config
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
        await sleepOn(clock, delayFor(failures, this.#config.backoff, random()), signal)
      }
    }
  }

  async #sendChunk(letters: readonly FoundDeadLetter[]): Promise<void> {
    this.#producer ??= new RecordSender(this.#config.kafka, 'tapeline-consumer-dead-letters', 'lz4')
    const topic = this.#config.topics.deadLetters
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
