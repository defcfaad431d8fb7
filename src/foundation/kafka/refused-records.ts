import { protocolErrors, protocolErrorsCodesById } from '@platformatic/kafka'

/** The record's time is more than an hour ahead of the broker's clock (`message.timestamp.after.max.ms`). */
const INVALID_TIMESTAMP = 32

/** The records are larger than `max.message.bytes` of the topic, or than a segment. Nothing of them was written. */
const TOO_LARGE: ReadonlySet<number> = new Set([
  10, // MESSAGE_TOO_LARGE
  18, // RECORD_LIST_TOO_LARGE
])

/**
 * The leader does not know this producer any more, or not its last records. A new producer id, with sequence numbers from 0,
 * helps. No later leader has the records already: a leader older than one that was known is never asked.
 */
const PRODUCER_UNKNOWN: ReadonlySet<number> = new Set([
  45, // OUT_OF_ORDER_SEQUENCE_NUMBER
  47, // INVALID_PRODUCER_EPOCH
  49, // INVALID_PRODUCER_ID_MAPPING
  59, // UNKNOWN_PRODUCER_ID
])

/** The leader does not reach enough replicas. */
const WITHOUT_REPLICAS: ReadonlySet<number> = new Set([
  7, // REQUEST_TIMED_OUT
  19, // NOT_ENOUGH_REPLICAS
  20, // NOT_ENOUGH_REPLICAS_AFTER_APPEND
])

/** A broker answered that it does not take the records of a partition. */
export class RefusedRecords extends Error {
  /** Kafka's name of the error, as the errors of the client carry it. */
  readonly apiId: string
  readonly apiCode: number
  readonly response: unknown
  /** Kafka asks to repeat them; so is a time that the broker refuses, since repeated records have a new one. */
  readonly canRetry: boolean

  constructor(topic: string, partition: number, code: number, message: string | null | undefined) {
    const known: Readonly<Record<string, { readonly canRetry: boolean }>> = protocolErrors
    const names: Readonly<Record<string, string>> = protocolErrorsCodesById
    const name = names[code] ?? `error ${code}`
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

  /** The broker says that it does not know the producer, or not what it has written last. */
  get isProducerUnknown(): boolean {
    return PRODUCER_UNKNOWN.has(this.apiCode)
  }

  /** A broker that is cut off from the others may answer so, too. */
  get isForWantOfReplicas(): boolean {
    return WITHOUT_REPLICAS.has(this.apiCode)
  }
}

/** A leader answered that it does not reach enough replicas. */
export function lacksReplicas(error: unknown): boolean {
  return error instanceof RefusedRecords && error.isForWantOfReplicas
}

/** Kafka answered that it does not take the records, and does not ask to repeat them. */
export function isForGood(error: unknown): boolean {
  return error instanceof RefusedRecords && !error.canRetry
}
