import { protocolErrors } from '@platformatic/kafka'
import { errorName } from './codec/fetch-api.ts'

/**
 * The record's time is more than an hour ahead of the broker's clock
 * (`message.timestamp.after.max.ms`).
 */
const INVALID_TIMESTAMP = 32

/** The records exceed `max.message.bytes` of the topic, or a segment. None was written. */
const TOO_LARGE: ReadonlySet<number> = new Set([
  10, // MESSAGE_TOO_LARGE
  18, // RECORD_LIST_TOO_LARGE
])

/**
 * The leader no longer knows this producer, or its last records. A new producer id, with sequence
 * numbers from 0, resolves this. No later leader has the records already, because a leader older
 * than a known one is never asked.
 */
const PRODUCER_UNKNOWN: ReadonlySet<number> = new Set([
  45, // OUT_OF_ORDER_SEQUENCE_NUMBER
  47, // INVALID_PRODUCER_EPOCH
  49, // INVALID_PRODUCER_ID_MAPPING
  59, // UNKNOWN_PRODUCER_ID
])

/** The leader cannot reach enough replicas. */
const WITHOUT_REPLICAS: ReadonlySet<number> = new Set([
  7, // REQUEST_TIMED_OUT
  19, // NOT_ENOUGH_REPLICAS
  20, // NOT_ENOUGH_REPLICAS_AFTER_APPEND
])

/** A broker's answer that it does not take the records of a partition. */
export class RefusedRecords extends Error {
  /** Kafka's name of the error, as in the errors of the client. */
  readonly apiId: string
  readonly apiCode: number
  readonly response: unknown
  /**
   * Whether a retry makes sense: Kafka says so, or the broker refused the time, which a retry
   * renews.
   */
  readonly canRetry: boolean

  constructor(topic: string, partition: number, code: number, message: string | null | undefined) {
    const known: Readonly<Record<string, { readonly canRetry: boolean }>> = protocolErrors
    const name = errorName(code)
    const clock =
      code === INVALID_TIMESTAMP
        ? "; the clock of this machine is more than an hour ahead of the broker's"
        : ''
    super(`${topic}/${partition}: ${name}${message ? `, ${message}` : ''}${clock}`)
    this.apiId = name
    this.apiCode = code
    this.canRetry = code === INVALID_TIMESTAMP || known[name]?.canRetry === true
    this.response = { responses: [{ name: topic, errorCode: code }] }
  }

  get isTooLarge(): boolean {
    return TOO_LARGE.has(this.apiCode)
  }

  get isTimeRefused(): boolean {
    return this.apiCode === INVALID_TIMESTAMP
  }

  /** Whether the broker does not know the producer, or its last records. */
  get isProducerUnknown(): boolean {
    return PRODUCER_UNKNOWN.has(this.apiCode)
  }

  /** Whether replicas are missing. A broker cut off from the others may say so, too. */
  get isForWantOfReplicas(): boolean {
    return WITHOUT_REPLICAS.has(this.apiCode)
  }
}

/** Whether a leader answered that it cannot reach enough replicas. */
export function lacksReplicas(error: unknown): boolean {
  return error instanceof RefusedRecords && error.isForWantOfReplicas
}

/** Whether Kafka refused the records with an error that is not retryable. */
export function isForGood(error: unknown): boolean {
  return error instanceof RefusedRecords && !error.canRetry
}
