import { delayFor, sleep } from '../runtime/backoff.ts'
import { wallMs } from '../runtime/clock.ts'
import { realBrokers } from './broker-connections.ts'
import { kafkaSecurityError } from './broker-errors.ts'
import type { Brokers, ProducerId } from './broker-requests.ts'
import { CODEC } from './codec/codec.ts'
import type { PartitionBatch } from './codec/produce-request.ts'
import type { ProducedRecord } from './codec/record-writer.ts'
import type { KafkaConnection } from './config.ts'
import { keyOf, type TopicPartition } from './partition.ts'
import { ProduceConnection } from './produce-connection.ts'
import { lacksReplicas, RefusedRecords } from './refused-records.ts'
import type { TopicMetadata } from './topic-metadata.ts'

export type Compression = 'lz4' | 'none' | 'gzip' | 'snappy' | 'zstd'

export interface OutgoingRecord extends TopicPartition, ProducedRecord {
  readonly headers: ReadonlyMap<Buffer, Buffer>
}

/** The offset of a partition's first message in a send; −1 if the broker no longer remembers it. */
export interface BaseOffset extends TopicPartition {
  readonly offset: number
}

/** The records of one partition in a send. */
export interface PartitionRecords<Sent extends OutgoingRecord = OutgoingRecord> extends TopicPartition {
  readonly records: readonly Sent[]
}

/** A partition that an attempt left unacknowledged, and why. */
export interface LeftPartition<Sent extends OutgoingRecord = OutgoingRecord> extends PartitionRecords<Sent> {
  readonly problem: unknown
}

export interface SendOptions<Sent extends OutgoingRecord = OutgoingRecord> {
  /** Rejects then, or at once if a right or login is missing; infinite: retry until closed. */
  readonly limitMs: number
  /** Called for each partition once all in-sync replicas have its records. */
  readonly onAcknowledged?: (base: BaseOffset, records: readonly Sent[]) => void
  /** Called with records that their topic does not accept. Without it they are retried. */
  readonly onTooLarge?: (refused: PartitionRecords<Sent>, error: unknown) => void
  /** Called when an attempt left partitions. @param namedAtMs when a broker named leaders; or null */
  readonly onRetry?: (
    error: unknown,
    left: ReadonlyArray<LeftPartition<Sent>>,
    namedAtMs: number | null,
  ) => void
}

/** How long the broker may wait for its replicas. */
const REPLICAS_MS = 5000

/** Consecutive failures after which we ask another broker for the leaders. */
const FAILURES_PER_CONNECTION = 3

const DEFAULT_LIMIT_MS = 30_000

/** Above this sequence number a partition gets a new producer id. */
const SEQUENCES_PER_PRODUCER = 1_000_000_000

const RETRY = { initialMs: 100, maxMs: 2000 }

/** Kafka has the batch already: an attempt that seemed lost had arrived. */
const DUPLICATE_SEQUENCE_NUMBER = 46

/** The records of one partition in a send, until they are acknowledged. */
interface PendingBatch<Sent extends OutgoingRecord> extends PartitionBatch, PartitionRecords<Sent> {
  /** The sequence number of the first record. */
  readonly sequence: number
  readonly producer: ProducerId
}

interface Sending<Sent extends OutgoingRecord> {
  readonly options: SendOptions<Sent>
  /** By {@link keyOf}. */
  readonly pending: Map<string, PendingBatch<Sent>>
  /** Records without sequence numbers, by partition. */
  unwritten: ReadonlyArray<PartitionRecords<Sent>>
  /** Why the last attempt left partitions, by {@link keyOf}, if their leader was the reason. */
  readonly problems: Map<string, unknown>
}

/**
 * An idempotent producer. The client's `Producer` is not used: it assigns the records of a send to
 * leaders once, and after a leader change retries all of them at the leader of the first, without
 * limit (client 2.12; remove this class once a later version reassigns them for each attempt).
 *
 * Sends may overlap if they share no partition. Each attempt asks the leaders that metadata names,
 * one request per broker in parallel, and retries only unacknowledged partitions, byte for byte. A
 * partition has one running request, which keeps its order: an attempt ends when every request was
 * answered or timed out. A broker may still write a request that timed out. The retry has the same
 * producer id and sequence number, so the broker returns the first offset or drops the second copy.
 */
