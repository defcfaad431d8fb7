import {
  type CreateRecordsBatchOptions,
  compressionsAlgorithms,
  crc32c,
  Reader,
  UnsupportedCompressionError,
} from '@platformatic/kafka'
import type { ByteSlice } from '../../runtime/bytes.ts'

export interface ProducedRecord {
  readonly key: Buffer | null
  readonly value: Buffer | null
  /** The slice with the value, if it has no separate buffer. */
  readonly slice?: ByteSlice
  readonly headers: ReadonlyMap<Buffer, Buffer | null>
  /** Milliseconds since the Unix epoch. */
  readonly timestampMs: number
}

export interface BatchOptions
  extends Partial<Pick<CreateRecordsBatchOptions, 'producerId' | 'producerEpoch' | 'compression'>> {
  /** Used instead of the records' times. */
  readonly timestampMs?: number
}

const HEAD_BYTES = 61
const FORMAT = 2
const NO_HEADERS = Buffer.of(0)

/** Encoded deltas of one byte, by milliseconds. */
const NEAR_DELTAS = Array.from({ length: 64 }, (_, ms) => Buffer.of(ms << 1))

const NUMBERS_MAX_BYTES = 32

/**
 * Writes batches of format 2 into one buffer, which grows to the largest batch. The output equals
 * the client's, whose dozen buffers per record were most of the garbage of ingestion.
 * @see https://kafka.apache.org/documentation/#recordbatch
 */
export class RecordWriter {
  #buffer = Buffer.allocUnsafe(64 << 10)
  #at = 0
  /** Encoded headers of a batch: messages of a symbol and type share them; later they may change. */
  #headers = new Map<ProducedRecord['headers'], Buffer>()

