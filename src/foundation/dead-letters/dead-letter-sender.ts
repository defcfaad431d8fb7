import { describeKafkaError } from '../kafka/broker-errors.ts'
import type { KafkaConnection, TopicNames } from '../kafka/config.ts'
import { partitionOf } from '../kafka/partition.ts'
import { type OutgoingRecord, RecordSender } from '../kafka/record-sender.ts'
import { type BackoffPolicy, retry } from '../runtime/backoff.ts'
import type { ServicePorts } from '../telemetry/service.ts'
import { type DeadLetterRow, headersOf } from './dead-letter.ts'

export interface DeadLetterSenderOptions {
  readonly kafka: KafkaConnection
  readonly topics: Pick<TopicNames, 'deadLetters'>
  readonly backoff: BackoffPolicy
}

/** A source message has at most 1 MiB; the topic accepts 2 MiB per send and partition. */
const SEND_MAX_BYTES = 1 << 20

/** Sends messages that cannot be stored to the dead-letter topic, with the reason in headers. */
export class DeadLetterSender {
  readonly #options: DeadLetterSenderOptions
  readonly #ports: ServicePorts
  #producer: RecordSender | null = null

  constructor(options: DeadLetterSenderOptions, ports: ServicePorts) {
    this.#options = options
    this.#ports = ports
  }

  /** Resolves once every message is acknowledged. Retries until the signal aborts, then rejects. */
  async send(letters: readonly DeadLetterRow[], signal: AbortSignal): Promise<void> {
    const unsent = [...letters]
    const sendAll = async () => {
      while (unsent.length > 0) unsent.splice(0, await this.#sendSome(unsent))
    }
    const warn = (error: unknown) =>
      this.#ports.log.warn(
        { err: error },
        `Dead letters were not acknowledged, retrying: ${describeKafkaError(error)}`,
      )
    await retry(sendAll, warn, this.#options.backoff, this.#ports, signal)
  }

  /** Sends as many as fit into one send. @returns how many */
  async #sendSome(letters: readonly DeadLetterRow[]): Promise<number> {
    this.#producer ??= new RecordSender(this.#options.kafka, 'tapeline-consumer-dead-letters', 'lz4')
    const topic = this.#options.topics.deadLetters
    const partitions = (await this.#producer.topics([topic])).get(topic)?.partitions ?? 1
    const records: OutgoingRecord[] = []
    let bytes = 0
    for (const letter of letters) {
      const { key, payload: value, failedAtMs: timestampMs } = letter
      const headers = new Map<Buffer, Buffer>()
      // The names of the headers, and the record's own bytes.
      bytes += (key?.length ?? 0) + (value?.length ?? 0) + 500
      for (const [name, text] of headersOf(letter)) {
        const header = Buffer.from(text)
        headers.set(Buffer.from(name), header)
        bytes += header.length
      }
      if (records.length > 0 && bytes > SEND_MAX_BYTES) break
      const partition = partitionOf(key?.toString() ?? '', partitions)
      records.push({ topic, partition, key, value, headers, timestampMs })
    }
    await this.#producer.send(records)
    return records.length
  }

  async close(): Promise<void> {
    const producer = this.#producer
    this.#producer = null
    await producer?.close()
  }
}
