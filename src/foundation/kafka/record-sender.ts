import { Base, initProducerIdV5, type produceV11, protocolErrorsCodesById } from '@platformatic/kafka'
import { delayFor, sleep } from '../runtime/backoff.ts'
import type { ByteSlice } from '../runtime/byte-slice.ts'
import { TapelineError } from '../runtime/errors.ts'
import { kafkaSecurityError } from './broker-errors.ts'
import { answersWithin, clientOptions } from './client.ts'
import { type PartitionBatch, PRODUCE_APIS, type ProduceApi } from './codec/produce-request.ts'
import { RecordWriter } from './codec/record-writer.ts'
import type { KafkaConnection } from './connection.ts'
import { type ClusterLayout, clusterLayout, type TopicMetadata } from './topic-metadata.ts'

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

/** Longer than {@link REPLICAS_MS}: a broker that has not answered by then hangs. */
const REQUEST_MS = 8000

const CLOSE_MS = 1000

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
  readonly records: readonly OutgoingRecord[]
}

interface ProducerId {
  readonly producerId: bigint
  readonly producerEpoch: number
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
  readonly #connection: KafkaConnection
  readonly #clientId: string
  readonly #compression: Compression
  readonly #writer = new RecordWriter()
  readonly #closing = new AbortController()
  /** The next sequence number by topic and partition, for the present producer id. */
  readonly #sequences = new Map<string, number>()
  /** Every topic that was ever sent to: their leaders are asked for together. */
  readonly #topics = new Set<string>()
  /** Partitions whose records a broker has just refused for their time. */
  readonly #aheadOfBroker = new Set<string>()
  #client: Base
  #clients = 0
  #cluster: ClusterLayout | null = null
  #producer: ProducerId | null = null
  #produce: ProduceApi | null = null

  /** @param clientId shown in the broker's logs and metrics */
  constructor(connection: KafkaConnection, clientId: string, compression: Compression) {
    this.#connection = connection
    this.#clientId = clientId
    this.#compression = compression
    this.#client = this.#createClient()
  }

