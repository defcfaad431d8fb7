import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CLOCK_LIMITS } from '../src/ingestion/messages/receipt-clock.ts'
import { violations } from './simulation/guarantees.ts'
import { World, type WorldOptions } from './simulation/world.ts'

type Circumstances = Omit<WorldOptions, 'seed'>

const CIRCUMSTANCES = {
  /** A day with a fault every half hour, each in a storm; two busy symbols and one that trades every ten minutes. */
  day: {
    virtualMs: 24 * 3_600_000,
    symbols: { BTCUSDT: 8000, ETHUSDT: 9000, RAREUSDT: 600_000 },
    faultEveryMs: 1_500_000,
    stormOccurrences: 200,
  },
  /** Half an hour with a fault every twelve seconds: faults meet faults that are not healed. */
  rough: {
    virtualMs: 1_800_000,
    symbols: { BTCUSDT: 1000, ETHUSDT: 3000, RAREUSDT: 600_000 },
    faultEveryMs: 12_000,
    stormOccurrences: 30,
  },
  /** The same, and the Kafka cluster has faults, too. */
  cluster: {
    virtualMs: 1_800_000,
    symbols: { BTCUSDT: 1000, ETHUSDT: 3000, RAREUSDT: 600_000 },
    faultEveryMs: 12_000,
    stormOccurrences: 30,
    clusterFaults: true,
  },
  /** A day, likewise. */
  'cluster day': {
    virtualMs: 24 * 3_600_000,
    symbols: { BTCUSDT: 8000, ETHUSDT: 9000, RAREUSDT: 600_000 },
    faultEveryMs: 1_500_000,
    stormOccurrences: 200,
    clusterFaults: true,
  },
} satisfies Record<string, Circumstances>

/** Seeds that once found a defect. */
const KEPT: ReadonlyArray<readonly [keyof typeof CIRCUMSTANCES, number]> = [
  ['rough', 1],
  ['rough', 2],
  ['rough', 3],
  ['rough', 15],
  ['rough', 19],
  ['rough', 5],
  ['rough', 20],
  ['rough', 77],
  ['rough', 73],
  ['rough', 82],
  ['rough', 151],
  ['rough', 311],
  ['day', 3],
  ['day', 319],
  ['cluster', 1],
  ['cluster', 4],
  ['cluster', 12],
  ['cluster', 30],
  ['cluster', 20],
  ['cluster', 54],
  ['cluster', 57],
  ['cluster', 47],
  ['cluster', 81],
  ['cluster', 97],
  ['cluster', 45],
  ['cluster', 25],
  ['cluster', 50],
  ['cluster', 151],
  ['cluster', 153],
  ['cluster', 204],
  ['cluster', 309],
  ['cluster', 66],
  ['cluster', 94],
  ['cluster', 129],
  ['cluster', 3016],
  ['cluster day', 1],
]

/** The defect, and the check that shows it. The first seeds that do are enough. */
const DEFECTS: ReadonlyArray<readonly [NonNullable<WorldOptions['defect']>, RegExp]> = [
  ['the sender asks for leaders once', /^K3/],
  ['a repeated batch has other sequence numbers', /^G3/],
  ['acknowledged partitions are sent again', /^K2/],
  ['acknowledges before the replicas have it', /^K1/],
  ["the client's own producer", /^K3/],
]

const BUDGET_MS = Number(process.env['TAPELINE_SIMULATION_MS'] ?? 120_000)
const FIRST_SEED = Number(process.env['TAPELINE_SIMULATION_SEED'] ?? 1)
const LAST_SEED = Number(process.env['TAPELINE_SIMULATION_LAST_SEED'] ?? Number.POSITIVE_INFINITY)

async function live(name: keyof typeof CIRCUMSTANCES, seed: number): Promise<World> {
  const world = new World({ ...CIRCUMSTANCES[name], seed })
  await world.run()
  assert.deepEqual(violations(world), [], `${name} ${seed}`)
  return world
}

/** Those that are drawn from, and their share of the time. */
const DRAWN: ReadonlyArray<readonly [keyof typeof CIRCUMSTANCES, number]> = [
  ['day', 0.35],
  ['rough', 0.15],
  ['cluster day', 0.35],
  ['cluster', 0.15],
]

