import {
  compressionsAlgorithmsByBitmask,
  crc32c,
  type KafkaRecord,
  Reader,
  type RecordsBatch,
  UnsupportedCompressionError,
} from '@platformatic/kafka'
import { SharedBytes } from '../../runtime/bytes.ts'

type Headers = KafkaRecord['headers']

/** Bytes of a connection, as the client holds them: in one or several pieces. */
type Bytes = Reader['buffer']

/** A message of a fetch: a slice of its batch. Key and headers are shared and must not be changed. */
export class FetchedMessage {
  readonly offset: number
  readonly key: Buffer | null
  readonly headers: Headers
  /** The buffer with the value, from `start` to before `end`; null without a value. */
  readonly bytes: Buffer | null
  readonly start: number
  readonly end: number
  /** The epoch of the leader that appended it; −1 if unknown. */
  readonly leaderEpoch: number

  constructor(
    offset: number,
    key: Buffer | null,
    headers: Headers,
    bytes: Buffer | null,
    start = 0,
    end = bytes?.length ?? 0,
    leaderEpoch = -1,
  ) {
    this.offset = offset
    this.key = key
    this.headers = headers
    this.bytes = bytes
    this.start = start
    this.end = end
    this.leaderEpoch = leaderEpoch
  }

  get value(): Buffer | null {
    return this.bytes?.subarray(this.start, this.end) ?? null
  }
}

/** What a reader needs of a batch, with our messages instead of the client's records. */
export interface MessageBatch
  extends Pick<RecordsBatch, 'firstOffset' | 'lastOffsetDelta' | 'partitionLeaderEpoch'> {
  readonly messages: readonly FetchedMessage[]
}

/** Bytes that no broker would have accepted: the checksum or a length is wrong. */
export class CorruptRecords extends Error {
  override readonly name = 'CorruptRecords'
}

/** Positions in the head of a batch; `length` counts from after its own four bytes. */
const AT = {
  firstOffset: 0,
  length: 8,
  partitionLeaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  count: 57,
  records: 61,
} as const

const LENGTH_END = AT.length + 4
const FORMAT = 2
const COMPRESSION_BITS = 0b111

/**
 * Reads the batches (format 2) that a fetch returned for a partition. A last batch that the broker
 * truncated is left out; so are batches after corrupt bytes, with which a later fetch begins.
 *
 * The client's reader makes a dozen objects per record, which caused most of the consumer's
 * garbage; this one makes one. The messages are the same, except that keys and headers are shared.
 * It also verifies the checksum, as Kafka's Java client does.
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
  // The client's function copies buffers that are not of its type.
  if (crc32c(Reader.from(bytes.subarray(AT.attributes)).buffer) !== bytes.readUInt32BE(AT.crc)) {
    throw new CorruptRecords('The checksum of a batch is wrong')
  }
  const firstOffset = bytes.readBigInt64BE(AT.firstOffset)
  const partitionLeaderEpoch = bytes.readInt32BE(AT.partitionLeaderEpoch)
  const records = recordReader(bytes, bytes.readInt16BE(AT.attributes) & COMPRESSION_BITS)
  return {
    firstOffset,
    lastOffsetDelta: bytes.readInt32BE(AT.lastOffsetDelta),
    partitionLeaderEpoch,
    messages: records.messages(bytes.readInt32BE(AT.count), Number(firstOffset), partitionLeaderEpoch),
  }
}

function recordReader(bytes: Buffer, compression: number): RecordReader {
  if (compression === 0) return new RecordReader(bytes, AT.records)
  const algorithm = compressionsAlgorithmsByBitmask[compression]
  if (algorithm === undefined) {
    throw new UnsupportedCompressionError(`Unsupported compression algorithm with bitmask ${compression}`)
  }
  return new RecordReader(algorithm.decompressSync(bytes.subarray(AT.records)), 0)
}

const EMPTY = Buffer.alloc(0)
const ATTRIBUTES_BYTES = 1
const VARINT64_BYTES = 10

const sharedKeys = new SharedBytes((bytes) => bytes)
const sharedHeaders = new SharedBytes((bytes) => new RecordReader(bytes, 0).headers())

/**
 * Reads the records of a batch after its head. Values stay in `bytes`. Attributes and times of
 * records are skipped, since nothing uses them.
 * @see https://kafka.apache.org/documentation/#record
 */
class RecordReader {
  readonly #bytes: Buffer
  #at: number

  constructor(bytes: Buffer, from: number) {
    this.#bytes = bytes
    this.#at = from
  }

  /** @throws CorruptRecords if there are fewer records, or a length is wrong */
  messages(count: number, firstOffset: number, leaderEpoch: number): FetchedMessage[] {
    const messages: FetchedMessage[] = []
    for (let left = count; left > 0; left--) messages.push(this.#message(firstOffset, leaderEpoch))
    return messages
  }

  /** Reads headers up to the end of the bytes. */
  headers(): Headers {
    const headers: Headers = []
    for (let left = this.#varint(); left > 0; left--) headers.push([this.#varintBytes(), this.#varintBytes()])
    if (this.#at !== this.#bytes.length)
      throw new CorruptRecords('The headers of a record do not end with the record')
    return headers
  }

  #message(firstOffset: number, leaderEpoch: number): FetchedMessage {
    const length = this.#varint()
    const end = this.#at + length
    if (length < 0 || end > this.#bytes.length) throw new CorruptRecords('A record reaches beyond its batch')
    this.#advance(ATTRIBUTES_BYTES)
    this.#passVarint64()
    const offset = firstOffset + this.#varint()
    const key = this.#varintBytes(sharedKeys)
    const size = this.#varint()
    const start = this.#at
    if (size > 0) this.#advance(size)
    const valueEnd = this.#at
    if (valueEnd >= end) throw new CorruptRecords('A record has no room for its headers')
    const headers = sharedHeaders.of(this.#bytes, valueEnd, end)
    this.#at = end
    const bytes = size < 0 ? null : this.#bytes
    return new FetchedMessage(offset, key, headers, bytes, start, valueEnd, leaderEpoch)
  }

  /** @param shared gives equal bytes one object; without it they stay in the batch */
  #varintBytes(shared?: SharedBytes<Buffer>): Buffer | null {
    const length = this.#varint()
    if (length < 0) return null
    const start = this.#at
    this.#advance(length)
    if (length === 0) return EMPTY
    return shared?.of(this.#bytes, start, this.#at) ?? this.#bytes.subarray(start, this.#at)
  }

  #advance(length: number): void {
    this.#at += length
    if (this.#at > this.#bytes.length) throw new CorruptRecords('A record reaches beyond its batch')
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++]
    if (byte === undefined) throw new CorruptRecords('A batch ends within a record')
    return byte
  }

  /** Zigzag, of 32 bits. */
  #varint(): number {
    let byte = this.#byte()
    if (byte < 0x80) return (byte >>> 1) ^ -(byte & 1)
    let value = byte & 0x7f
    for (let shift = 7; byte >= 0x80; shift += 7) {
      if (shift > 28) throw new CorruptRecords('A number in a record is longer than 32 bits')
      byte = this.#byte()
      value |= (byte & 0x7f) << shift
    }
    return (value >>> 1) ^ -(value & 1)
  }

  #passVarint64(): void {
    for (let length = 1; this.#byte() >= 0x80; length++) {
      if (length === VARINT64_BYTES) throw new CorruptRecords('A number in a record is longer than 64 bits')
    }
  }
}
