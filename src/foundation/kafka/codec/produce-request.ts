import {
  type API,
  createAPI,
  ProduceAcks,
  produceV9,
  produceV10,
  produceV11,
  Writer,
} from '@platformatic/kafka'

/** A record batch as bytes, with its partition. */
export interface PartitionBatch {
  readonly topic: string
  readonly partition: number
  readonly batch: Buffer
}

/** Sends Produce to one broker. Rejects with `ResponseError` if one partition was refused. */
export type ProduceApi = API<
  [timeoutMs: number, batches: readonly PartitionBatch[]],
  boolean | produceV11.ProduceResponse
>

/** Kafka's number of the request. */
const PRODUCE = 0

/** These versions use compact lengths throughout. */
export const PRODUCE_APIS: readonly ProduceApi[] = [produceV11, produceV10, produceV9].map(
  ({ api, parseResponse }) => createAPI(PRODUCE, api.version, createProduceRequest, parseResponse),
)

/**
 * Writes a Produce request, versions 9 to 11, that waits for all in-sync replicas. At most one
 * batch per partition.
 * @param timeoutMs how long the broker waits for the replicas
 * @see https://kafka.apache.org/protocol#The_Messages_Produce
 */
export function createProduceRequest(timeoutMs: number, batches: readonly PartitionBatch[]): Writer {
  return Writer.create()
    .appendString(null)
    .appendInt16(ProduceAcks.ALL)
    .appendInt32(timeoutMs)
    .appendArray([...Map.groupBy(batches, ({ topic }) => topic)], (w, [topic, inTopic]) => {
      const sorted = inTopic.toSorted((a, b) => a.partition - b.partition)
      w.appendString(topic).appendArray(sorted, (part, { partition, batch }) => {
        part
          .appendInt32(partition)
          .appendUnsignedVarInt(batch.length + 1)
          .append(batch)
      })
    })
    .appendTaggedFields()
}
