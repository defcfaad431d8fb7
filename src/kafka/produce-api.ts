import {
  type API,
  type Callback,
  createAPI,
  kGetApi,
  type MessageRecord,
  ProduceAcks,
  Producer,
  produceV9,
  produceV10,
  produceV11,
  Writer,
} from '@platformatic/kafka'
import { type BatchOptions, RecordWriter } from './record-writer.ts'

type ProduceApi = API<unknown[], boolean | produceV11.ProduceResponse>

/** Kafka's number of the request. */
const PRODUCE = 0

/** Those whose requests are alike: all lengths compact. A broker before Kafka 2.4 has none. */
const OWN = new Map<number, ProduceApi>(
  [produceV9, produceV10, produceV11].map(({ api, parseResponse }) => [
    api.version,
    createAPI(PRODUCE, api.version, createRequest, parseResponse),
  ]),
)

/** A request is written in one go, so that one writer does for all producers. */
const writer = new RecordWriter()

/** The client with our own writer of records: see {@link RecordWriter}. All else is the client's. */
export class SendingProducer extends Producer<Buffer | null, Buffer | null, Buffer, Buffer> {
  // The base is generic, as if its caller could choose the answer's type; the name decides it.
  override [kGetApi]<Arguments extends unknown[], Answer>(
    name: string,
    callback: Callback<API<Arguments, Answer>>,
  ): void
  override [kGetApi](name: string, callback: Callback<ProduceApi>): void {
    super[kGetApi]<unknown[], boolean | produceV11.ProduceResponse>(name, (error, api) => {
      if (error !== null || api === undefined) callback(error)
      else callback(null, name === 'Produce' ? (OWN.get(api.version) ?? api) : api)
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
): Writer | Promise<Writer> {
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
