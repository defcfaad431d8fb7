import assert from 'node:assert/strict'
import { test } from 'node:test'
import { duckDbCompaction } from '../src/archive/day-merge.ts'
import { Publishing } from '../src/archive/publishing.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { record, tradeValue } from './support/records.ts'

const DAY_MS = 86_400_000
const SECOND_DAY = '2024-08-10'

function trade(id: number, afterMs: number) {
  return record(tradeValue({ t: id, T: MIDNIGHT_MS + afterMs, E: MIDNIGHT_MS + afterMs }))
}

test('a day that cannot be published keeps no other from being reported, and no file from being removed', async () => {
  await using archive = await createArchive()
  await archive.add('trades', [trade(1, 0)])
  await archive.add('trades', [trade(2, DAY_MS)])
  const clock = systemClock()
  const compaction = duckDbCompaction(archive.store, archive.duckDb, clock)
  let isPlanted = true
  const published: string[] = []
  const removed: number[] = []
  let announced = 0
  const publishing = new Publishing({
    compaction: {
      ...compaction,
      merge: async (day) => {
        if (isPlanted && day.date === SECOND_DAY) throw new Error('planted')
        return compaction.merge(day)
      },
    },
    isOver: () => true,
    announcer: {
      readEnds: async () => ({ at: 0, ends: {} }),
      announce: async () => {
        announced++
      },
    },
    ...{ clock, graceMs: 0 },
    onPublished: ({ date }) => published.push(date),
    onRemoved: (files) => removed.push(files),
  })
  const run = () => publishing.run(new AbortController().signal)
  const planted = { errors: [new Error('planted')] }
  await assert.rejects(run(), planted)
  assert.deepEqual(published, ['2024-08-09'])
  await assert.rejects(run(), planted)
  assert.deepEqual(removed, [1], 'the segment of the published day')
  assert.equal(announced, 0, 'an announcement says that all days before it are published')
  isPlanted = false
  await run()
  assert.deepEqual([published, announced], [['2024-08-09', SECOND_DAY], 1])
})
