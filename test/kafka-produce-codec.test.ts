import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type MessageRecord, NumericMap, produceV11, Reader, readRecordsBatches } from '@platformatic/kafka'
import fc from 'fast-check'
import { CODECS } from '../src/foundation/kafka/codec/codec.ts'
import { createProduceRequest } from '../src/foundation/kafka/codec/produce-request.ts'

import {
  type AnyMessage,
  anyMessages,
  COMPRESSIONS,
  messageRecords,
  messagesOfAMonth,
} from './support/record-batches.ts'

const writer = CODECS.own.writer()
const PRODUCER = { producerId: 7n, producerEpoch: 3 }

const records = (messages: readonly AnyMessage[]) =>
  messages.map((message) => ({ ...message, headers: new Map(message.headers) }))

/** The bytes within a larger buffer. */
function within(value: Buffer) {
  return { bytes: Buffer.concat([Buffer.of(1), value, Buffer.of(2)]), start: 1, end: 1 + value.length }
}

test('writes a batch as the client does, byte for byte, with every compression', () => {
  const theirs = CODECS.client.writer()
  fc.assert(
    fc.property(
      messagesOfAMonth,
      fc.nat(2 ** 31 - 1),
      fc.constantFrom(...COMPRESSIONS),
      (messages, firstSequence, compression) => {
        const options = { ...PRODUCER, compression }
        const sliced = records(messages).map(({ value, ...record }) => ({
          ...record,
          value,
          ...(value === null ? {} : { slice: within(value) }),
        }))
        for (const all of [records(messages), sliced])
          for (const more of [options, { ...options, timestampMs: 1723161255000 }])
            assert.deepEqual(writer.batch(all, firstSequence, more), theirs.batch(all, firstSequence, more))
      },
    ),
  )
})

test('writes batches that the client reads, with every compression and any time difference', () => {
  fc.assert(
    fc.property(anyMessages, fc.constantFrom(...COMPRESSIONS), (messages, compression) => {
      const own = writer.batch(records(messages), 0, { ...PRODUCER, compression })
      const [batch] = readRecordsBatches(Reader.from(own))
      const read = batch?.records.map(({ key, value, headers, timestampDelta }) => {
        return { key, value, headers, timestampMs: Number(batch.firstTimestamp + timestampDelta) }
      })
      assert.deepEqual(
        read,
        messages.map((message) => ({ ...message })),
      )
    }),
  )
})

test('sends no stale headers when a caller reuses its buffers', () => {
  const [name, value] = [Buffer.from('schema'), Buffer.from('trade/1')]
  const message = { key: null, value: null, headers: new Map([[name, value]]), timestampMs: 1 }
  writer.batch([message], 0, PRODUCER)
  value.write('quote/1')
  const [batch] = readRecordsBatches(Reader.from(writer.batch([message], 0, PRODUCER)))
  assert.equal(batch?.records[0]?.headers[0]?.[1]?.toString(), 'quote/1')
})

test('writes a request as the client does, with its sequence numbers', () => {
  const places = fc.uniqueArray(
    fc.tuple(fc.constantFrom('trades', 'quotes'), fc.integer({ min: 0, max: 11 }), messagesOfAMonth),
    { minLength: 1, maxLength: 5, selector: ([topic, partition]) => `${topic}:${partition}` },
  )
  fc.assert(
    fc.property(places, fc.constantFrom('none', 'lz4'), (all, compression) => {
      const messages: MessageRecord[] = all.flatMap(([topic, partition, some]) =>
        messageRecords(some, topic, partition),
      )
      const sequences = new NumericMap(
        all.map(([topic, partition], i) => [`${topic}:${partition}`, i * 1000]),
      )
      const batches = all.map(([topic, partition, some], i) => ({
        topic,
        partition,
        batch: writer.batch(records(some), i * 1000, { ...PRODUCER, compression }),
      }))
      const theirs = produceV11.createRequest(-1, 500, messages, { ...PRODUCER, sequences, compression })
      assert.deepEqual(createProduceRequest(500, batches).buffer, theirs.buffer)
    }),
  )
})
