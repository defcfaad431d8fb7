import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { receiptSuffix, withReceiptStamp } from '../src/foundation/binance/stream-frame.ts'
import { type ProducedRecord, RecordWriter } from '../src/foundation/kafka/codec/record-writer.ts'
import { ReceiptSuffix, ValueWriter } from '../src/ingestion/messages/message.ts'

const TAIL = Buffer.from(',"ingestion_timestamp":1,"ingestion_timestamp_us":2}')

test('a value has the same bytes at any position, also after many later writes', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.integer({ min: 1, max: 80_000 }).map((length) => 'x'.repeat(length)),
  )
  fc.assert(
    fc.property(fc.array(text, { minLength: 1, maxLength: 30 }), (texts) => {
      const slab = new ValueWriter()
      const json = texts.map((one) => `${one.toWellFormed()}}`)
      const slices = json.map((one) => {
        const bytes = Buffer.from(`before${one}beyond`)
        return slab.write({ bytes, start: 6, end: bytes.length - 6 }, TAIL)
      })
      const expected = json.map((one) => Buffer.from(withReceiptStamp(one, 1, 2)))
      assert.deepEqual(
        slices.map(({ bytes, start, end }) => Buffer.from(bytes.subarray(start, end))),
        expected,
      )
      const batch = (values: ReadonlyArray<Pick<ProducedRecord, 'value' | 'slice'>>) => {
        const other = { key: null, headers: new Map(), timestampMs: 0 }
        return new RecordWriter().batch(
          values.map((value) => ({ ...other, ...value })),
          0,
          {},
        )
      }
      assert.deepEqual(
        batch(slices.map((slice) => ({ value: null, slice }))),
        batch(expected.map((value) => ({ value }))),
      )
    }),
    { numRuns: 200 },
  )
})

test('a receipt time is written like its text, whatever the previous value and number of digits', () => {
  const ms = fc.oneof(
    fc.integer({ min: 0, max: 8_000_000_000_000 }),
    fc.integer({ min: 999_999_999_900, max: 1_000_000_000_100 }),
    fc.integer({ min: 1_723_161_599_900, max: 1_723_161_600_100 }),
    fc.constantFrom(999_999_999_999, 1e12, 9_007_199_254_740),
  )
  fc.assert(
    fc.property(
      fc.array(fc.tuple(ms, fc.integer({ min: 0, max: 2_000_000 })), { minLength: 1 }),
      (receipts) => {
        const tail = new ReceiptSuffix()
        for (const [ms, later] of receipts) {
          const us = Math.min(ms * 1000 + later, Number.MAX_SAFE_INTEGER)
          assert.equal(Buffer.from(tail.of({ ms, us })).toString(), receiptSuffix(ms, us))
        }
      },
    ),
    { numRuns: 500 },
  )
})