  /** Ids and partition counts of topics. @throws TapelineError `KAFKA` when one is missing */
  async topics(names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
    return (await this.#bounded(clusterLayout(this.#client, names))).topics
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
    let pending: PendingBatch[] | null = null
    let unsent: ReadonlyArray<readonly OutgoingRecord[]> = byPartition(records)
    for (let failures = 0; ; ) {
      this.#closing.signal.throwIfAborted()
      let problem: unknown
      try {
        pending ??= await this.#write(unsent)
        problem = await this.#attempt(pending, acknowledged)
        const done = new Set(acknowledged.map(placeOf))
        pending = pending.filter((batch) => !done.has(placeOf(batch)))
        if (pending.length === 0) return acknowledged
        pending = this.#withCurrentTime(pending)
        if (this.#producer === null) {
          unsent = pending.map((batch) => batch.records)
          pending = null
        }
      } catch (error) {
        problem = error
        this.#reconnect()
      }
      this.#cluster = null
      this.#closing.signal.throwIfAborted()
      failures++
      const isFinal = limitMs < Number.POSITIVE_INFINITY && kafkaSecurityError(problem, 'Kafka') !== null
      if (isFinal || performance.now() - startedMs >= limitMs) throw problem
      onRetry?.(problem)
      await sleep(delayFor(failures, RETRY, Math.random()), this.#closing.signal)
    }
  }

  /** Ends a send that is under way, which rejects. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('The producer was closed'))
    await closeClient(this.#client)
  }

  /** Gives each partition its next sequence numbers. The batch is bytes from here on, so that a retry repeats it exactly. */
  async #write(places: ReadonlyArray<readonly OutgoingRecord[]>): Promise<PendingBatch[]> {
    // Sequence numbers end at 2³¹; a new producer id starts at 0.
    if (Math.max(0, ...this.#sequences.values()) > SEQUENCES_PER_PRODUCER) this.#producer = null
    this.#producer ??= await this.#initProducerId()
    const { producerId, producerEpoch } = this.#producer
    return places.flatMap((records) => {
      const [first] = records
      if (first === undefined) return []
      const { topic, partition } = first
      const place = placeOf(first)
      const sequence = this.#sequences.get(place) ?? 0
      const options = { producerId, producerEpoch, compression: this.#compression }
      const batch = this.#writer.batch(records, sequence, options)
      this.#sequences.set(place, sequence + records.length)
      return [{ topic, partition, batch, sequence, records }]
    })
  }

  /**
   * Gives the records that a broker refused for their time the time of now, with the same sequence numbers: nothing of
   * them was written. The receipt is in the message itself, and does not change.
   */
  #withCurrentTime(pending: readonly PendingBatch[]): PendingBatch[] {
    if (this.#aheadOfBroker.size === 0 || this.#producer === null) return [...pending]
    const options = { ...this.#producer, compression: this.#compression }
    const timestampMs = Date.now()
    const renewed = pending.map((one): PendingBatch => {
      if (!this.#aheadOfBroker.has(placeOf(one))) return one
      const records = one.records.map(({ topic, partition, key, value, slice, headers }): OutgoingRecord => {
        const record = { topic, partition, key, value, headers, timestampMs }
        return slice === undefined ? record : { ...record, slice }
      })
      return { ...one, records, batch: this.#writer.batch(records, one.sequence, options) }
    })
    this.#aheadOfBroker.clear()
    return renewed
  }

  /** One request to each leader. @returns why partitions are left; undefined when none is */
  async #attempt(pending: readonly PendingBatch[], acknowledged: BaseOffset[]): Promise<unknown> {
    for (const { topic } of pending) {
      if (this.#topics.has(topic)) continue
      this.#topics.add(topic)
      this.#cluster = null
    }
    this.#cluster ??= await this.#bounded(clusterLayout(this.#client, [...this.#topics]))
    const { topics, brokers } = this.#cluster
    const byLeader = Map.groupBy(
      pending,
      ({ topic, partition }) => topics.get(topic)?.leaders[partition] ?? -1,
    )
    const attempts = [...byLeader].map(async ([leader, batches]): Promise<unknown> => {
      const broker = brokers.get(leader)
      if (broker === undefined) return new Error(`${placesOf(batches)} has no leader`)
      return this.#produceTo(broker, batches, acknowledged)
    })
    const outcomes = await Promise.allSettled(attempts)
    const failed = outcomes.find((outcome) => outcome.status === 'rejected')
    // The connection is not to be trusted any more; what other brokers have acknowledged stands.
    if (failed !== undefined) this.#reconnect()
    return (
      failed?.reason ??
      outcomes.map((one) => (one.status === 'fulfilled' ? one.value : undefined)).find(Boolean)
    )
  }

  async #produceTo(
    broker: { readonly host: string; readonly port: number },
    batches: readonly PendingBatch[],
    acknowledged: BaseOffset[],
  ): Promise<unknown> {
    const connection = await this.#bounded(this.#client.connections.get(broker))
    this.#produce ??= await this.#produceApi()
    const response = await this.#bounded(this.#produce.async(connection, REPLICAS_MS, batches)).catch(
      (error: unknown) => {
        // The client makes an error of an answer in which one partition is refused.
        const answer = answersWithin(error).findLast(isProduceResponse)
        if (answer === undefined) throw error
        return answer
      },
    )
    if (typeof response === 'boolean') throw new Error('The broker was asked for no answer')
    let problem: unknown
    for (const { name: topic, partitionResponses } of response.responses) {
      for (const { index: partition, errorCode, errorMessage, baseOffset } of partitionResponses) {
        if (errorCode === 0) acknowledged.push({ topic, partition, offset: Number(baseOffset) })
        else if (errorCode === DUPLICATE_SEQUENCE_NUMBER) acknowledged.push({ topic, partition, offset: -1 })
        else {
          if (PRODUCER_UNKNOWN.has(errorCode)) this.#producer = null
          if (errorCode === INVALID_TIMESTAMP) this.#aheadOfBroker.add(placeOf({ topic, partition }))
          problem = refusedPartition(topic, partition, errorCode, errorMessage)
        }
      }
    }
    return problem
  }

  async #produceApi(): Promise<ProduceApi> {
    const range = (await this.#bounded(this.#client.listApis())).find(({ name }) => name === 'Produce')
    const api = PRODUCE_APIS.find(
      ({ version }) => range !== undefined && version >= range.minVersion && version <= range.maxVersion,
    )
    if (api === undefined) {
      throw new TapelineError(
        'KAFKA',
        `These brokers take Produce in versions ${range?.minVersion} to ${range?.maxVersion}; 9 to 11 are known here`,
        { fix: 'Use Kafka 2.4 or later.' },
      )
    }
    return api
  }

  async #initProducerId(): Promise<ProducerId> {
    const { brokers } = await this.#bounded(clusterLayout(this.#client, []))
    const [broker] = [...brokers.values()].sort(() => Math.random() - 0.5)
    if (broker === undefined) throw new Error('No broker is known')
    const connection = await this.#bounded(this.#client.connections.get(broker))
    this.#sequences.clear()
    return this.#bounded(initProducerIdV5.api.async(connection, null, 0))
  }

  /** Begins with another broker than the last time, which may hang. */
  #createClient(): Base {
    const { brokers } = this.#connection
    const first = this.#clients++ % Math.max(1, brokers.length)
    const rotated = [...brokers.slice(first), ...brokers.slice(0, first)]
    return new Base({
      ...clientOptions({ ...this.#connection, brokers: rotated }, this.#clientId),
      timeout: REQUEST_MS,
      // An attempt is repeated here; the client would keep the error of each.
      retries: 0,
    })
  }

  #reconnect(): void {
    if (this.#closing.signal.aborted) return
    void closeClient(this.#client)
    this.#client = this.#createClient()
  }

  /** The promise's outcome, or a rejection once a broker has had its time. */
  async #bounded<Result>(promise: Promise<Result>): Promise<Result> {
    const limit = Promise.withResolvers<never>()
    const timer = setTimeout(
      () => limit.reject(new Error(`Kafka has not answered within ${REQUEST_MS / 1000} s`)),
      REQUEST_MS,
    )
    try {
      return await Promise.race([promise, limit.promise])
    } finally {
      clearTimeout(timer)
    }
  }
}

/** A connection that is being torn down may never say that it is closed. */
async function closeClient(client: Base): Promise<void> {
  // What a connection says while it ends is of no use to anybody.
  await Promise.race([client.close().catch(() => {}), sleep(CLOSE_MS)])
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

function isProduceResponse(value: unknown): value is produceV11.ProduceResponse {
  return typeof value === 'object' && value !== null && 'responses' in value
}
