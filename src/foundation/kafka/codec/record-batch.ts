import {
  compressionsAlgorithmsByBitmask,
  crc32c,
  Reader,
  type RecordsBatch,
  UnsupportedCompressionError,
} from '@platformatic/kafka'
import { FetchedMessage } from './fetched-message.ts'
import { CorruptRecords, RecordReader } from './record-reader.ts'

/** Bytes of a connection, as the client holds them: in one or several pieces. */
type Bytes = Reader['buffer']

/** Positions in the head of a batch; `length` counts from after its own four bytes. */
const AT = {
  firstOffset: 0,
  length: 8,
  partitionLeaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  firstTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  firstSequence: 53,
  count: 57,
  records: 61,
} as const

/** A batch as in the client, but with our messages instead of its records. */
export interface MessageBatch extends RecordsBatch {
  readonly messages: readonly FetchedMessage[]
}

const LENGTH_END = AT.length + 4
const FORMAT = 2
const COMPRESSION_BITS = 0b111

/**
 * Reads the batches (format 2) that a fetch returned for a partition. A last batch that the broker
 * truncated is left out.
 *
 * The client's reader makes a dozen objects per record, which caused most of the consumer's
 * garbage; this one makes one. The messages are the same, except that keys and headers are shared.
 * It also verifies the checksum, as Kafka's Java client does.
 *
 * Batches after corrupt bytes are left out, as if they had not arrived; a later fetch begins with
 * them.
 *
 * @see https://kafka.apache.org/documentation/#recordbatch
 * @throws CorruptRecords if the first batch is corrupt
 * @throws UnsupportedCompressionError
 */
export function readRecordBatches(section: Bytes): MessageBatch[] {
  const batches: MessageBatch[] = []
  for (let at = 0; section.length - at >= LENGTH_END; ) {
    const end = at + LENGTH_END + section.readInt32BE(at + AT.length)
    if (end > section.length) break
    try {
      if (end - at < AT.records) throw new CorruptRecords('A batch is shorter than its head')
      batches.push(readBatch(section.slice(at, end)))
    } catch (error) {
      if (error instanceof CorruptRecords && batches.length > 0) break
      throw error
    }
    at = end
  }
  return batches
}

function readBatch(bytes: Buffer): MessageBatch {
  const magic = bytes.readInt8(AT.magic)
  if (magic !== FORMAT) throw new CorruptRecords(`A batch is of format ${magic}, not ${FORMAT}`)
  const crc = bytes.readUInt32BE(AT.crc)
  // The client's function copies buffers that are not of its type.
  if (crc32c(Reader.from(bytes.subarray(AT.attributes)).buffer) !== crc) {
    throw new CorruptRecords('The checksum of a batch is wrong')
  }
  const attributes = bytes.readInt16BE(AT.attributes)
  const firstOffset = bytes.readBigInt64BE(AT.firstOffset)
  const partitionLeaderEpoch = bytes.readInt32BE(AT.partitionLeaderEpoch)
  return {
    firstOffset,
    length: bytes.readInt32BE(AT.length),
    partitionLeaderEpoch,
    magic,
    crc,
    attributes,
    lastOffsetDelta: bytes.readInt32BE(AT.lastOffsetDelta),
    firstTimestamp: bytes.readBigInt64BE(AT.firstTimestamp),
    maxTimestamp: bytes.readBigInt64BE(AT.maxTimestamp),
    producerId: bytes.readBigInt64BE(AT.producerId),
    producerEpoch: bytes.readInt16BE(AT.producerEpoch),
    firstSequence: bytes.readInt32BE(AT.firstSequence),
    records: [],
    messages: recordReader(bytes, attributes & COMPRESSION_BITS).messages(
      bytes.readInt32BE(AT.count),
      Number(firstOffset),
      partitionLeaderEpoch,
    ),
  }
}

function recordReader(bytes: Buffer, compression: number): RecordReader {
  if (compression === 0) return new RecordReader(bytes, AT.records)
  const algorithm = compressionsAlgorithmsByBitmask[compression]
  if (algorithm === undefined) {
    throw new UnsupportedCompressionError(`Unsupported compression algorithm with bitmask ${compression}`)
  }
  return new RecordReader(algorithm.decompressSync(bytes.subarray(AT.records)))
}

/** Returns the messages of a batch that either codec has read. */
export function messagesOf(batch: RecordsBatch | MessageBatch): readonly FetchedMessage[] {
  if ('messages' in batch) return batch.messages
  const first = Number(batch.firstOffset)
  return batch.records.map(
    ({ offsetDelta, key, value, headers }) =>
      new FetchedMessage(
        first + offsetDelta,
        key,
        headers,
        value,
        0,
        value?.length ?? 0,
        batch.partitionLeaderEpoch,
      ),
  )
}
