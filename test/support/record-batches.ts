import {
  type CompressionAlgorithmValue,
  crc32c,
  createRecordsBatch,
  type MessageRecord,
  Reader,
} from '@platformatic/kafka'
import fc from 'fast-check'
import type { ProduceAnswer } from '../../src/foundation/kafka/broker-requests.ts'

/** A message's bytes; Kafka distinguishes null and empty. */
export interface AnyMessage {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: ReadonlyArray<readonly [Buffer, Buffer | null]>
  readonly timestampMs: number
}

export const COMPRESSIONS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const

/** A broker's answer for a partition that has stored its batch. */
export const PRODUCED: ProduceAnswer['responses'][number]['partitionResponses'][number] = {
  index: 0,
  errorCode: 0,
  baseOffset: 0n,
  logAppendTimeMs: -1n,
  logStartOffset: 0n,
  recordErrors: [],
  errorMessage: null,
}

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array))

const SCHEMA: AnyMessage['headers'] = [[Buffer.from('schema'), Buffer.from('trade/1')]]

const someHeaders: fc.Arbitrary<AnyMessage['headers']> = fc.array(
  fc.tuple(bytes(20), fc.option(bytes(150), { nil: null })),
  { maxLength: 3 },
)

/** A few repeated keys and headers, as in practice, among random bytes of any size. */
export const anyMessage: fc.Arbitrary<AnyMessage> = fc.record({
  key: fc.oneof(fc.constantFrom(null, Buffer.from('BTCUSDT'), Buffer.from('ETHUSDT')), bytes(300)),
  value: fc.oneof(
    fc.option(bytes(200), { nil: null }),
    fc.integer({ min: 60, max: 20_000 }).map((size) => Buffer.alloc(size, 'value')),
  ),
  headers: fc.oneof(fc.constant(SCHEMA), someHeaders),
  timestampMs: fc.oneof(
    fc.integer({ min: 1723161255000, max: 1723161255009 }),
    fc.integer({ min: -(2 ** 52), max: 2 ** 52 }),
  ),
})

export const anyMessages = fc.array(anyMessage, { minLength: 1, maxLength: 30 })

export function messageRecords(messages: readonly AnyMessage[], topic = 't', partition = 0): MessageRecord[] {
  return messages.map(({ key, value, headers, timestampMs }) => {
    const timestamp = BigInt(timestampMs)
    const record = { topic, partition, timestamp, value: Buffer.alloc(0), headers: new Map() }
    // The client's type does not allow null, but its encoder does.
    Object.assign(record, { key, value, headers: new Map(headers) })
    return record
  })
}

/** Within 24 days: the client encodes times wrongly that are 2³¹ ms after the first of a batch. */
export const messagesOfAMonth = anyMessages.map((messages) =>
  messages.map((message) => ({
    ...message,
    timestampMs: 1723161255000 + (message.timestampMs % 2 ** 30),
  })),
)

/** A batch as the client encodes it. */
export function batchOf(
  messages: readonly AnyMessage[],
  compression: CompressionAlgorithmValue = 'none',
): Buffer {
  const batch = createRecordsBatch(messageRecords(messages), {
    compression,
    producerId: 7n,
    producerEpoch: 3,
  })
  return Buffer.from(batch.buffer)
}

/** Corrects the checksum after bytes were changed. */
export function sealed(batch: Buffer): Buffer {
  batch.writeUInt32BE(crc32c(batch.subarray(21)), 17)
  return batch
}

/** Splits bytes into pieces of this size, as a connection may deliver them. */
export function inPieces(all: Buffer, size: number): Reader {
  const reader = Reader.from(all.subarray(0, size))
  for (let at = size; at < all.length; at += size) reader.buffer.append(all.subarray(at, at + size))
  reader.length = reader.buffer.length
  return reader
}
