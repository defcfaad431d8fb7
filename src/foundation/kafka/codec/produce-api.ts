import {
  type API,
  type Callback,
  createAPI,
  kGetApi,
  type MessageRecord,
  NumericMap,
  ProduceAcks,
  Producer,
  produceV9,
  produceV10,
  produceV11,
  Writer,
} from '@platformatic/kafka'
import { TapelineError } from '../../runtime/errors.ts'
import { PartitionRecords, PartitionSequences } from './partition-records.ts'
import { type BatchOptions, type ProducedRecord, RecordWriter } from './record-writer.ts'

type ProduceApi = API<unknown[], boolean | produceV11.ProduceResponse>

/** Kafka's number of the request. */
const PRODUCE = 0

/** Those whose requests are alike: all lengths compact. A broker before Kafka 2.4 has none. */
const VERSIONS = [produceV9, produceV10, produceV11]

/** A request is written in one go, so that one writer does for all producers. */
const writer = new RecordWriter()

/** The client with our own writer of records: see {@link RecordWriter}. All else is the client's. */
export class SendingProducer extends Producer<
  Buffer | null,
  Buffer | null | PartitionRecords,
  Buffer,
  Buffer
> {
  readonly #sequences = new PartitionSequences()
  readonly #own = new Map<number, ProduceApi>(
    VERSIONS.map(({ api, parseResponse }) => [
      api.version,
      createAPI(
        PRODUCE,
        api.version,
        (acks: number, timeout: number, messages: MessageRecord[], options: BatchOptions) =>
          createRequest(acks, timeout, messages, options, this.#sequences),
        parseResponse,
      ),
    ]),
  )

  // The base is generic, as if its caller could choose the answer's type; the name decides it.
  override [kGetApi]<Arguments extends unknown[], Answer>(
    name: string,
    callback: Callback<API<Arguments, Answer>>,
  ): void
  override [kGetApi](name: string, callback: Callback<ProduceApi>): void {
    super[kGetApi]<unknown[], boolean | produceV11.ProduceResponse>(name, (error, api) => {
      if (error !== null || api === undefined) callback(error)
      else if (name !== 'Produce') callback(null, api)
      else {
        const own = this.#own.get(api.version)
        if (own === undefined) callback(tooOld(api.version))
        else callback(null, own)
      }
    })
  }
}

/**
 * Writes a request to Produce, versions 9 to 11, byte for byte as the client does. What Tapeline has no need of is left
 * to it: transactions, and gzip, which it does beside the main thread.
 *
 * @see https://kafka.apache.org/protocol#The_Messages_Produce
 */
export function createRequest(
  acks: number,
  timeout: number,
  messages: MessageRecord[],
  options: BatchOptions = {},
  sequences = new PartitionSequences(),
): Writer | Promise<Writer> {
  const carried = carriedBy(messages)
  if (carried !== null) return createCarriedRequest(acks, timeout, carried, options, sequences)
  if (options.compression === 'gzip') return produceV11.createRequestAsync(acks, timeout, messages, options)
  if (options.transactionalId) return produceV11.createRequest(acks, timeout, messages, options)
  const now = BigInt(Date.now())
  for (const message of messages) {
    // Kept in the message: a request that is repeated must be the same.
    message.timestamp ??= now
    message.partition ??= 0
  }
  const request = Writer.create()
    .appendString(null)
    .appendInt16(acks)
    .appendInt32(timeout)
    .appendArray([...Map.groupBy(messages, (one) => one.topic)], (w, [topic, inTopic]) => {
      const partitions = [...Map.groupBy(inTopic, (one) => one.partition ?? 0)].sort(([a], [b]) => a - b)
      w.appendString(topic).appendArray(partitions, (part, [partition, records]) => {
        const firstSequence = options.sequences?.getWithDefault(`${topic}:${partition}`, 0) ?? 0
        const batch = writer.batch(records, firstSequence, options)
        part
          .appendInt32(partition)
          .appendUnsignedVarInt(batch.length + 1)
          .append(batch)
      })
    })
    .appendTaggedFields()
  if (acks === ProduceAcks.NO_RESPONSE) request.context.noResponse = true
  return request
}

/** Another request would take a partition's records for the value of a message. */
function tooOld(version: number): TapelineError {
  return new TapelineError(
    'KAFKA',
    `These brokers take Produce in version ${version}; 9 to 11 are known here`,
    {
      fix: 'Use Kafka 2.4 or later.',
    },
  )
}

/** A message that stands for all records of a partition. */
interface Carrier {
  readonly topic: string
  readonly partition: number
  readonly carried: PartitionRecords
}

/** @returns null where messages are what they seem */
function carriedBy(messages: readonly MessageRecord[]): Carrier[] | null {
  const carriers: Carrier[] = []
  for (const { topic, partition = 0, value } of messages) {
    // To the client a value is what its caller takes it for.
    const carried: unknown = value
    if (!(carried instanceof PartitionRecords)) return null
    carriers.push({ topic, partition, carried })
  }
  return carriers
}

function createCarriedRequest(
  acks: number,
  timeout: number,
  carriers: readonly Carrier[],
  options: BatchOptions,
  sequences: PartitionSequences,
): Writer | Promise<Writer> {
  const firstOf = ({ topic, partition, carried }: Carrier) =>
    sequences.first(`${topic}:${partition}`, carried.records.length, options)
  if (options.compression === 'gzip' || options.transactionalId) {
    const own = new NumericMap(carriers.map((one) => [`${one.topic}:${one.partition}`, firstOf(one)]))
    const expanded = carriers.flatMap(({ topic, partition, carried }) =>
      carried.records.map((record) => asMessage(topic, partition, record)),
    )
    return createRequest(acks, timeout, expanded, { ...options, sequences: own })
  }
  return Writer.create()
    .appendString(null)
    .appendInt16(acks)
    .appendInt32(timeout)
    .appendArray([...Map.groupBy(carriers, ({ topic }) => topic)], (w, [topic, inTopic]) => {
      const partitions = [...inTopic].sort((a, b) => a.partition - b.partition)
      w.appendString(topic).appendArray(partitions, (part, carrier) => {
        const batch = writer.batch(carrier.carried.records, firstOf(carrier), options)
        part
          .appendInt32(carrier.partition)
          .appendUnsignedVarInt(batch.length + 1)
          .append(batch)
      })
    })
    .appendTaggedFields()
}

function asMessage(topic: string, partition: number, record: ProducedRecord): MessageRecord {
  const { key = null, value, headers = new Map(), timestamp, timestampMs } = record
  const message: MessageRecord = { topic, partition, value: Buffer.alloc(0), headers: new Map() }
  // The client's type knows no null, its encoder does.
  Object.assign(message, { key, value, headers, timestamp: timestamp ?? BigInt(timestampMs ?? Date.now()) })
  return message
}
