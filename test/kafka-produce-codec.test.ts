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
import { PartitionRecords, PartitionSequences } from '../src/foundation/kafka/codec/partition-records.ts'
import { createRequest } from '../src/foundation/kafka/codec/produce-api.ts'
import { RecordWriter } from '../src/foundation/kafka/codec/record-writer.ts'
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

test('writes what a partition’s records carried in one message say, as the client writes them one by one', async () => {
  const places = fc.uniqueArray(
    fc.tuple(fc.constantFrom('trades', 'quotes'), fc.integer({ min: 0, max: 11 }), messagesOfAMonth),
    { minLength: 1, maxLength: 5, selector: ([topic, partition]) => `${topic}:${partition}` },
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(places, { minLength: 1, maxLength: 4 }),
      fc.constantFrom('none', 'lz4', 'gzip'),
      async (sends, compression) => {
        const own = new PartitionSequences()
        const sent = new NumericMap()
        const records = new NumericMap()
        for (const all of sends) {
          const theirs: MessageRecord[] = all.flatMap(([topic, partition, some]) =>
            messageRecords(some, topic, partition),
          )
          const ours: MessageRecord[] = all.map(([topic, partition, some]) => {
            const message: MessageRecord = { topic, partition, value: Buffer.alloc(0) }
            const carried = some.map(({ timestamp, headers, ...rest }) => {
              return { ...rest, headers: new Map(headers), timestampMs: Number(timestamp) }
            })
            Object.assign(message, { value: new PartitionRecords(carried) })
            return message
          })
          const options = { ...PRODUCER, compression }
          // The client counts messages: of ours one is a partition.
          const before = new NumericMap([...sent])
          for (let attempt = 0; attempt < 2; attempt++) {
            const request = await createRequest(-1, 500, ours, { ...options, sequences: before }, own)
            const expected =
              compression === 'gzip'
                ? await produceV11.createRequestAsync(-1, 500, theirs, { ...options, sequences: records })
                : produceV11.createRequest(-1, 500, theirs, { ...options, sequences: records })
            assert.deepEqual(request.buffer, expected.buffer)
          }
          for (const [topic, partition, some] of all) {
            sent.postIncrement(`${topic}:${partition}`, 1, 0)
            records.postIncrement(`${topic}:${partition}`, some.length, 0)
          }
        }
      },
    ),
    { numRuns: 50 },
  )
})

test('sequence numbers begin anew with a producer id, and a send that is left out is no silent hole', () => {
  const sequences = new PartitionSequences()
  const first = (send: number, count: number, producerId = 7n) =>
    sequences.first('t:0', count, {
      producerId,
      producerEpoch: 0,
      sequences: new NumericMap([['t:0', send]]),
    })
  assert.deepEqual([first(0, 500), first(0, 500), first(1, 3), first(2, 10)], [0, 0, 500, 503])
  assert.throws(() => first(4, 1), /send 4 does not follow 2/)
  assert.deepEqual([first(0, 5, 8n), first(1, 5, 8n)], [0, 5])
  // Another leader's part of the send may still be repeated under the old id.
  assert.equal(first(2, 10), 503)
})
