import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mulberry32, Random } from '../src/sandbox/simulator/market/random.ts'
import { MemoryDisk } from './archive-simulation/memory-disk.ts'
import { MemoryTopic } from './archive-simulation/memory-topic.ts'
import { ArchiveProcess } from './archive-simulation/process.ts'
import { type Defect, World } from './archive-simulation/world.ts'
import { MemoryGroup } from './consumer-simulation/memory-group.ts'
import { tradeValue } from './support/records.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const RUN_MS = 6 * 3_600_000

/** One with trades and one with order books. `npm run simulation -- archive` runs others. */
const SEEDS = 2

test('an archive has every row once through crashes, power failures, zombies and lost tails', async (context) => {
  const faults: Record<string, number> = {}
  let [events, published, observations] = [0, 0, 0]
  for (let seed = 1; seed <= SEEDS; seed++) {
    const world = new World({ seed, virtualMs: RUN_MS })
    await world.run()
    assert.deepEqual(
      world.violations.slice(0, 5),
      [],
      `seed ${seed}: npm run simulation -- archive --from ${seed} --seeds 1`,
    )
    events += world.events
    published += world.published
    observations += world.observations
    for (const [fault, count] of Object.entries({ ...world.faults, ...world.disk.faults }))
      faults[fault] = (faults[fault] ?? 0) + count
  }
  assert.ok(published > 0, `${published} publications`)
  context.diagnostic(
    `${events} events, ${published} publications, ${observations} observations, faults: ${JSON.stringify(faults)}`,
  )
})

const DEFECTS: ReadonlyArray<readonly [Defect, RegExp]> = [
  ['syncs do nothing', /^A1|^A4/],
  ['a link replaces a file', /^A/],
  ['a sweep removes what is not published', /^A1|^A4/],
  ['a merge leaves out a row', /^A1/],
  ['a merge keeps repeats', /^A2/],
]

for (const [defect, expected] of DEFECTS) {
  test(`finds a planted defect: ${defect}`, async () => {
    const found: string[] = []
    for (let seed = 1; seed <= 6 && found.length === 0; seed++) {
      const world = new World({ seed, virtualMs: RUN_MS, defect })
      await world.run()
      found.push(...world.violations.filter((violation) => expected.test(violation)))
    }
    assert.ok(found.length > 0)
  })
}

test('an archive is ready again once the end of a chain is written after a failure, without a new message', async () => {
  const clock = new VirtualClock(Date.UTC(2026, 0, 1, 12))
  const random = new Random(1, mulberry32)
  const topic = new MemoryTopic('trades', 1, random)
  const group = new MemoryGroup(clock, random, topic.partitions)
  const disk = new MemoryDisk(random)
  const one = new ArchiveProcess({
    ...{ clock, random, topic, group, disk, engineDefect: null, sweepsAll: false },
    onCommitted: () => {},
    onPublished: () => {},
  })
  for (let id = 1; id <= 3; id++) topic.append(0, tradeValue({ t: id }), [String(id)])
  await clock.advance(300_000)
  topic.truncate(0, 2)
  disk.failing = 1
  await clock.advance(30_000)
  const problem = () => one.archiver?.problem
  assert.match(problem() ?? '', /Ending an incarnation failed/)
  disk.failing = 0
  await clock.advance(60_000)
  assert.equal(problem(), null)
})
