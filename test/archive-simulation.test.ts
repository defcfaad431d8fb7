import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Defect, World } from './archive-simulation/world.ts'

const RUN_MS = 6 * 3_600_000

/** `npm run simulation -- archive` runs other seeds. */
const SEEDS = 1

test('an archive has every row once through crashes, power failures, zombies and lost tails', {
  timeout: 120_000,
}, async (context) => {
  const faults: Record<string, number> = {}
  let [rows, published, observations] = [0, 0, 0]
  for (let seed = 1; seed <= SEEDS; seed++) {
    const world = new World({ seed, virtualMs: RUN_MS })
    await world.run()
    assert.deepEqual(
      world.violations.slice(0, 5),
      [],
      `seed ${seed}: npm run simulation -- archive --from ${seed} --seeds 1`,
    )
    rows += world.rows
    published += world.published
    observations += world.observations
    for (const [fault, count] of Object.entries({ ...world.faults, ...world.disk.faults }))
      faults[fault] = (faults[fault] ?? 0) + count
  }
  assert.ok(published > 0, `${published} publications`)
  context.diagnostic(
    `${rows} rows, ${published} publications, ${observations} observations, faults: ${JSON.stringify(faults)}`,
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
