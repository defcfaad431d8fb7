import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { withReceiptStamp } from '../src/binance/frame.ts'
import { ByteSlab } from '../src/ingestion/byte-slab.ts'
import { RecordWriter } from '../src/kafka/record-writer.ts'

const TAIL = ',"ingestion_timestamp":1,"ingestion_timestamp_us":2}'

test('a value is the same bytes wherever it stands, also when many have been written behind it', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.integer({ min: 1, max: 80_000 }).map((length) => 'x'.repeat(length)),
  )
  fc.assert(
    fc.property(fc.array(text, { minLength: 1, maxLength: 30 }), (texts) => {
      const slab = new ByteSlab()
      const json = texts.map((one) => `${one.toWellFormed()}}`)
      const slices = json.map((one) => {
        const bytes = Buffer.from(`before${one}behind`)
        return slab.write({ bytes, start: 6, end: bytes.length - 6 }, TAIL)
      })
      const expected = json.map((one) => Buffer.from(withReceiptStamp(one, 1, 2)))
      assert.deepEqual(
        slices.map(({ bytes, start, end }) => Buffer.from(bytes.subarray(start, end))),
        expected,
      )
      const batch = (records: Parameters<RecordWriter['batch']>[0]) =>
        new RecordWriter().batch(records, 0, {})
      assert.deepEqual(
        batch(slices.map((slice) => ({ key: null, value: null, slice }))),
        batch(expected.map((value) => ({ key: null, value }))),
      )
    }),
    { numRuns: 200 },
  )
})
