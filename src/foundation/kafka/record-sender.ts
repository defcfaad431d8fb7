import { protocolErrorsCodesById } from '@platformatic/kafka'
import { delayFor, sleep } from '../runtime/backoff.ts'
import type { ByteSlice } from '../runtime/byte-slice.ts'
import { kafkaSecurityError } from './broker-errors.ts'
import type { PartitionBatch } from './codec/produce-request.ts'
import { RecordWriter } from './codec/record-writer.ts'
import type { KafkaConnection } from './connection.ts'
import { type BrokerAddress, ProduceConnection, type ProducerId, REQUEST_MS } from './produce-connection.ts'
import type { TopicMetadata } from './topic-metadata.ts'

export type Compression = 'lz4' | 'none' | 'gzip' | 'snappy' | 'zstd'

/** A message to be produced. */
export interface OutgoingRecord {
  readonly topic: string
  readonly partition: number
  readonly key: Buffer | null
  readonly value: Buffer | null
  /** Stands for the value, where it has no buffer of its own. */
  readonly slice?: ByteSlice
  readonly headers: Map<Buffer, Buffer>
  /** Milliseconds since the Unix epoch. */
  readonly timestampMs: number
}

/** The offset of the first message of a partition in a send; −1 when the broker no longer remembers it. */
export interface BaseOffset {
  readonly topic: string
  readonly partition: number
  readonly offset: number
}

export interface SendOptions {
  /** Reject after this time, or at once when a right or a login is missing; infinite: retry until {@link RecordSender.close}. */
  readonly limitMs: number
  /** Called after each attempt that left partitions unacknowledged. */
  readonly onRetry?: (error: unknown) => void
}

/** How long the broker may wait for its replicas. */
const REPLICAS_MS = 5000

/** A slow link gets so many times {@link REQUEST_MS} for a batch, after as many attempts. */
const MAX_PATIENCE = 4

/** Attempts in a row, after which another broker is asked for the leaders. */
const FAILURES_PER_CONNECTION = 3

const DEFAULT_LIMIT_MS = 30_000

/** A partition's sequence numbers end here. */
const SEQUENCES_PER_PRODUCER = 1_000_000_000

const RETRY = { initialMs: 100, maxMs: 2000 }

/** Kafka has the batch already: an attempt that looked lost had arrived. */
const DUPLICATE_SEQUENCE_NUMBER = 46

/** The record's time is more than an hour ahead of the broker's clock (`message.timestamp.after.max.ms`). */
const INVALID_TIMESTAMP = 32

/** The broker does not know this producer any more. A new producer id, with sequence numbers from 0, helps. */
const PRODUCER_UNKNOWN: ReadonlySet<number> = new Set([
  45, // OUT_OF_ORDER_SEQUENCE_NUMBER
  47, // INVALID_PRODUCER_EPOCH
  49, // INVALID_PRODUCER_ID_MAPPING
  59, // UNKNOWN_PRODUCER_ID
])

/** The records of one partition in a send, until they are acknowledged. */
interface PendingBatch extends PartitionBatch {
  /** The sequence number of the first record. */
  readonly sequence: number
  readonly producer: ProducerId
  readonly records: readonly OutgoingRecord[]
}

/**
 * An idempotent producer over the client's connections. The client's own `Producer` is not used, because it assigns the
 * records of a send to leaders once and repeats all of them to the leader of the first, without limit, after leaders
 * have moved apart (client version 2.12; remove this class when a later version assigns them again for each attempt).
 *
 * Callers keep one `send` outstanding. Each attempt asks the leader that metadata names, one request per broker in
 * parallel, and repeats only partitions that were not acknowledged, byte for byte. The order within a partition holds
 * because a partition has one request under way: an attempt ends when every request has been answered or has timed
 * out. A request that timed out may still be written by its broker. Its repetition carries the same producer id and
 * sequence number, so the broker either answers with the offset of the first or drops the second.
 */
export class RecordSender {
  readonly #kafka: ProduceConnection
  readonly #compression: Compression
  readonly #writer = new RecordWriter()
  readonly #closing = new AbortController()
  /** The next sequence number by topic and partition, for the present producer id. */
  readonly #sequences = new Map<string, number>()
  /** Partitions whose broker has just said that it does not know the producer. */
  readonly #unknownTo = new Set<string>()
  /** Partitions whose records a broker has just refused for their time. */
  readonly #aheadOfBroker = new Set<string>()
  #producer: ProducerId | null = null

