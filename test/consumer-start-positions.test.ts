import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startPositions, type TopicState } from '../src/consumer/start-positions.ts'

const TRADES: TopicState = {
  topic: 'trades',
  topicId: 'id-1',
  fromEarliest: false,
  ranges: [
    { start: 100, end: 900 },
    { start: 0, end: 50 },
  ],
}
const GAPS: TopicState = {
  topic: 'gaps',
  topicId: 'id-2',
  fromEarliest: true,
  ranges: [{ start: 0, end: 7 }],
}
const row = (topic: string, topicId: string, partition: number, nextOffset: number) => ({
  topic,
  topicId,
  partition,
  nextOffset,
  leaderEpoch: -1,
})
const offsets = (result: ReturnType<typeof startPositions>) =>
  result.positions.map(({ nextOffset }) => nextOffset)

test('starts at the end on the very first start, the ledger at its beginning, and writes both down', () => {
  const result = startPositions([TRADES, GAPS], [], false, 'latest')
  assert.deepEqual(offsets(result), [900, 50, 0])
  assert.equal(result.toWrite.length, 3)
  assert.deepEqual(result.notices, [])
})

test('starts at the beginning on the very first start when told so', () => {
  assert.deepEqual(offsets(startPositions([TRADES, GAPS], [], false, 'earliest')), [100, 0, 0])
})

test('lets the database win over the group, so that a restored backup catches up by itself', () => {
  const result = startPositions(
    [TRADES],
    [row('trades', 'id-1', 0, 300), row('trades', 'id-1', 1, 20)],
    true,
    'latest',
  )
  assert.deepEqual(offsets(result), [300, 20])
  assert.deepEqual(result.toWrite, [])
})

test('reads a partition that the database does not know from its beginning', () => {
  const result = startPositions([TRADES], [row('trades', 'id-1', 0, 300)], false, 'latest')
  assert.deepEqual(offsets(result), [300, 0])
  assert.deepEqual(result.toWrite, [row('trades', 'id-1', 1, 0)])
})

test('reads everything, and says so, when the database is empty but the group is not', () => {
  const result = startPositions([TRADES], [], true, 'latest')
  assert.deepEqual(offsets(result), [100, 0])
  assert.match(result.notices.join(), /database is empty/)
})

test('notices a recreated topic and reads it from its beginning', () => {
  const result = startPositions(
    [TRADES],
    [row('trades', 'old', 0, 5000), row('trades', 'id-1', 1, 20)],
    true,
    'latest',
  )
  assert.deepEqual(offsets(result), [100, 20])
  assert.deepEqual(result.toWrite, [row('trades', 'id-1', 0, 100)])
  assert.match(result.notices.join(), /trades was recreated since partition 0/)
})

test('notes that what stood unread in a recreated topic is lost, in every partition that it has now', () => {
  const loss = (partition: number, to: number) => ({
    topicId: 'id-1',
    partition,
    to,
    cause: 'recreated',
    seen: [],
  })
  const recreated = startPositions([TRADES], [row('trades', 'old', 0, 5000)], true, 'latest')
  assert.deepEqual(recreated.losses, [loss(0, 100), loss(1, 0)])
  // A partition that was only added has lost nothing.
  assert.deepEqual(startPositions([TRADES], [row('trades', 'id-1', 0, 300)], true, 'latest').losses, [])
})

test('notes where events begin on the very first start, and not where all is read', () => {
  const begins = (to: number, partition: number) => ({
    topicId: 'id-1',
    partition,
    to,
    cause: 'start',
    seen: [],
  })
  const starts = (groupHasCommits: boolean, reset: 'latest' | 'earliest') =>
    startPositions([TRADES, GAPS], [], groupHasCommits, reset).losses
  assert.deepEqual(starts(false, 'latest'), [begins(900, 0), begins(50, 1)])
  assert.deepEqual(starts(false, 'earliest'), [begins(100, 0), begins(0, 1)])
  assert.deepEqual(starts(true, 'latest'), [begins(100, 0), begins(0, 1)])
})