/** As many seeds as fit into the time. */
async function liveMany(name: keyof typeof CIRCUMSTANCES, budgetMs: number): Promise<string> {
  const startedMs = performance.now()
  const total = { events: 0, rollovers: 0, backfilled: 0 }
  const fewest = {
    events: Number.POSITIVE_INFINITY,
    rollovers: Number.POSITIVE_INFINITY,
    faults: Number.POSITIVE_INFINITY,
  }
  const faults: Record<string, number> = {}
  let seed = FIRST_SEED
  for (; performance.now() - startedMs < budgetMs && seed <= LAST_SEED; seed++) {
    const world = await live(name, seed)
    if (name.endsWith('day')) assert.ok(world.rollovers > 0, `${name} ${seed} has no rollover`)
    total.events += world.market.events
    total.rollovers += world.rollovers
    total.backfilled += world.backfilled
    for (const [fault, count] of Object.entries(world.faults)) faults[fault] = (faults[fault] ?? 0) + count
    fewest.events = Math.min(fewest.events, world.market.events)
    fewest.rollovers = Math.min(fewest.rollovers, world.rollovers)
    fewest.faults = Math.min(fewest.faults, sum(world.faults))
  }
  const seeds = seed - FIRST_SEED
  const hours = (seeds * CIRCUMSTANCES[name].virtualMs) / 3_600_000
  return [
    `${name}: ${seeds} seeds from ${FIRST_SEED} on, ${hours} virtual hours, ${total.events} events, ${sum(faults)} faults,`,
    `${total.rollovers} rollovers, ${total.backfilled} ids backfilled;`,
    `a seed has at least ${fewest.events} events, ${fewest.faults} faults, ${fewest.rollovers} rollovers; ${JSON.stringify(faults)}`,
  ].join(' ')
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((all, count) => all + count, 0)
}

for (const [name, share] of DRAWN) {
  test(`keeps every guarantee through what one seed draws: ${name}`, async (context) => {
    context.diagnostic(await liveMany(name, share * BUDGET_MS))
  })
}

for (const [name, seed] of KEPT) {
  test(`keeps every guarantee where it once did not: ${name} ${seed}`, async () => {
    await live(name, seed)
  })
}

test('the same seed gives the same run, to the byte', async () => {
  const [first, second] = [await live('rough', 77), await live('rough', 77)]
  assert.equal(first.digest, second.digest)
  assert.ok(first.stored.count > 10_000)
})

for (const [kind, expected] of [
  ['lose', /^G1|^G6/],
  ['double', /^G3/],
  ['lose gap', /^G1|^G2/],
] as const) {
  test(`finds a planted defect: Kafka that would ${kind} a message`, async () => {
    const found: string[] = []
    for (let seed = 1; seed <= 5 && found.length === 0; seed++) {
      const planted = { kind, oneIn: kind === 'lose gap' ? 2 : 100 }
      const world = new World({ ...CIRCUMSTANCES.rough, seed, planted })
      await world.run()
      found.push(...violations(world).filter((violation) => expected.test(violation)))
    }
    assert.ok(found.length > 0)
  })
}

for (const [what, clockLimits, expected] of [
  ['a step of the clock', { ...CLOCK_LIMITS, stepMs: Number.POSITIVE_INFINITY }, /^P3/],
  ['a process that stood still', { ...CLOCK_LIMITS, freezeMs: Number.POSITIVE_INFINITY }, /^P3/],
] as const) {
  test(`finds a planted defect: ingestion that would not notice ${what}`, async () => {
    const found: string[] = []
    for (let seed = 1; seed <= 5 && found.length === 0; seed++) {
      const world = new World({ ...CIRCUMSTANCES.rough, seed, clockLimits })
      await world.run()
      found.push(...violations(world).filter((violation) => expected.test(violation)))
    }
    assert.ok(found.length > 0)
  })
}

for (const [defect, expected] of DEFECTS) {
  test(`finds a planted defect of the sender or the brokers: ${defect}`, async () => {
    const found: string[] = []
    for (let seed = 1; seed <= 8 && found.length === 0; seed++) {
      const world = new World({ ...CIRCUMSTANCES.cluster, seed, defect })
      await world.run()
      found.push(...violations(world).filter((violation) => expected.test(violation)))
    }
    assert.ok(found.length > 0)
  })
}
