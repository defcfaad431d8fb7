import assert from 'node:assert/strict'
import { test } from 'node:test'
import { violations } from './consumer-simulation/guarantees.ts'
import { World, type WorldOptions } from './consumer-simulation/world.ts'

const RUN_MS = 20 * 60_000

/** `npm run simulation -- consumer` runs other seeds. */
const SEEDS = 10

test('keeps every guarantee through crashes, rebalances, database faults and retention, for every seed', {
  // Half a minute of computing; more on a busy machine.
  timeout: 400_000,
}, async (context) => {
  let messages = 0
  const faults: Record<string, number> = {}
  for (let seed = 1; seed <= SEEDS; seed++) {
    const world = new World({ seed, virtualMs: RUN_MS })
    await world.run()
    assert.deepEqual(
      violations(world).slice(0, 10),
      [],
      `seed ${seed}: npm run simulation -- consumer --from ${seed} --seeds 1`,
    )
    messages += world.messages
    for (const [fault, count] of Object.entries({ ...world.faults, ...world.database.faults }))
      faults[fault] = (faults[fault] ?? 0) + count
    faults['refused commit'] = (faults['refused commit'] ?? 0) + world.group.refusedCommits.count
  }
  context.diagnostic(`${SEEDS} seeds, ${messages} messages, faults: ${JSON.stringify(faults)}`)
})

const DEFECTS: ReadonlyArray<readonly [NonNullable<WorldOptions['defect']>, RegExp]> = [
  ['offsets before rows', /^P5|^C1/],
  ['a row left out', /^P5|^C1/],
  ['a good row set aside', /^C1.*is good, but a dead letter/],
  ['a bad row stops everything', /^F5/],
  ['sessions stay read-only', /^C1/],
  ['members that claim everything', /^G4/],
]

for (const [defect, expected] of DEFECTS) {
  test(`finds a planted defect: ${defect}`, async () => {
    const found: string[] = []
    for (let seed = 1; seed <= 5 && found.length === 0; seed++) {
      const world = new World({ seed, virtualMs: 5 * 60_000, defect })
      await world.run()
      found.push(...violations(world).filter((violation) => expected.test(violation)))
    }
    assert.ok(found.length > 0)
  })
}
