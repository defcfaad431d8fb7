import type { KafkaRecord } from '@platformatic/kafka'
import { SharedBytes } from '../../runtime/bytes.ts'
import { FetchedMessage } from './fetched-message.ts'

type Headers = KafkaRecord['headers']

const EMPTY = Buffer.alloc(0)

const ATTRIBUTES_BYTES = 1
const VARINT64_BYTES = 10

/** Bytes that no broker would have accepted: the checksum or a length is wrong. */
export class CorruptRecords extends Error {
  override readonly name = 'CorruptRecords'
}

const sharedKeys = new SharedBytes((bytes) => bytes)
const sharedHeaders = new SharedBytes((bytes) => new RecordReader(bytes).headers())

/**
 * Reads the records of a batch (format 2) after its head. Values stay in `bytes`. Equal keys and
 * headers are shared among records and must not be changed. Attributes and times of records are
 * skipped, since nothing uses them.
 *
 * @see https://kafka.apache.org/documentation/#record
 */
export class RecordReader {
  readonly #bytes: Buffer
  #at: number

  constructor(bytes: Buffer, from = 0) {
    this.#bytes = bytes
    this.#at = from
  }

  /**
   * @param firstOffset of the batch
   * @param leaderEpoch of the leader that appended the batch
   * @throws CorruptRecords if there are fewer records, or a length is wrong
   */
  messages(count: number, firstOffset: number, leaderEpoch = -1): FetchedMessage[] {
    const messages: FetchedMessage[] = []
    for (let left = count; left > 0; left--) messages.push(this.#message(firstOffset, leaderEpoch))
    return messages
  }

  /** Reads headers up to the end of the bytes. */
  headers(): Headers {
    const count = this.#varint()
    const headers: Headers = []
    for (let left = count; left > 0; left--) headers.push([this.#varintBytes(), this.#varintBytes()])
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
    const key = this.#key()
    const size = this.#varint()
    const start = this.#at
    if (size > 0) this.#advance(size)
    if (this.#at >= end) throw new CorruptRecords('A record has no room for its headers')
    const headers = sharedHeaders.of(this.#bytes, this.#at, end)
    this.#at = end
    return new FetchedMessage(
      offset,
      key,
      headers,
      size < 0 ? null : this.#bytes,
      start,
      start + Math.max(size, 0),
      leaderEpoch,
    )
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

  #passVarint64(): void {
    for (let length = 1; this.#byte() >= 0x80; length++) {
      if (length === VARINT64_BYTES) throw new CorruptRecords('A number in a record is longer than 64 bits')
    }
  }
}
