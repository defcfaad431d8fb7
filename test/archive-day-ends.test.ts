import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { DayEnds } from '../src/archive/day-ends.ts'
import { CommitChain } from '../src/foundation/archive/commit-chain.ts'
import { createDayList } from '../src/foundation/archive/day-list.ts'
import { openFolderStore } from '../src/foundation/archive/folder-store.ts'
import { TOPIC_ID } from './support/records.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS
const [DATE, NEXT] = ['2024-08-09', '2024-08-10']
const MIDNIGHT_MS = Date.parse(NEXT)
/** When the first rows of a day were committed. */
const [LIVE_MS, IMPORTED_MS] = [MIDNIGHT_MS - DAY_MS, MIDNIGHT_MS + 10 * HOUR_MS]
const [TRADES, QUOTES] = ['trades', 'quotes'].map((topic) => ({ topic, topicId: TOPIC_ID, partition: 0 }))

/** An archive of two partitions: `archived` sets how far a chain is, `ends` how far Kafka is. */
async function parts(context: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-day-ends-'))
  context.after(() => rmSync(folder, { recursive: true }))
  const store = openFolderStore(folder)
  await store.prepare()
  const all = {
    nowMs: MIDNIGHT_MS,
    ends: [TRADES, QUOTES].flatMap((one) => (one === undefined ? [] : [{ ...one, end: 0 }])),
    readings: 0,
    async archived(topic: string, nextOffset: number) {
      const chain = new CommitChain(store, { topic, topicId: TOPIC_ID, partition: 0 })
      const { nextOffset: firstOffset } =
        (await chain.head()) ?? (await chain.begin({ firstOffset: 0, at: 0 }))
      const record = { firstOffset, nextOffset, leaderEpoch: -1, lost: 0, committedAt: 0, files: [] }
      assert.ok(await chain.commit(1, { segment: randomUUID(), ...record }))
    },
    produced(topic: string, end: number): void {
      all.ends = all.ends.map((one) => (one.topic === topic ? { ...one, end } : one))
    },
  }
  const readEnds = async () => {
    all.readings++
    return all.ends
  }
  const days = new DayEnds(store, readEnds, { wallMicros: () => all.nowMs * 1000 })
  return Object.assign(all, { days, store })
}

test('a day is over when every chain has reached what Kafka had ten minutes after it', async (context) => {
  const all = await parts(context)
  const isOver = () => all.days.isOver(DATE, NEXT, LIVE_MS, MIDNIGHT_MS)
  all.produced('trades', 5)
  all.produced('quotes', 3)
  all.nowMs = MIDNIGHT_MS + 9 * MINUTE_MS
  assert.equal(await isOver(), false)
  assert.equal(all.readings, 0)
  all.nowMs = MIDNIGHT_MS + 10 * MINUTE_MS
  assert.equal(await isOver(), false)
  await all.archived('trades', 5)
  assert.equal(await isOver(), false, 'not the quotes')
  await all.archived('quotes', 2)
  assert.equal(await isOver(), false)
  all.produced('trades', 50)
  await all.archived('quotes', 4)
  assert.equal(await isOver(), true, 'later messages do not count')
  assert.equal(all.readings, 1)
})

test('without rows of a later day, a day waits for a second one: the clock may be wrong', async (context) => {
  const all = await parts(context)
  all.nowMs = MIDNIGHT_MS + DAY_MS
  assert.equal(await all.days.isOver(DATE, DATE, LIVE_MS, MIDNIGHT_MS), false)
  all.nowMs += 10 * MINUTE_MS
  assert.equal(await all.days.isOver(DATE, DATE, LIVE_MS, MIDNIGHT_MS), true)
})

test('an old day that is being imported waits for all messages that Kafka has after its last rows', async (context) => {
  const all = await parts(context)
  all.nowMs = MIDNIGHT_MS + 10 * HOUR_MS
  assert.equal(await all.days.isOver(DATE, NEXT, LIVE_MS, MIDNIGHT_MS), true)
  all.nowMs += HOUR_MS
  all.produced('trades', 1000)
  await all.archived('trades', 600)
  const committedAt = all.nowMs
  all.nowMs += 9 * MINUTE_MS
  assert.equal(
    await all.days.isOver('2020-01-01', NEXT, IMPORTED_MS, committedAt),
    false,
    'it may be downloading',
  )
  assert.equal(all.readings, 1)
  all.nowMs += MINUTE_MS
  assert.equal(await all.days.isOver('2020-01-01', NEXT, IMPORTED_MS, committedAt), false, 'half of it')
  assert.equal(await all.days.isOver(DATE, NEXT, LIVE_MS, MIDNIGHT_MS), true, 'it does not delay another day')
  await all.archived('trades', 1000)
  all.nowMs += HOUR_MS
  all.produced('trades', 1100)
  const later = all.nowMs - 10 * MINUTE_MS
  assert.equal(await all.days.isOver('2020-01-01', NEXT, IMPORTED_MS, later), false, 'more rows were added')
  assert.equal(
    await all.days.isOver('2020-01-02', NEXT, IMPORTED_MS, committedAt),
    true,
    'nothing more was added',
  )
  await all.archived('trades', 1100)
  assert.equal(await all.days.isOver('2020-01-01', NEXT, IMPORTED_MS, later), true)
})

