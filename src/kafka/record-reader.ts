import type { KafkaRecord } from '@platformatic/kafka'
import { SharedBytes } from './shared-bytes.ts'

type Headers = KafkaRecord['headers']

const EMPTY = Buffer.alloc(0)

/** Bytes that no broker would have let pass: their checksum or a length in them is wrong. */
export class CorruptRecords extends Error {
  override readonly name = 'CorruptRecords'
}

const sharedKeys = new SharedBytes((bytes) => bytes)
const sharedHeaders = new SharedBytes((bytes) => new RecordReader(bytes).headers())

/**
 * Reads the records of a batch (format 2), without its head. Values point into `bytes`; keys and headers are shared
 * among the records that have the same, and so must not be changed.
 *
 * @see https://kafka.apache.org/documentation/#record
 */
export class RecordReader {
  readonly #bytes: Buffer
  #at: number
  #deltaBytes = -1
  #delta = 0n

  constructor(bytes: Buffer, from = 0) {
    this.#bytes = bytes
    this.#at = from
  }

  /** @throws CorruptRecords when there are fewer, or a length in them is wrong */
  records(count: number): KafkaRecord[] {
    const records: KafkaRecord[] = []
    for (let left = count; left > 0; left--) records.push(this.#record())
    return records
  }

  /** Up to the end of the bytes. */
  headers(): Headers {
    const count = this.#varint()
    const headers: Headers = []
    for (let left = count; left > 0; left--) headers.push([this.#varintBytes(), this.#varintBytes()])
    if (this.#at !== this.#bytes.length) throw new CorruptRecords('The headers of a record end elsewhere')
    return headers
  }

  #record(): KafkaRecord {
    const length = this.#varint()
    const end = this.#at + length
    if (length < 0 || end > this.#bytes.length) throw new CorruptRecords('A record reaches beyond its batch')
    const attributes = (this.#byte() << 24) >> 24
    const timestampDelta = this.#varint64()
    const offsetDelta = this.#varint()
    const key = this.#key()
    const value = this.#varintBytes()
    if (this.#at >= end) throw new CorruptRecords('A record has no room for its headers')
    const headers = sharedHeaders.of(this.#bytes, this.#at, end)
    this.#at = end
    return { length, attributes, timestampDelta, offsetDelta, key, value, headers }
  }

  #key(): Buffer | null {
    const length = this.#varint()
    if (length < 0) return null
    const start = this.#at
    this.#advance(length)
    return length === 0 ? EMPTY : sharedKeys.of(this.#bytes, start, this.#at)
  }

  #varintBytes(): Buffer | null {
    const length = this.#varint()
    if (length < 0) return null
    const start = this.#at
    this.#advance(length)
    return length === 0 ? EMPTY : this.#bytes.subarray(start, this.#at)
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

  /** Zigzag, of 64 bits. Many records follow each other within a millisecond: the last one is remembered. */
  #varint64(): bigint {
    const start = this.#at
    let packed = 0
    for (let factor = 1; ; factor *= 0x80) {
      const byte = this.#byte()
      packed += (byte & 0x7f) * factor
      if (byte < 0x80) break
      // Beyond 49 bits a number is not exact.
      if (this.#at - start === 7) return this.#longVarint64(start)
    }
    if (packed !== this.#deltaBytes) {
      this.#deltaBytes = packed
      this.#delta = BigInt(packed % 2 === 0 ? packed / 2 : -(packed + 1) / 2)
    }
    return this.#delta
  }

  #longVarint64(start: number): bigint {
    this.#at = start
    let packed = 0n
    for (let shift = 0n; ; shift += 7n) {
      if (shift > 63n) throw new CorruptRecords('A number in a record is longer than 64 bits')
      const byte = this.#byte()
      packed |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) break
    }
    return BigInt.asIntN(64, (packed >> 1n) ^ -(packed & 1n))
  }
}
