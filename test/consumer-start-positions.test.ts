import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startPositions, type TopicState } from '../src/consumer/positions.ts'

const RANGES = [
  { start: 100, end: 900 },
  { start: 0, end: 50 },
]
const TRADES: TopicState = { topic: 'trades', topicId: 'id-1', fromEarliest: false, ranges: RANGES }
const GAPS = { topic: 'gaps', topicId: 'id-2', fromEarliest: true, ranges: [{ start: 0, end: 7 }] }
const row = (topicId: string, partition: number, nextOffset: number) => {
  return { topic: 'trades', topicId, partition, nextOffset, leaderEpoch: -1 }
}
const offsets = (result: ReturnType<typeof startPositions>) =>
  result.positions.map(({ nextOffset }) => nextOffset)

test('begins at the end on the very first start, reads the ledger from its beginning, and records both', () => {
  const result = startPositions([TRADES, GAPS], [], false, 'latest')
  assert.deepEqual(offsets(result), [900, 50, 0])
  assert.equal(result.toWrite.length, 3)
  assert.deepEqual(result.notices, [])
})

test('begins at the beginning on the very first start if configured', () => {
  assert.deepEqual(offsets(startPositions([TRADES, GAPS], [], false, 'earliest')), [100, 0, 0])
})

test('prefers the database to the group, so that a restored backup catches up automatically', () => {
  const result = startPositions([TRADES], [row('id-1', 0, 300), row('id-1', 1, 20)], true, 'latest')
  assert.deepEqual(offsets(result), [300, 20])
  assert.deepEqual(result.toWrite, [])
})

test('reads a partition unknown to the database from its beginning', () => {
  const result = startPositions([TRADES], [row('id-1', 0, 300)], false, 'latest')
  assert.deepEqual(offsets(result), [300, 0])
  assert.deepEqual(result.toWrite, [row('id-1', 1, 0)])
})

test('reads everything, and reports it, when the database is empty but the group is not', () => {
  const result = startPositions([TRADES], [], true, 'latest')
  assert.deepEqual(offsets(result), [100, 0])
  assert.match(result.notices.join(), /database is empty/)
})

test('detects a recreated topic and reads it from its beginning', () => {
  const result = startPositions([TRADES], [row('old', 0, 5000), row('id-1', 1, 20)], true, 'latest')
  assert.deepEqual(offsets(result), [100, 20])
  assert.deepEqual(result.toWrite, [row('id-1', 0, 100)])
  assert.match(result.notices.join(), /trades was recreated since partition 0/)
})

test('records the unread part of a recreated topic as lost, in every partition it has now', () => {
  const loss = (partition: number, to: number) => {
    return { topicId: 'id-1', partition, to, cause: 'recreated', seen: [] }
  }
  const recreated = startPositions([TRADES], [row('old', 0, 5000)], true, 'latest')
  assert.deepEqual(recreated.losses, [loss(0, 100), loss(1, 0)])
  // A newly added partition has lost nothing.
  assert.deepEqual(startPositions([TRADES], [row('id-1', 0, 300)], true, 'latest').losses, [])
})

test('records where events begin on the very first start, but not when everything is read', () => {
  const begins = (to: number, partition: number) => {
    return { topicId: 'id-1', partition, to, cause: 'start', seen: [] }
  }
  const starts = (groupHasCommits: boolean, reset: 'latest' | 'earliest') =>
    startPositions([TRADES, GAPS], [], groupHasCommits, reset).losses
  assert.deepEqual(starts(false, 'latest'), [begins(900, 0), begins(50, 1)])
  assert.deepEqual(starts(false, 'earliest'), [begins(100, 0), begins(0, 1)])
  assert.deepEqual(starts(true, 'latest'), [begins(100, 0), begins(0, 1)])
})
