import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CLOCK_LIMITS } from '../src/ingestion/messages/receipt-clock.ts'
import { checkedWorld } from './simulation/checked-world.ts'
import { CIRCUMSTANCES, type Circumstance } from './simulation/circumstances.ts'
import { violations } from './simulation/guarantees.ts'
import { World, type WorldOptions } from './simulation/world.ts'

/** `npm run simulation` runs other seeds. */
const FIXED_SEED = 6
/** How many seeds may be needed to show a defect, if the worlds have changed. */
const SEEDS = 8

/** The defect, a seed that shows it, and the check that reveals it. */
const DEFECTS: ReadonlyArray<readonly [NonNullable<WorldOptions['defect']>, number, RegExp]> = [
  ['the sender looks up leaders once', 2, /^K3/],
  ['a repeated batch has other sequence numbers', 1, /^G3/],
  ['acknowledged partitions are sent again', 4, /^K2/],
  ['acknowledges before the replicas have it', 1, /^K1/],
]

for (const name of Object.keys(CIRCUMSTANCES) as Circumstance[]) {
  // A day takes some ten seconds of computing; more on a busy machine.
  test(`keeps every guarantee: ${name}`, { timeout: 400_000 }, async (context) => {
    const isDay = name.endsWith('day')
    // With order books a day takes minutes: `npm run simulation` has such days.
    const world = await checkedWorld(name, FIXED_SEED, isDay ? { depth: false } : {})
    const faults = Object.values(world.faults).reduce((sum, count) => sum + count, 0)
    context.diagnostic(`${world.market.events} events, ${faults} faults, ${world.backfilled} ids backfilled`)
    context.diagnostic(JSON.stringify(world.bookCounts))
    assert.ok(faults > 20)
    assert.ok(isDay || (world.bookCounts['books'] ?? 0) > 20)
    assert.ok(world.backfilled > 100 || world.options.isLossless)
    if (isDay || name === 'rollovers') assert.ok(world.rollovers > 0)
  })
}

test('the same seed gives the same run, byte for byte', async () => {
  const [first, second] = [await checkedWorld('rough', 77), await checkedWorld('rough', 77)]
  assert.equal(first.digest, second.digest)
  assert.ok(first.stored.count > 10_000)
})

/** Runs seeds with a planted defect until a check finds it; begins with one that was seen to show it. */
function finds(
  defect: string,
  name: Circumstance,
  shown: number,
  planted: Partial<WorldOptions>,
  expected: RegExp,
): void {
  test(`finds a planted defect: ${defect}`, async () => {
    for (let seed = shown; seed < shown + SEEDS; seed++) {
      const world = new World({ ...CIRCUMSTANCES[name], seed, ...planted })
      await world.run()
      if ((await violations(world)).some((violation) => expected.test(violation))) return
    }
    assert.fail(`none of ${SEEDS} seeds from ${shown} on shows it`)
  })
}

for (const [kind, oneIn, shown, expected] of [
  ['lose', 100, 1, /^G1|^G6/],
  ['lose update', 100, 3, /^G1 .* depth .*neither stored nor in the ledger/],
  ['double', 100, 1, /^G3/],
  ['lose gap', 2, 1, /^G1|^G2/],
] as const)
  finds(`Kafka that can ${kind} a message`, 'rough', shown, { planted: { kind, oneIn } }, expected)

for (const [what, limit, shown] of [
  ['a step of the clock', 'stepMs', 1],
  ['a paused process', 'freezeMs', 5],
] as const) {
  const clockLimits = { ...CLOCK_LIMITS, [limit]: Number.POSITIVE_INFINITY }
  finds(`ingestion that does not detect ${what}`, 'rough', shown, { clockLimits }, /^P3/)
}

for (const [defect, shown, expected] of DEFECTS)
  finds(`of the sender or the brokers: ${defect}`, 'cluster', shown, { defect }, expected)