export class RecordSender {
  readonly #kafka: ProduceConnection
  readonly #to: Brokers
  readonly #compression: Compression
  readonly #writer = CODEC.writer()
  /** The next sequence number of a partition, by {@link keyOf}, and its producer id. */
  readonly #sequences = new Map<string, { readonly producer: ProducerId; readonly next: number }>()
  #producer: ProducerId | null = null
  #initialising: Promise<ProducerId> | null = null

  constructor(connection: KafkaConnection, clientId: string, compression: Compression, to = realBrokers()) {
    this.#to = to
    this.#kafka = new ProduceConnection(connection, clientId, to)
    this.#compression = compression
  }

  /** Returns ids and partition counts of topics. @throws TapelineError `KAFKA` if one is missing */
  topics(names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
    return this.#kafka.topics(names)
  }

  /**
   * Resolves once all in-sync replicas have every record, or have refused it as too large.
   * @throws the last error after `limitMs`, or when closed; some partitions may have been written
   */
  async send<Sent extends OutgoingRecord>(
    records: readonly Sent[],
    options: SendOptions<Sent> = { limitMs: DEFAULT_LIMIT_MS },
  ): Promise<void> {
    const startedMs = this.#to.clock.monotonicMs()
    const { limitMs, onRetry } = options
    const unwritten = byPartition(records)
    const sending: Sending<Sent> = { options, pending: new Map(), unwritten, problems: new Map() }
    for (let failures = 0; ; ) {
      this.#kafka.closing.throwIfAborted()
      const { connects } = this.#kafka
      const attemptedAtMs = this.#to.clock.monotonicMs()
      let problem: unknown
      sending.problems.clear()
      try {
        await this.#write(sending)
        problem = await this.#attempt(sending)
        if (sending.pending.size === 0 && sending.unwritten.length === 0) return
        problem ??= new Error(`Kafka has not answered for ${placesOf(sending.pending.values())}`)
      } catch (error) {
        problem = error
        this.#kafka.reconnect(connects)
      }
      this.#kafka.forgetLeaders()
      this.#kafka.closing.throwIfAborted()
      failures++
      const mayBeCutOff = lacksReplicas(problem)
      if (mayBeCutOff || failures % FAILURES_PER_CONNECTION === 0) this.#kafka.reconnect(connects)
      const isFinal = limitMs < Number.POSITIVE_INFINITY && kafkaSecurityError(problem, 'Kafka') !== null
      if (isFinal || this.#to.clock.monotonicMs() - startedMs >= limitMs) {
        // Sequence numbers were assigned to records that may never be written.
        this.#producer = null
        throw problem
      }
      const { namedAtMs } = this.#kafka
      const left = [...sending.pending.values(), ...sending.unwritten].map((one) => ({
        topic: one.topic,
        partition: one.partition,
        records: one.records,
        problem: sending.problems.get(keyOf(one)) ?? problem,
      }))
      onRetry?.(problem, left, namedAtMs >= attemptedAtMs ? namedAtMs : null)
      await sleep(delayFor(failures, RETRY, this.#to.random()), this.#kafka.closing, this.#to.clock)
    }
  }

  /** Aborts the running sends, which reject. */
  close(): Promise<void> {
    return this.#kafka.close(new Error('The producer was closed'))
  }

  /** Numbers and encodes each partition's batch once, so that a retry repeats it exactly. */
  async #write<Sent extends OutgoingRecord>(sending: Sending<Sent>): Promise<void> {
    if (sending.unwritten.length === 0) return
    const producer = await this.#producerId()
    for (const { topic, partition, records } of sending.unwritten) {
      const place = keyOf({ topic, partition })
      const known = this.#sequences.get(place)
      const sequence = known?.producer === producer ? known.next : 0
      const batch = this.#encode(records, sequence, producer)
      sending.pending.set(place, { topic, partition, batch, sequence, producer, records })
      this.#sequences.set(place, { producer, next: sequence + records.length })
      // Sequence numbers end at 2³¹; a new producer id starts at 0.
      if (sequence > SEQUENCES_PER_PRODUCER && this.#producer === producer) this.#producer = null
    }
    sending.unwritten = []
  }

  async #producerId(): Promise<ProducerId> {
    if (this.#producer !== null) return this.#producer
    this.#initialising ??= this.#kafka.initProducerId().finally(() => {
      this.#initialising = null
    })
    this.#producer = await this.#initialising
    return this.#producer
  }

