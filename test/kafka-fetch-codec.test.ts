import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Reader, type RecordsBatch, ResponseError, readRecordsBatches, Writer } from '@platformatic/kafka'
import fc from 'fast-check'
import {
  FETCH_VERSIONS,
  fetchedPartition,
  messagesOf,
  parseResponse,
} from '../src/foundation/kafka/codec/fetch-api.ts'
import {
  CorruptRecords,
  type MessageBatch,
  readRecordBatches,
} from '../src/foundation/kafka/codec/record-batch.ts'
import { column } from './support/columns.ts'
import { anyMessages, batchOf, COMPRESSIONS, inPieces, sealed } from './support/record-batches.ts'

const ATTRIBUTES = 21
const COUNT = 57
const RECORDS = 61
const CONTROL = 1 << 5
const TOPIC_ID = '0195b1f0-0000-4000-8000-000000000001'

const read = (section: Buffer) => readRecordBatches(Reader.from(section).buffer)

/** What readers use of the batches that either codec has read. */
const used = (batches: ReadonlyArray<MessageBatch | RecordsBatch> | null | undefined) =>
  batches?.map((batch) => ({
    firstOffset: batch.firstOffset,
    lastOffsetDelta: batch.lastOffsetDelta,
    messages: messagesOf(batch).map(({ offset, key, value, headers, leaderEpoch }) => {
      return { offset, key, value, headers, leaderEpoch }
    }),
  }))

const usedOf = (section: Buffer) => used(readRecordsBatches(Reader.from(section)))

const batches = fc
  .array(fc.tuple(anyMessages, fc.constantFrom(...COMPRESSIONS)), { minLength: 1, maxLength: 3 })
  .map((all) => all.map(([messages, compression]) => batchOf(messages, compression)))

const ofOne = (messages: number) =>
  batchOf(
    Array.from({ length: messages }, (_, i) => ({
      key: Buffer.from('BTCUSDT'),
      value: Buffer.from(`value ${i}`),
      headers: [[Buffer.from('schema'), Buffer.from('trade/1')] as const],
      timestampMs: 1723161255343,
    })),
  )

test('reads every record that the client reads, byte for byte, with every compression', () => {
  fc.assert(
    fc.property(batches, fc.integer({ min: 13, max: 5000 }), (all, size) => {
      const section = Buffer.concat(all)
      const pieces = inPieces(section, size)
      assert.deepEqual(used(readRecordBatches(pieces.buffer)), usedOf(section))
    }),
  )
})

test('omits a batch that the broker truncated, and no other', () => {
  fc.assert(
    fc.property(batches, fc.nat(), (all, cut) => {
      const section = Buffer.concat(all)
      const part = section.subarray(0, cut % section.length)
      assert.deepEqual(used(read(part)), usedOf(part))
    }),
  )
})

test('skips control batches, and batches emptied by compaction', () => {
  const control = ofOne(1)
  control.writeInt16BE(CONTROL, ATTRIBUTES)
  const emptied = Buffer.from(ofOne(3).subarray(0, RECORDS))
  emptied.writeInt32BE(RECORDS - 12, 8)
  emptied.writeInt32BE(0, COUNT)
  const section = Buffer.concat([sealed(control), sealed(emptied)])
  const [first, second] = read(section)
  assert.deepEqual(used(read(section)), usedOf(section))
  assert.equal(first?.messages.length, 1)
  assert.deepEqual([second?.messages, second?.lastOffsetDelta], [[], 2])
})

test('accepts no message with a changed byte', () => {
  fc.assert(
    fc.property(batches, fc.nat(), fc.integer({ min: 1, max: 255 }), (all, place, change) => {
      const last = Buffer.from(all.at(-1) ?? assert.fail())
      const at = 16 + (place % (last.length - 16))
      last.writeUInt8(last.readUInt8(at) ^ change, at)
      const whole = all.slice(0, -1)
      const section = Buffer.concat([...whole, last])
      if (whole.length === 0) assert.throws(() => read(section), CorruptRecords)
      else assert.deepEqual(read(section), read(Buffer.concat(whole)))
    }),
  )
})

test('terminates on invalid records with a correct checksum', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.integer({ min: 0, max: 2 ** 31 - 1 }),
      (noise, count) => {
        const batch = Buffer.concat([ofOne(1).subarray(0, RECORDS), noise])
        batch.writeInt32BE(batch.length - 12, 8)
        batch.writeInt32BE(count, COUNT)
        try {
          assert.equal(read(sealed(batch))[0]?.messages.length, count)
        } catch (error) {
          assert.ok(error instanceof CorruptRecords, String(error))
        }
      },
    ),
  )
})

