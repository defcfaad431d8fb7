import {
  type API,
  createAPI,
  fetchV13,
  fetchV14,
  fetchV15,
  fetchV16,
  fetchV17,
  protocolErrors,
  protocolErrorsCodesById,
  type Reader,
  ResponseError,
  type ResponseErrorWithLocation,
} from '@platformatic/kafka'
import type { FetchedMessage } from './fetched-message.ts'
import { type MessageBatch, messagesOf, readRecordBatches } from './record-batch.ts'
import { CorruptRecords } from './record-reader.ts'

export type FetchApi = API<Parameters<typeof fetchV17.createRequest>, fetchV17.FetchResponse>

/** An answer to Fetch with parsed records. */
export type FetchAnswer = Omit<fetchV17.FetchResponse, 'responses'> & {
  readonly responses: ReadonlyArray<{
    readonly topicId: string
    readonly partitions: ReadonlyArray<
      Omit<fetchV17.FetchResponsePartition, 'records'> & {
        readonly records?: ReadonlyArray<
          NonNullable<fetchV17.FetchResponsePartition['records']>[number] | MessageBatch
        > | null
      }
    >
  }>
}

/** Kafka's number of the request. */
const FETCH = 1

/** The tag of the field that says where the log diverges from what was read. */
const DIVERGING_EPOCH = 0

const CORRUPT_MESSAGE = protocolErrors['CORRUPT_MESSAGE']?.code ?? 2

/** Versions 13 to 17, which name topics by id (KIP-516), newest first, with our record reader, {@link readRecordBatches}. */
export const OWN_FETCH_APIS: readonly FetchApi[] = [fetchV17, fetchV16, fetchV15, fetchV14, fetchV13].map(
  ({ api, createRequest }) => createAPI(FETCH, api.version, createRequest, parseResponse),
)

/**
 * Reads an answer to Fetch, versions 13 to 17. It reads one tagged field, the diverging epoch
 * (KIP-595).
 *
 * A partition with corrupt bytes gets Kafka's error for that, as if the broker had found it; the
 * others are unaffected.
 *
 * @see https://kafka.apache.org/protocol#The_Messages_Fetch
 * @throws ResponseError with the answer as its `response` if the answer or a partition in it has an
 *   error
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
    partitions: reader.readArray(
      (_partition, j) => {
        const partition = readPartition(reader)
        partition.divergingEpoch = readDivergence(reader)
        if (partition.errorCode !== 0) {
          errors.push([`/responses/${i}/partitions/${j}`, [partition.errorCode, null]])
        }
        return partition
      },
      true,
      false,
    ),
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
  // The length plus one; 0 means null.
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

/** Reads the tagged fields of a partition. An epoch of −1 means no divergence. */
function readDivergence(reader: Reader): { epoch: number; endOffset: bigint } {
  let diverging = { epoch: -1, endOffset: -1n }
  for (let left = reader.readUnsignedVarInt(); left > 0; left--) {
    const tag = reader.readUnsignedVarInt()
    const end = reader.readUnsignedVarInt() + reader.position
    if (tag === DIVERGING_EPOCH) diverging = { epoch: reader.readInt32(), endOffset: reader.readInt64() }
    reader.position = end
  }
  return diverging
}

/** The result of one fetch for one partition. */
export interface FetchedPartition {
  readonly topic: string
  readonly partition: number
  /** Kafka's error name, like `OFFSET_OUT_OF_RANGE`; null without an error. */
  readonly error: string | null
  /** The offset after the last message that all in-sync replicas have. */
  readonly endOffset: number
  /** The oldest offset that retention has kept. */
  readonly startOffset: number
  /** The position after the last batch, even if compaction has emptied it; null without a batch. */
  readonly nextOffset: number | null
  /** The leader epoch of the last batch; −1 without one. */
  readonly nextLeaderEpoch: number
  /**
   * Set if the log has lost messages before the requested position and may have others in their
   * place: what was read is still there up to `offset`. Null if not, or if the position has no
   * leader epoch.
   */
  readonly diverging: { readonly offset: number; readonly leaderEpoch: number } | null
  /** In ascending order of offset; may begin before the requested position. */
  readonly messages: readonly FetchedMessage[]
}

type PartitionAnswer = FetchAnswer['responses'][number]['partitions'][number]

/** Returns what a broker answered for a partition. */
export function fetchedPartition(topic: string, answer: PartitionAnswer): FetchedPartition {
  const {
    partitionIndex: partition,
    errorCode,
    highWatermark,
    logStartOffset,
    divergingEpoch,
    records,
  } = answer
  const last = records?.at(-1)
  const names: Readonly<Record<string, string>> = protocolErrorsCodesById
  return {
    topic,
    partition,
    error: errorCode === 0 ? null : (names[errorCode] ?? `error ${errorCode}`),
    endOffset: Number(highWatermark),
    startOffset: Number(logStartOffset),
    nextOffset: last === undefined ? null : Number(last.firstOffset) + last.lastOffsetDelta + 1,
    nextLeaderEpoch: last?.partitionLeaderEpoch ?? -1,
    diverging:
      divergingEpoch === undefined || divergingEpoch.epoch < 0
        ? null
        : { offset: Number(divergingEpoch.endOffset), leaderEpoch: divergingEpoch.epoch },
    messages: (records ?? []).flatMap(messagesOf),
  }
}