  /** @param clientId shown in the broker's logs and metrics */
  constructor(connection: KafkaConnection, clientId: string, compression: Compression) {
    this.#kafka = new ProduceConnection(connection, clientId, this.#closing.signal)
    this.#compression = compression
  }

  /** Ids and partition counts of topics. @throws TapelineError `KAFKA` when one is missing */
  async topics(names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
    return this.#kafka.topics(names)
  }

  /**
   * Resolves once all in-sync replicas have every record.
   *
   * @returns the offset of the first record of each partition
   * @throws the last error after `limitMs`, or when the sender was closed; some partitions may have been written by then
   */
  async send(
    records: readonly OutgoingRecord[],
    { limitMs, onRetry }: SendOptions = { limitMs: DEFAULT_LIMIT_MS },
  ): Promise<readonly BaseOffset[]> {
    const startedMs = performance.now()
    const acknowledged: BaseOffset[] = []
    let pending: PendingBatch[] = []
    let unsent: ReadonlyArray<readonly OutgoingRecord[]> = byPartition(records)
    for (let failures = 0; ; ) {
      this.#closing.signal.throwIfAborted()
      let problem: unknown
      try {
        pending = [...pending, ...(await this.#write(unsent))]
        unsent = []
        problem = await this.#attempt(
          pending,
          acknowledged,
          REQUEST_MS * Math.min(MAX_PATIENCE, failures + 1),
        )
        const done = new Set(acknowledged.map(placeOf))
        const left = this.#withCurrentTime(pending.filter((batch) => !done.has(placeOf(batch))))
        if (left.length === 0) return acknowledged
        problem ??= new Error(`Kafka has not answered for ${placesOf(left)}`)
        // The others keep their producer id: whether their last attempt was written is not known.
        unsent = left.filter((one) => this.#unknownTo.has(placeOf(one))).map((one) => one.records)
        pending = left.filter((one) => !this.#unknownTo.has(placeOf(one)))
        if (unsent.length > 0) this.#producer = null
        this.#unknownTo.clear()
      } catch (error) {
        problem = error
        this.#kafka.reconnect()
      }
      this.#kafka.forgetLeaders()
      this.#closing.signal.throwIfAborted()
      failures++
      // A broker that is cut off from the others answers, and knows no new leader.
      if (failures % FAILURES_PER_CONNECTION === 0) this.#kafka.reconnect()
      const isFinal = limitMs < Number.POSITIVE_INFINITY && kafkaSecurityError(problem, 'Kafka') !== null
      if (isFinal || performance.now() - startedMs >= limitMs) {
        // Sequence numbers were given to records that may never be written.
        this.#producer = null
        throw problem
      }
      onRetry?.(problem)
      await sleep(delayFor(failures, RETRY, Math.random()), this.#closing.signal)
    }
  }

  /** Ends a send that is under way, which rejects. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('The producer was closed'))
    await this.#kafka.close()
  }

  /** Gives each partition its next sequence numbers. The batch is bytes from here on, so that a retry repeats it exactly. */
  async #write(places: ReadonlyArray<readonly OutgoingRecord[]>): Promise<PendingBatch[]> {
    if (places.length === 0) return []
    // Sequence numbers end at 2³¹; a new producer id starts at 0.
    if (Math.max(0, ...this.#sequences.values()) > SEQUENCES_PER_PRODUCER) this.#producer = null
    if (this.#producer === null) {
      this.#producer = await this.#kafka.initProducerId()
      this.#sequences.clear()
    }
    const producer = this.#producer
    const batches = places.flatMap((records): PendingBatch[] => {
      const [first] = records
      if (first === undefined) return []
      const { topic, partition } = first
      const sequence = this.#sequences.get(placeOf(first)) ?? 0
      const options = { ...producer, compression: this.#compression }
      const batch = this.#writer.batch(records, sequence, options)
      return [{ topic, partition, batch, sequence, producer, records }]
    })
    for (const batch of batches) this.#sequences.set(placeOf(batch), batch.sequence + batch.records.length)
    return batches
  }

  /**
   * Gives the records that a broker refused for their time the time of now, with the same sequence numbers: nothing of
   * them was written. The receipt is in the message itself, and does not change.
   */
  #withCurrentTime(pending: readonly PendingBatch[]): PendingBatch[] {
    if (this.#aheadOfBroker.size === 0) return [...pending]
    const timestampMs = Date.now()
    const renewed = pending.map((one): PendingBatch => {
      if (!this.#aheadOfBroker.has(placeOf(one))) return one
      const records = one.records.map(({ topic, partition, key, value, slice, headers }): OutgoingRecord => {
        const record = { topic, partition, key, value, headers, timestampMs }
        return slice === undefined ? record : { ...record, slice }
      })
      const options = { ...one.producer, compression: this.#compression }
      return { ...one, records, batch: this.#writer.batch(records, one.sequence, options) }
    })
    this.#aheadOfBroker.clear()
    return renewed
  }

  /** One request to each leader. @returns why partitions are left; undefined when none is */
  async #attempt(
    pending: readonly PendingBatch[],
    acknowledged: BaseOffset[],
    limitMs: number,
  ): Promise<unknown> {
    const unknownTopic = await this.#kafka.learnLeaders(new Set(pending.map(({ topic }) => topic)))
    const byLeader = Map.groupBy(pending, ({ topic, partition }) => this.#kafka.leaderOf(topic, partition))
    const attempts = [...byLeader].map(async ([leader, batches]): Promise<unknown> => {
      const broker = this.#kafka.broker(leader)
      if (broker === undefined) return unknownTopic ?? new Error(`No leader: ${placesOf(batches)}`)
      return this.#produceTo(broker, batches, acknowledged, limitMs)
    })
    const outcomes = await Promise.allSettled(attempts)
    const failed = outcomes.find((outcome) => outcome.status === 'rejected')
    // The connection is not to be trusted any more; what other brokers have acknowledged stands.
    if (failed !== undefined) this.#kafka.reconnect()
    return (
      failed?.reason ??
      outcomes.map((one) => (one.status === 'fulfilled' ? one.value : undefined)).find(Boolean)
    )
  }

  async #produceTo(
    broker: BrokerAddress,
    batches: readonly PendingBatch[],
    acknowledged: BaseOffset[],
    limitMs: number,
  ): Promise<unknown> {
    const response = await this.#kafka.produce(broker, REPLICAS_MS, batches, limitMs)
    let problem: unknown
    for (const { name: topic, partitionResponses } of response.responses) {
      for (const { index: partition, errorCode, errorMessage, baseOffset } of partitionResponses) {
        if (errorCode === 0) acknowledged.push({ topic, partition, offset: Number(baseOffset) })
        else if (errorCode === DUPLICATE_SEQUENCE_NUMBER) acknowledged.push({ topic, partition, offset: -1 })
        else {
          if (PRODUCER_UNKNOWN.has(errorCode)) this.#unknownTo.add(placeOf({ topic, partition }))
          if (errorCode === INVALID_TIMESTAMP) this.#aheadOfBroker.add(placeOf({ topic, partition }))
          problem = refusedPartition(topic, partition, errorCode, errorMessage)
        }
      }
    }
    return problem
  }
}

function byPartition(records: readonly OutgoingRecord[]): OutgoingRecord[][] {
  const places = new Map<string, Map<number, OutgoingRecord[]>>()
  for (const record of records) {
    let inTopic = places.get(record.topic)
    if (inTopic === undefined) {
      inTopic = new Map()
      places.set(record.topic, inTopic)
    }
    const inPartition = inTopic.get(record.partition)
    if (inPartition === undefined) inTopic.set(record.partition, [record])
    else inPartition.push(record)
  }
  return [...places.values()].flatMap((partitions) => [...partitions.values()])
}

function placeOf({ topic, partition }: { readonly topic: string; readonly partition: number }): string {
  return `${topic}:${partition}`
}

function placesOf(batches: readonly PartitionBatch[]): string {
  return batches.map(({ topic, partition }) => `${topic}/${partition}`).join(', ')
}

/** Carries Kafka's name of the error as the client's errors do, for `broker-errors.ts`. */
function refusedPartition(
  topic: string,
  partition: number,
  code: number,
  message: string | null | undefined,
): Error {
  const names: Readonly<Record<string, string>> = protocolErrorsCodesById
  const name = names[code] ?? `error ${code}`
  const clock =
    code === INVALID_TIMESTAMP ? "; the clock of this machine is more than an hour ahead of the broker's" : ''
  const error = new Error(`${topic}/${partition}: ${name}${message ? `, ${message}` : ''}${clock}`)
  return Object.assign(error, {
    apiId: name,
    apiCode: code,
    response: { responses: [{ name: topic, errorCode: code }] },
  })
}