test('gives the messages of a symbol one key and one set of headers, without keeping fetched bytes', () => {
  const section = Buffer.concat([ofOne(2), ofOne(2)])
  const records = read(section).flatMap((batch) => batch.messages)
  assert.equal(new Set(records.map(({ key }) => key)).size, 1)
  assert.equal(new Set(records.map(({ headers }) => headers)).size, 1)
  assert.notEqual(records[0]?.key?.buffer, section.buffer)
  assert.deepEqual(records[0]?.headers, [[Buffer.from('schema'), Buffer.from('trade/1')]])
})

/** A Fetch response for one topic whose partitions have these bytes. */
function answer(
  partitions: ReadonlyArray<{ errorCode?: number; bytes: Buffer | null; diverging?: bigint }>,
): Buffer {
  const writer = Writer.create()
    .appendInt32(0)
    .appendInt16(0)
    .appendInt32(4711)
    .appendArray([TOPIC_ID], (topic, id) => {
      const appendPartition = (
        part: Writer,
        [index, { errorCode, bytes, diverging }]: [number, (typeof partitions)[number]],
      ) => {
        part.appendInt32(index).appendInt16(errorCode ?? 0)
        part.appendInt64(100n).appendInt64(100n).appendInt64(5n)
        part.appendArray([9n], (aborted, id) => aborted.appendInt64(id).appendInt64(8n))
        part.appendInt32(-1).appendUnsignedVarInt(bytes === null ? 0 : bytes.length + 1)
        if (bytes !== null && bytes.length > 0) part.append(bytes)
        // Tag 0 is the diverging epoch, tag 1 the current leader.
        part.appendUnsignedVarInt(diverging === undefined ? 1 : 2)
        if (diverging !== undefined)
          part
            .appendUnsignedVarInt(0)
            .appendUnsignedVarInt(13)
            .appendInt32(3)
            .appendInt64(diverging)
            .appendTaggedFields()
        part
          .appendUnsignedVarInt(1)
          .appendUnsignedVarInt(9)
          .appendInt32(2)
          .appendInt32(4)
          .appendTaggedFields()
      }
      topic.appendUUID(id).appendArray([...partitions.entries()], appendPartition, true, false)
    })
    .appendTaggedFields()
  return Buffer.from(writer.buffer)
}

test('reads a response as the client does, in every version that it handles', () => {
  const bytes = answer([{ bytes: ofOne(3) }, { bytes: Buffer.alloc(0), diverging: 77n }, { bytes: null }])
  for (const { api, parseResponse: clients } of FETCH_VERSIONS) {
    const [own, theirs] = [parseResponse, clients].map((parse) => {
      const { errorCode, responses } = parse(1, api.key, api.version, Reader.from(bytes))
      const partitions = responses.flatMap((topic) =>
        topic.partitions.map((part) => {
          return { ...fetchedPartition(topic.topicId, topic.topicId, part), messages: used(part.records) }
        }),
      )
      return { errorCode, partitions }
    })
    assert.deepEqual(own, theirs)
  }
})

test('reports the one partition with an error or corrupt bytes, and still delivers the others', () => {
  const corrupt = ofOne(1)
  corrupt.writeUInt8(corrupt.readUInt8(70) ^ 1, 70)
  const bytes = answer([{ bytes: ofOne(2) }, { errorCode: 1, bytes: null }, { bytes: corrupt }])
  assert.throws(
    () => parseResponse(1, 1, 17, Reader.from(bytes)),
    (error) => {
      assert.ok(error instanceof ResponseError)
      assert.deepEqual(
        error.errors.map((one) => [Reflect.get(one, 'apiId'), Reflect.get(one, 'path')]),
        [
          ['OFFSET_OUT_OF_RANGE', '/responses/0/partitions/1'],
          ['CORRUPT_MESSAGE', '/responses/0/partitions/2'],
        ],
      )
      const partitions = error['response'].responses[0].partitions
      assert.deepEqual(column<{ errorCode: number }, 'errorCode'>(partitions, 'errorCode'), [0, 1, 2])
      assert.equal(partitions[0].records[0].messages.length, 2)
      return true
    },
  )
})
