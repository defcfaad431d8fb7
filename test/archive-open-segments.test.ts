import assert from 'node:assert/strict'
import { test } from 'node:test'
import { OpenSegments } from '../src/archive/open-segments.ts'
import { fetched, record, TOPIC_ID, tradeValue } from './support/records.ts'

const HEAD = { incarnation: 1, nextOffset: 0, leaderEpoch: -1 }

test('messages of a recreated topic are pending until they are committed, also while they are written', () => {
  const open = new OpenSegments({
    kindOf: new Map([['trades', 'trades']]),
    ...{ flushIntervalMs: 100, sealBytes: 1 << 30, maxBytes: 1 << 30 },
  })
  open.assign([{ topic: 'trades', topicId: TOPIC_ID, partition: 0, head: HEAD }])
  const messages = [1, 2, 3].map((t) => record(tradeValue({ t })))
  open.accept(fetched('trades', 0, 0, messages.slice(0, 2)), 5, 0)
  const first = open.take(200) ?? assert.fail('nothing is due')
  open.accept(fetched('trades', 0, 2, messages.slice(2)), 250, 0)
  open.retire('trades', 'another')
  assert.deepEqual([open.pending, open.oldestMs], [3, 5], 'one segment is being written')
  open.committed(first)
  assert.deepEqual([open.pending, open.oldestMs], [1, 250])
  const second = open.take(251) ?? assert.fail('a retired segment is due at once')
  assert.equal(open.pending, 1)
  assert.ok(open.heldBytes > 0)
  assert.equal(open.take(251), null)
  open.committed(second)
  assert.deepEqual([open.pending, open.heldBytes, open.oldestMs], [0, 0, null])
})
