import { protocolErrors } from '@platformatic/kafka'
import { errorName } from './codec/fetch-api.ts'

/** What an answer means for the sender: see {@link MEANINGS}. */
type Meaning = 'too large' | 'time refused' | 'producer unknown' | 'lacks replicas' | 'other'

/** By Kafka's name of the error. */
const MEANINGS: Readonly<Record<string, Meaning>> = {
  // The records exceed `max.message.bytes` of the topic, or a segment. None was written.
  MESSAGE_TOO_LARGE: 'too large',
  RECORD_LIST_TOO_LARGE: 'too large',
  // A time is over an hour ahead of the broker's clock (`message.timestamp.after.max.ms`).
  INVALID_TIMESTAMP: 'time refused',
  // The leader no longer knows this producer, or its last records. A new producer id, with sequence
  // numbers from 0, resolves this. No later leader has the records already, because a leader older
  // than a known one is never asked.
  OUT_OF_ORDER_SEQUENCE_NUMBER: 'producer unknown',
  INVALID_PRODUCER_EPOCH: 'producer unknown',
  INVALID_PRODUCER_ID_MAPPING: 'producer unknown',
  UNKNOWN_PRODUCER_ID: 'producer unknown',
  // The leader cannot reach enough replicas. A broker cut off from the others may say so, too.
  REQUEST_TIMED_OUT: 'lacks replicas',
  NOT_ENOUGH_REPLICAS: 'lacks replicas',
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: 'lacks replicas',
}

/** A broker's answer that it does not take the records of a partition. */
export class RefusedRecords extends Error {
  /** Kafka's name of the error, as in the errors of the client; so is `response`. */
  readonly apiId: string
  readonly response: unknown
  readonly meaning: Meaning
  /** Whether a retry makes sense: Kafka says so, or it renews the time. */
  readonly canRetry: boolean

  constructor(topic: string, partition: number, code: number, message: string | null | undefined) {
    const name = errorName(code)
    const meaning = MEANINGS[name] ?? 'other'
    const hint =
      meaning === 'time refused'
        ? "; the clock of this machine is more than an hour ahead of the broker's"
        : ''
    super(`${topic}/${partition}: ${name}${message ? `, ${message}` : ''}${hint}`)
    const known: Readonly<Record<string, { readonly canRetry: boolean }>> = protocolErrors
    this.apiId = name
    this.response = { responses: [{ name: topic, errorCode: code }] }
    this.meaning = meaning
    this.canRetry = meaning === 'time refused' || known[name]?.canRetry === true
  }
}

/** Whether a leader answered that it cannot reach enough replicas. */
export function lacksReplicas(error: unknown): boolean {
  return error instanceof RefusedRecords && error.meaning === 'lacks replicas'
}

/** Whether Kafka refused the records with an error that is not retryable. */
export function isForGood(error: unknown): boolean {
  return error instanceof RefusedRecords && !error.canRetry
}
