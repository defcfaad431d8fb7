import {
  type API,
  type Callback,
  Consumer,
  createAPI,
  fetchV13,
  fetchV14,
  fetchV15,
  fetchV16,
  fetchV17,
  kGetApi,
  protocolErrors,
  type Reader,
  ResponseError,
  type ResponseErrorWithLocation,
} from '@platformatic/kafka'
import { readRecordBatches } from './record-batch.ts'
import { CorruptRecords } from './record-reader.ts'

type FetchApi = API<unknown[], fetchV17.FetchResponse>

/** Kafka's number of the request. */
const FETCH = 1

const CORRUPT_MESSAGE = protocolErrors['CORRUPT_MESSAGE']?.code ?? 2

/** Those whose answers are alike: topics by id (KIP-516), all lengths compact. A broker before Kafka 3.1 has none. */
const OWN = new Map<number, FetchApi>(
  [fetchV13, fetchV14, fetchV15, fetchV16, fetchV17].map(({ api, createRequest }) => [
    api.version,
    createAPI(FETCH, api.version, createRequest, parseResponse),
  ]),
)

/** The client with our own reader of records: see {@link readRecordBatches}. All else is the client's. */
export class FetchingConsumer extends Consumer<Buffer, Buffer, Buffer, Buffer> {
  // The base is generic, as if its caller could choose the answer's type; the name decides it.
  override [kGetApi]<Arguments extends unknown[], Answer>(
    name: string,
    callback: Callback<API<Arguments, Answer>>,
  ): void
  override [kGetApi](name: string, callback: Callback<FetchApi>): void {
    super[kGetApi]<unknown[], fetchV17.FetchResponse>(name, (error, api) => {
      if (error !== null || api === undefined) callback(error)
      else callback(null, name === 'Fetch' ? (OWN.get(api.version) ?? api) : api)
    })
  }
}

/**
 * Reads an answer to Fetch, versions 13 to 17. Tagged fields are passed over: nothing here uses them.
 *
 * A partition whose bytes are corrupt has Kafka's error for that, as if the broker had found it; the others are whole.
 *
 * @see https://kafka.apache.org/protocol#The_Messages_Fetch
 * @throws ResponseError with the answer as its `response` when the answer or a partition in it has an error
 */
export function parseResponse(
  _correlationId: number,
  apiKey: number,
  apiVersion: number,
  reader: Reader,
): fetchV17.FetchResponse {
  const errors: ResponseErrorWithLocation[] = []
  const throttleTimeMs = reader.readInt32()
  const errorCode = reader.readInt16()
  if (errorCode !== 0) errors.push(['', [errorCode, null]])
  const sessionId = reader.readInt32()
  const responses = reader.readArray((_, i) => ({
    topicId: reader.readUUID(),
    partitions: reader.readArray((_partition, j) => {
      const partition = readPartition(reader)
      if (partition.errorCode !== 0) {
        errors.push([`/responses/${i}/partitions/${j}`, [partition.errorCode, null]])
      }
      return partition
    }),
  }))
  reader.readTaggedFields()
  const response = { throttleTimeMs, errorCode, sessionId, responses, nodeEndpoints: [] }
  if (errors.length > 0) throw new ResponseError(apiKey, apiVersion, Object.fromEntries(errors), response)
  return response
}

function readPartition(reader: Reader): fetchV17.FetchResponsePartition {
  const partition = {
    partitionIndex: reader.readInt32(),
    errorCode: reader.readInt16(),
    highWatermark: reader.readInt64(),
    lastStableOffset: reader.readInt64(),
    logStartOffset: reader.readInt64(),
    abortedTransactions: reader.readNullableArray(() => ({
      producerId: reader.readInt64(),
      firstOffset: reader.readInt64(),
    })),
    preferredReadReplica: reader.readInt32(),
  }
  // One more than there are bytes; 0 means null.
  const size = reader.readUnsignedVarInt() - 1
  if (size < 0) return { ...partition, records: null }
  const end = reader.position + size
  const section = reader.buffer.subarray(reader.position, end)
  reader.position = end
  try {
    return { ...partition, records: readRecordBatches(section) }
  } catch (error) {
    if (!(error instanceof CorruptRecords)) throw error
    return { ...partition, errorCode: CORRUPT_MESSAGE, records: [] }
  }
}
