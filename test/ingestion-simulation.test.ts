import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CLOCK_LIMITS } from '../src/ingestion/messages/receipt-clock.ts'
import { CIRCUMSTANCES, type Circumstance } from './simulation/circumstances.ts'
import { violations } from './simulation/guarantees.ts'
import { World, type WorldOptions } from './simulation/world.ts'

/** `npm run simulation` runs other seeds. */
const FIXED_SEED = 6

/** Seeds that once revealed a defect, in worlds without order books. */
const KEPT = {
  rough: [1, 2, 3, 15, 19, 5, 20, 77, 73, 82, 151, 311, 5015, 5026],
  cluster: [
    1, 4, 12, 30, 20, 54, 57, 47, 81, 97, 45, 25, 50, 151, 153, 204, 309, 66, 94, 129, 3016, 3017, 5043, 5056,
  ],
} as const

/** Seeds that once revealed a defect of order books. */
const KEPT_BOOKS = [
  ['rough', 105],
  ['cluster', 3],
  ['cluster', 24],
  ['cluster', 186],
] as const

/** The defect, and the check that reveals it within the first seeds. */
const DEFECTS: ReadonlyArray<readonly [NonNullable<WorldOptions['defect']>, RegExp]> = [
  ['the sender looks up leaders once', /^K3/],
  ['a repeated batch has other sequence numbers', /^G3/],
  ['acknowledged partitions are sent again', /^K2/],
  ['acknowledges before the replicas have it', /^K1/],
]

async function live(name: Circumstance, seed: number, options: Partial<WorldOptions> = {}): Promise<World> {
  const world = new World({ ...CIRCUMSTANCES[name], seed, ...options })
  await world.run()
  assert.deepEqual(await violations(world), [], `${name} ${seed}`)
  return world
}

for (const name of Object.keys(CIRCUMSTANCES) as Circumstance[]) {
  // A day takes some ten seconds of computing; more on a busy machine.
  test(`keeps every guarantee: ${name}`, { timeout: 400_000 }, async (context) => {
    const isDay = name.endsWith('day')
    // With order books a day takes minutes: `npm run simulation` has such days.
    const world = await live(name, FIXED_SEED, isDay ? { depth: false } : {})
    const faults = Object.values(world.faults).reduce((sum, count) => sum + count, 0)
    context.diagnostic(`${world.market.events} events, ${faults} faults, ${world.backfilled} ids backfilled`)
    context.diagnostic(JSON.stringify(world.bookCounts))
    assert.ok(faults > 20)
    assert.ok(isDay || (world.bookCounts['books'] ?? 0) > 20)
    assert.ok(world.backfilled > 100 || world.options.isLossless)
    if (isDay || name === 'rollovers') assert.ok(world.rollovers > 0)
  })
}

for (const name of ['rough', 'cluster'] as const) {
  for (const seed of KEPT[name]) {
    test(`keeps every guarantee with a seed that once failed: ${name} ${seed}`, async () => {
      await live(name, seed, { depth: false })
    })
  }
}

for (const [name, seed] of KEPT_BOOKS) {
  test(`keeps every guarantee of order books with a seed that once failed: ${name} ${seed}`, async () => {
    await live(name, seed)
  })
}

test('the same seed gives the same run, byte for byte', async () => {
  const [first, second] = [await live('rough', 77), await live('rough', 77)]
  assert.equal(first.digest, second.digest)
  assert.ok(first.stored.count > 10_000)
})

/** Runs seeds with a planted defect until a check finds it. */
function finds(
  defect: string,
  name: Circumstance,
  seeds: number,
  planted: Partial<WorldOptions>,
  expected: RegExp,
): void {
  test(`finds a planted defect: ${defect}`, async () => {
    for (let seed = 1; seed <= seeds; seed++) {
      const world = new World({ ...CIRCUMSTANCES[name], seed, ...planted })
      await world.run()
      if ((await violations(world)).some((violation) => expected.test(violation))) return
    }
    assert.fail(`no seed up to ${seeds} shows it`)
  })
}

for (const [kind, oneIn, expected] of [
  ['lose', 100, /^G1|^G6/],
  ['lose update', 100, /^G1 .* depth .*neither stored nor in the ledger/],
  ['double', 100, /^G3/],
  ['lose gap', 2, /^G1|^G2/],
] as const)
  finds(`Kafka that can ${kind} a message`, 'rough', 5, { planted: { kind, oneIn } }, expected)

for (const [what, limit] of [
  ['a step of the clock', 'stepMs'],
  ['a paused process', 'freezeMs'],
] as const) {
  const clockLimits = { ...CLOCK_LIMITS, [limit]: Number.POSITIVE_INFINITY }
  finds(`ingestion that does not detect ${what}`, 'rough', 5, { clockLimits }, /^P3/)
}

for (const [defect, expected] of DEFECTS)
  finds(`of the sender or the brokers: ${defect}`, 'cluster', 8, { defect }, expected)
