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
  type RecordsBatch,
  ResponseError,
  type ResponseErrorWithLocation,
} from '@platformatic/kafka'
import { CorruptRecords, FetchedMessage, type MessageBatch, readRecordBatches } from './record-batch.ts'

export type FetchApi = API<Parameters<typeof fetchV17.createRequest>, FetchAnswer>

/** What readers need of an answer to Fetch, as either codec gives it. */
export interface FetchAnswer {
  readonly errorCode: number
  readonly responses: ReadonlyArray<{
    readonly topicId: string
    readonly partitions: readonly PartitionAnswer[]
  }>
}

export interface PartitionAnswer
  extends Pick<
    fetchV17.FetchResponsePartition,
    'partitionIndex' | 'errorCode' | 'highWatermark' | 'logStartOffset' | 'divergingEpoch'
  > {
  readonly records?: ReadonlyArray<MessageBatch | RecordsBatch> | null
}

/** Kafka's number of the request. */
const FETCH = 1

/** The id and the first offset of an aborted transaction. */
const ABORTED_TRANSACTION_BYTES = 16

/** The tag of the field that says where the log diverges from what was read. */
const DIVERGING_EPOCH = 0

const CORRUPT_MESSAGE = protocolErrors['CORRUPT_MESSAGE']?.code ?? 2

/** The client's versions of Fetch that name topics by id (KIP-516), newest first. */
export const FETCH_VERSIONS = [fetchV17, fetchV16, fetchV15, fetchV14, fetchV13] as const

/** The same with our record reader, {@link readRecordBatches}. */
export const OWN_FETCH_APIS: readonly FetchApi[] = FETCH_VERSIONS.map(({ api, createRequest }) =>
  createAPI(FETCH, api.version, createRequest, parseResponse),
)

/**
 * Reads an answer to Fetch, versions 13 to 17. A partition with corrupt bytes gets Kafka's error
 * for that, as if the broker had found it; the others are unaffected.
 * @see https://kafka.apache.org/protocol#The_Messages_Fetch
 * @throws ResponseError with the answer as its `response` if the answer or a partition in it has an
 *   error
 */
export function parseResponse(
  _correlationId: number,
  apiKey: number,
  apiVersion: number,
  reader: Reader,
): FetchAnswer {
  const errors: ResponseErrorWithLocation[] = []
  reader.readInt32() // throttle time
  const errorCode = reader.readInt16()
  if (errorCode !== 0) errors.push(['', [errorCode, null]])
  reader.readInt32() // session
  const responses = reader.readArray((_, i) => ({
    topicId: reader.readUUID(),
    partitions: reader.readArray(
      (_partition, j) => {
        const partition = readPartition(reader)
        if (partition.errorCode !== 0)
          errors.push([`/responses/${i}/partitions/${j}`, [partition.errorCode, null]])
        return partition
      },
      true,
      false,
    ),
  }))
  reader.readTaggedFields()
  const answer = { errorCode, responses }
  if (errors.length > 0) throw new ResponseError(apiKey, apiVersion, Object.fromEntries(errors), answer)
  return answer
}

function readPartition(reader: Reader): PartitionAnswer {
  const partitionIndex = reader.readInt32()
  const errorCode = reader.readInt16()
  const highWatermark = reader.readInt64()
  reader.readInt64() // last stable offset
  const logStartOffset = reader.readInt64()
  reader.readNullableArray(() => reader.skip(ABORTED_TRANSACTION_BYTES))
  reader.readInt32() // preferred replica
  const records = readRecords(reader)
  const divergingEpoch = readDivergence(reader)
  const partition = { partitionIndex, errorCode, highWatermark, logStartOffset, divergingEpoch }
  return records === 'corrupt'
    ? { ...partition, errorCode: CORRUPT_MESSAGE, records: [] }
    : { ...partition, records }
}

function readRecords(reader: Reader): MessageBatch[] | null | 'corrupt' {
  // The length plus one; 0 means null.
  const size = reader.readUnsignedVarInt() - 1
  if (size < 0) return null
  const section = reader.buffer.subarray(reader.position, reader.position + size)
  reader.skip(size)
  try {
    return readRecordBatches(section)
  } catch (error) {
    if (error instanceof CorruptRecords) return 'corrupt'
    throw error
  }
}

/** Reads the tagged fields of a partition (KIP-595). An epoch of −1 means no divergence. */
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

export interface FetchedPartition {
  readonly topic: string
  /** The topic that answered: it may have been recreated. */
  readonly topicId: string
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

export function fetchedPartition(topic: string, topicId: string, answer: PartitionAnswer): FetchedPartition {
  const { errorCode, divergingEpoch, records } = answer
  const last = records?.at(-1)
  return {
    topic,
    topicId,
    partition: answer.partitionIndex,
    error: errorCode === 0 ? null : errorName(errorCode),
    endOffset: Number(answer.highWatermark),
    startOffset: Number(answer.logStartOffset),
    nextOffset: last === undefined ? null : Number(last.firstOffset) + last.lastOffsetDelta + 1,
    nextLeaderEpoch: last?.partitionLeaderEpoch ?? -1,
    diverging:
      divergingEpoch === undefined || divergingEpoch.epoch < 0
        ? null
        : { offset: Number(divergingEpoch.endOffset), leaderEpoch: divergingEpoch.epoch },
    messages: (records ?? []).flatMap(messagesOf),
  }
}

/** Returns the messages of a batch that either codec has read. */
export function messagesOf(batch: RecordsBatch | MessageBatch): readonly FetchedMessage[] {
  if ('messages' in batch) return batch.messages
  const { firstOffset, partitionLeaderEpoch, records } = batch
  return records.map(({ offsetDelta, key, value, headers }) => {
    const offset = Number(firstOffset) + offsetDelta
    return new FetchedMessage(offset, key, headers, value, 0, value?.length, partitionLeaderEpoch)
  })
}

export function errorName(code: number): string {
  const names: Readonly<Record<string, string>> = protocolErrorsCodesById
  return names[code] ?? `error ${code}`
}