test('late rows of a recorded day do not delay it', async (context) => {
  const all = await parts(context)
  all.nowMs = MIDNIGHT_MS + 10 * MINUTE_MS
  all.produced('trades', 5)
  assert.equal(await all.days.isOver(DATE, NEXT, LIVE_MS, all.nowMs), false)
  await all.archived('trades', 5)
  all.nowMs += MINUTE_MS
  all.produced('trades', 9)
  assert.equal(await all.days.isOver(DATE, NEXT, LIVE_MS, all.nowMs), true)
})

test('a record of a later time, from a wrong clock, delays no day', async (context) => {
  const all = await parts(context)
  all.nowMs = MIDNIGHT_MS + HOUR_MS
  all.produced('trades', 10)
  await all.archived('trades', 10)
  const committedAt = all.nowMs + 365 * DAY_MS
  assert.equal(await all.days.isOver(DATE, NEXT, IMPORTED_MS, committedAt), true)
})

test('a reading of a clock that was ahead says nothing about a day that was not over then', async (context) => {
  const all = await parts(context)
  all.nowMs = MIDNIGHT_MS + 3 * DAY_MS
  all.produced('trades', 5)
  await all.archived('trades', 5)
  assert.equal(await all.days.isOver('2024-08-08', DATE, LIVE_MS, MIDNIGHT_MS), true)
  all.nowMs = MIDNIGHT_MS + 10 * MINUTE_MS
  all.produced('trades', 9)
  const isOver = () => all.days.isOver(DATE, NEXT, LIVE_MS, MIDNIGHT_MS)
  assert.equal(await isOver(), false, 'four messages are not archived')
  await all.archived('trades', 9)
  assert.equal(await isOver(), true)
})

test('a chain of a topic that was deleted is not waited for', async (context) => {
  const all = await parts(context)
  all.nowMs = MIDNIGHT_MS + 10 * MINUTE_MS
  const isOver = () => all.days.isOver(DATE, NEXT, LIVE_MS, MIDNIGHT_MS)
  all.produced('trades', 10)
  assert.equal(await isOver(), false)
  all.ends = all.ends.filter(({ topic }) => topic !== 'trades')
  assert.equal(await isOver(), false)
  all.nowMs += HOUR_MS
  assert.equal(await isOver(), true)
})

test('a day is tried again once it is over, and as soon as the chains have reached the ends', async (context) => {
  const all = await parts(context)
  const isOver = () => all.days.isOver(DATE, DATE, LIVE_MS, MIDNIGHT_MS - MINUTE_MS)
  all.nowMs = MIDNIGHT_MS - HOUR_MS
  assert.equal(await isOver(), false)
  all.nowMs = MIDNIGHT_MS + 9 * MINUTE_MS
  assert.equal(await all.days.mayBeOver(), false)
  all.nowMs += MINUTE_MS
  assert.equal(await all.days.mayBeOver(), true, 'ten minutes after midnight')
  assert.equal(await all.days.mayBeOver(), false, 'once')
  all.produced('trades', 5)
  assert.equal(await all.days.isOver(DATE, NEXT, LIVE_MS, MIDNIGHT_MS - MINUTE_MS), false)
  assert.equal(await all.days.mayBeOver(), false)
  await all.archived('trades', 5)
  assert.equal(await all.days.mayBeOver(), true)
  assert.equal(await all.days.mayBeOver(), false, 'once')
  assert.equal(await all.days.isOver(DATE, NEXT, LIVE_MS, MIDNIGHT_MS - MINUTE_MS), true)
})

test('a day that was not there before is tried ten minutes after its rows, and a published one is not', async (context) => {
  const all = await parts(context)
  all.nowMs = MIDNIGHT_MS + HOUR_MS
  const file = { table: 'raw_trades', key: '', rows: 1, bytes: 1, sha256: '', days: { '2020-01-01': 1 } }
  all.days.committed([file, { ...file, days: { [NEXT]: 1 } }])
  assert.equal(await all.days.mayBeOver(), false)
  all.nowMs += 10 * MINUTE_MS
  assert.equal(await all.days.mayBeOver(), true)
  const list = {
    table: 'raw_trades',
    date: '2020-01-01',
    number: 1,
    publishedAt: 0,
    files: [],
    conflicts: [],
  }
  const manifest = { symbols: {}, missing: [], verdict: 'complete' as const, through: {}, duplicates: 0 }
  assert.ok(await createDayList(all.store, { ...list, ...manifest }))
  all.days.committed([file])
  assert.equal(await all.days.mayBeOver(), false)
  all.nowMs += 20 * MINUTE_MS
  assert.equal(await all.days.mayBeOver(), false, 'late rows wait for the hourly compaction')
})
