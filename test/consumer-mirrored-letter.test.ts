import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mirroredLetter } from '../src/foundation/dead-letters/dead-letter.ts'
import { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'

test('D1 a dead letter of ingestion keeps the epoch of its ids, for verify', () => {
  const place = { topic: 'letters', topicId: 'id', partition: 0 }
  const rowOf = (...more: Array<[string, string]>) => {
    const headers = [['origin', 'ingestion'], ['reason', 'because'], ['time', '1'], ...more]
    const bytes = headers.map(([name = '', text = '']): [Buffer, Buffer] => [
      Buffer.from(name),
      Buffer.from(text),
    ])
    return mirroredLetter(place, new FetchedMessage(7, null, bytes, Buffer.from('{}')), 0)
  }
  assert.equal(rowOf()?.headers, undefined)
  assert.deepEqual(rowOf(['epoch', '3'])?.headers, [['epoch', '3']])
  assert.equal(rowOf(['epoch', '4000'])?.headers, undefined)
})
