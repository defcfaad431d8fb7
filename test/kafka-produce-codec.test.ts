import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type MessageRecord,
  NumericMap,
  produceV11,
  Reader,
  readRecordsBatches,
  Writer,
} from '@platformatic/kafka'
import fc from 'fast-check'
import { createRequest } from '../src/kafka/produce-api.ts'
import { RecordWriter } from '../src/kafka/record-writer.ts'
import {
  type AnyMessage,
  anyMessages,
  batchOf,
  COMPRESSIONS,
  messageRecords,
  messagesOfAMonth,
} from './support/record-batches.ts'

const writer = new RecordWriter()
const PRODUCER = { producerId: 7n, producerEpoch: 3 }

const records = (messages: readonly AnyMessage[]) =>
  messages.map((message) => ({ ...message, headers: new Map(message.headers) }))

test('writes a batch as the client does, byte for byte', () => {
  fc.assert(
    fc.property(messagesOfAMonth, (messages) => {
      assert.deepEqual(writer.batch(records(messages), 0, PRODUCER), batchOf(messages))
    }),
  )
})

test('writes what the client reads, whatever the compression and however far apart the times', () => {
  fc.assert(
    fc.property(anyMessages, fc.constantFrom(...COMPRESSIONS), (messages, compression) => {
      const own = writer.batch(records(messages), 0, { ...PRODUCER, compression })
      const [batch] = readRecordsBatches(Reader.from(own))
      const read = batch?.records.map(({ key, value, headers, timestampDelta }) => {
        return { key, value, headers, timestamp: batch.firstTimestamp + timestampDelta }
      })
      assert.deepEqual(
        read,
        messages.map((message) => ({ ...message })),
      )
    }),
  )
})

test('sends no stale headers when a caller uses its buffers again', () => {
  const [name, value] = [Buffer.from('schema'), Buffer.from('trade/1')]
  const message = { key: null, value: null, headers: new Map([[name, value]]), timestamp: 1n }
  writer.batch([message], 0, PRODUCER)
  value.write('quote/1')
  const [batch] = readRecordsBatches(Reader.from(writer.batch([message], 0, PRODUCER)))
  assert.equal(batch?.records[0]?.headers[0]?.[1]?.toString(), 'quote/1')
})

test('writes a request as the client does, with its sequence numbers, and the same when it is repeated', async () => {
  const places = fc.array(
    fc.tuple(fc.constantFrom('trades', 'quotes'), fc.integer({ min: 0, max: 11 }), messagesOfAMonth),
    {
      minLength: 1,
      maxLength: 5,
    },
  )
  await fc.assert(
    fc.asyncProperty(
      places,
      fc.constantFrom('none', 'lz4', 'gzip'),
      fc.integer({ min: -1, max: 1 }),
      async (all, compression, acks) => {
        const messages: MessageRecord[] = all.flatMap(([topic, partition, some]) =>
          messageRecords(some, topic, partition),
        )
        const sequences = new NumericMap(
          all.map(([topic, partition], i) => [`${topic}:${partition}`, i * 1000]),
        )
        const options = { ...PRODUCER, sequences, compression }
        const own = await createRequest(acks, 500, messages, options)
        const again = await createRequest(acks, 500, messages, options)
        const theirs =
          compression === 'gzip'
            ? await produceV11.createRequestAsync(acks, 500, messages, options)
            : produceV11.createRequest(acks, 500, messages, options)
        assert.ok(Writer.isWriter(own))
        assert.deepEqual(own.buffer, theirs.buffer)
        assert.deepEqual(again.buffer, own.buffer)
        assert.deepEqual(own.context, theirs.context)
      },
    ),
  )
})

test('gives a message without a time one, and keeps it when the request is repeated', async () => {
  const messages: MessageRecord[] = [{ topic: 't', value: Buffer.from('v') }]
  const first = await createRequest(-1, 500, messages, PRODUCER)
  assert.equal(typeof messages[0]?.timestamp, 'bigint')
  assert.deepEqual((await createRequest(-1, 500, messages, PRODUCER)).buffer, first.buffer)
})