  /**
   * @param firstSequence of the producer in this partition; 0 without idempotence
   * @returns a batch that the caller owns
   * @throws UnsupportedCompressionError
   */
  batch(records: readonly ProducedRecord[], firstSequence: number, options: BatchOptions): Buffer {
    this.#at = HEAD_BYTES
    // A new map: a cleared one links its old entries to new ones, and the collector keeps both.
    this.#headers = new Map()
    const first = options.timestampMs ?? records[0]?.timestampMs ?? 0
    let max = first
    let last = first
    let delta = deltaOf(0)
    let index = 0
    for (const record of records) {
      const own = options.timestampMs ?? record.timestampMs
      if (own !== last) {
        last = own
        delta = deltaOf(own - first)
        if (own > max) max = own
      }
      this.#record(record, index++, delta)
    }
    const attributes = this.#compress(options.compression ?? 'none')
    const head = this.#buffer
    head.writeBigInt64BE(0n, 0)
    head.writeInt32BE(this.#at - 12, 8)
    head.writeInt32BE(0, 12)
    head.writeInt8(FORMAT, 16)
    head.writeInt16BE(attributes, 21)
    head.writeInt32BE(records.length - 1, 23)
    head.writeBigInt64BE(BigInt(first), 27)
    head.writeBigInt64BE(BigInt(max), 35)
    head.writeBigInt64BE(options.producerId ?? -1n, 43)
    head.writeInt16BE(options.producerEpoch ?? 0, 51)
    head.writeInt32BE(firstSequence, 53)
    head.writeInt32BE(records.length, 57)
    // The client's function copies buffers that are not of its type.
    head.writeUInt32BE(crc32c(Reader.from(head.subarray(21, this.#at)).buffer), 17)
    return Buffer.from(head.subarray(0, this.#at))
  }

  /** @returns the attribute bits of the algorithm */
  #compress(compression: NonNullable<BatchOptions['compression']>): number {
    if (compression === 'none') return 0
    const algorithm = compressionsAlgorithms[compression]
    if (algorithm === undefined) {
      throw new UnsupportedCompressionError(`Unsupported compression algorithm ${compression}`)
    }
    const compressed = algorithm.compressSync(this.#buffer.subarray(HEAD_BYTES, this.#at))
    this.#at = HEAD_BYTES
    this.#makeRoom(compressed.length)
    this.#bytes(compressed)
    return algorithm.bitmask
  }

  #record(record: ProducedRecord, offsetDelta: number, timestampDelta: Buffer): void {
    const { key, headers, slice } = record
    const value = slice ?? sliceOf(record.value)
    const headerBytes = this.#headerBytes(headers)
    const length =
      1 +
      timestampDelta.length +
      sizeOf(offsetDelta) +
      sizeOfBytes(key) +
      (value === null ? 1 : sizeOf(value.end - value.start) + value.end - value.start) +
      headerBytes.length
    this.#makeRoom(NUMBERS_MAX_BYTES + length)
    this.#varint(length)
    this.#buffer[this.#at++] = 0
    this.#bytes(timestampDelta)
    this.#varint(offsetDelta)
    this.#varintBytes(key)
    if (value === null) this.#varint(-1)
    else this.#varintSlice(value)
    this.#bytes(headerBytes)
  }

  #headerBytes(headers: ProducedRecord['headers']): Buffer {
    if (headers.size === 0) return NO_HEADERS
    const kept = this.#headers.get(headers)
    if (kept !== undefined) return kept
    const all = [...headers].flat()
    const start = this.#at
    this.#makeRoom(all.reduce((sum, one) => sum + sizeOfBytes(one), NUMBERS_MAX_BYTES))
    this.#varint(headers.size)
    for (const one of all) this.#varintBytes(one)
    const bytes = Buffer.from(this.#buffer.subarray(start, this.#at))
    this.#at = start
    this.#headers.set(headers, bytes)
    return bytes
  }

  #makeRoom(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(2 * this.#buffer.length, this.#at + bytes))
    this.#buffer.copy(larger, 0, 0, this.#at)
    this.#buffer = larger
  }

  #varintBytes(bytes: Buffer | null): void {
    this.#varint(bytes?.length ?? -1)
    if (bytes) this.#bytes(bytes)
  }

  #varintSlice({ bytes, start, end }: ByteSlice): void {
    this.#varint(end - start)
    bytes.copy(this.#buffer, this.#at, start, end)
    this.#at += end - start
  }

  #bytes(bytes: Buffer): void {
    const buffer = this.#buffer
    // A call costs more than copying a few bytes.
    if (bytes.length > 32) buffer.set(bytes, this.#at)
    else for (let i = 0; i < bytes.length; i++) buffer[this.#at + i] = bytes[i] ?? 0
    this.#at += bytes.length
  }

  /** Zigzag, of 32 bits. */
  #varint(value: number): void {
    let left = ((value << 1) ^ (value >> 31)) >>> 0
    for (; left > 0x7f; left >>>= 7) this.#buffer[this.#at++] = (left & 0x7f) | 0x80
    this.#buffer[this.#at++] = left
  }
}

/** Most records are a few milliseconds after the first of their batch; bigints are slow. */
function deltaOf(ms: number): Buffer {
  return NEAR_DELTAS[ms] ?? varint64(BigInt(ms))
}

function sizeOf(value: number): number {
  let left = ((value << 1) ^ (value >> 31)) >>> 0
  let size = 1
  for (; left > 0x7f; left >>>= 7) size++
  return size
}

function sizeOfBytes(bytes: Buffer | null): number {
  return bytes ? sizeOf(bytes.length) + bytes.length : 1
}

function sliceOf(bytes: Buffer | null): ByteSlice | null {
  return bytes === null ? null : { bytes, start: 0, end: bytes.length }
}

function varint64(value: bigint): Buffer {
  const bytes: number[] = []
  let left = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n))
  for (; left > 0x7fn; left >>= 7n) bytes.push(Number(left & 0x7fn) | 0x80)
  bytes.push(Number(left))
  return Buffer.from(bytes)
}