  #encode(all: readonly OutgoingRecord[], sequence: number, producer: ProducerId, isRenewed = false): Buffer {
    const options = { ...producer, compression: this.#compression }
    const timestampMs = wallMs(this.#to.clock)
    return this.#writer.batch(all, sequence, isRenewed ? { ...options, timestampMs } : options)
  }

  /** Sends one request to each leader. @returns why partitions are left; undefined if none is */
  async #attempt<Sent extends OutgoingRecord>(sending: Sending<Sent>): Promise<unknown> {
    const { connects } = this.#kafka
    const pending = [...sending.pending.values()]
    const unknownTopic = await this.#kafka.learnLeaders(new Set(pending.map(({ topic }) => topic)))
    const byLeader = Map.groupBy(pending, ({ topic, partition }) => this.#kafka.leaderOf(topic, partition))
    const attempts = [...byLeader].map(async ([leader, batches]): Promise<unknown> => {
      const note = (problem: unknown) => {
        for (const batch of batches) sending.problems.set(keyOf(batch), problem)
        return problem
      }
      if (leader < 0) return note(unknownTopic ?? new Error(`No leader: ${placesOf(batches)}`))
      return this.#produceTo(leader, batches, sending).catch((error: unknown) => {
        throw note(error)
      })
    })
    const outcomes = await Promise.allSettled(attempts)
    const failed = outcomes.find((outcome) => outcome.status === 'rejected')
    // Drop the failed connection. Acknowledgements of other brokers remain valid.
    if (failed !== undefined) this.#kafka.reconnect(connects)
    return (
      failed?.reason ??
      outcomes.map((one) => (one.status === 'fulfilled' ? one.value : undefined)).find(Boolean)
    )
  }

  /** @returns why partitions are left; undefined if none is */
  async #produceTo<Sent extends OutgoingRecord>(
    leader: number,
    batches: ReadonlyArray<PendingBatch<Sent>>,
    sending: Sending<Sent>,
  ): Promise<unknown> {
    const response = await this.#kafka.produce(leader, REPLICAS_MS, batches)
    let problem: unknown
    for (const { name: topic, partitionResponses } of response.responses) {
      for (const { index: partition, errorCode, errorMessage, baseOffset } of partitionResponses) {
        const batch = sending.pending.get(keyOf({ topic, partition }))
        if (batch === undefined) continue
        if (errorCode === 0 || errorCode === DUPLICATE_SEQUENCE_NUMBER) {
          sending.pending.delete(keyOf(batch))
          const offset = errorCode === 0 ? Number(baseOffset) : -1
          sending.options.onAcknowledged?.({ topic, partition, offset }, batch.records)
        } else {
          const refused = new RefusedRecords(topic, partition, errorCode, errorMessage)
          if (this.#settleRefused(sending, batch, refused)) continue
          sending.problems.set(keyOf(batch), refused)
          problem = refused
        }
      }
    }
    return problem
  }

  /** @returns true if the records are not to be retried */
  #settleRefused<Sent extends OutgoingRecord>(
    sending: Sending<Sent>,
    batch: PendingBatch<Sent>,
    refused: RefusedRecords,
  ): boolean {
    const { records, sequence, producer } = batch
    const place = keyOf(batch)
    if (refused.meaning === 'too large' && sending.options.onTooLarge !== undefined) {
      sending.pending.delete(place)
      // None of them was written, so the next records use their sequence numbers.
      this.#sequences.set(place, { producer, next: sequence })
      sending.options.onTooLarge(batch, refused)
      return true
    }
    if (refused.meaning === 'producer unknown') {
      // The others keep their producer id, because their last attempt may have been written.
      sending.pending.delete(place)
      sending.unwritten = [...sending.unwritten, batch]
      if (this.#producer === producer) this.#producer = null
    }
    // Nothing was written, so the sequence numbers stay. The receipt in the message does not
    // change.
    if (refused.meaning === 'time refused')
      sending.pending.set(place, { ...batch, batch: this.#encode(records, sequence, producer, true) })
    return false
  }
}

function byPartition<Sent extends OutgoingRecord>(records: readonly Sent[]): Array<PartitionRecords<Sent>> {
  const places = new Map<string, Map<number, Sent[]>>()
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
  return [...places].flatMap(([topic, partitions]) =>
    [...partitions].map(([partition, inPartition]) => ({ topic, partition, records: inPartition })),
  )
}

function placesOf(batches: Iterable<PartitionBatch>): string {
  return [...batches].map(({ topic, partition }) => `${topic}/${partition}`).join(', ')
}
