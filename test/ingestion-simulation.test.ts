import assert from 'node:assert/strict'
import { test } from 'node:test'
import { violations } from './simulation/guarantees.ts'
import { World, type WorldOptions } from './simulation/world.ts'

/** An hour with a fault every few minutes, over a busy symbol and one that trades every ten minutes. */
const HOUR: Omit<WorldOptions, 'seed'> = {
  virtualMs: 3_600_000,
  symbols: { BTCUSDT: 1500, RAREUSDT: 600_000 },
  cutEveryMs: 300_000,
  rolloverEveryMs: 400_000,
  crashEveryMs: 600_000,
  brokerOutageEveryMs: 500_000,
  dropEveryMs: 200_000,
  restFailureShare: 0.2,
}

const BUDGET_MS = Number(process.env['TAPELINE_SIMULATION_MS'] ?? 60_000)
const FIRST_SEED = Number(process.env['TAPELINE_SIMULATION_SEED'] ?? 1)

test('keeps every guarantee through cuts, rollovers, lost frames, brokers away and crashes, whatever the seed', async (context) => {
  const startedMs = performance.now()
  let seeds = 0
  let events = 0
  const faults: Record<string, number> = {}
  for (let seed = FIRST_SEED; performance.now() - startedMs < BUDGET_MS; seed++) {
    const world = new World({ ...HOUR, seed })
    await world.run()
    assert.deepEqual(
      violations(world),
      [],
      `seed ${seed}: TAPELINE_SIMULATION_SEED=${seed} npm test -- simulation`,
    )
    seeds++
    events += world.truth.length
    for (const [fault, count] of Object.entries(world.faults)) faults[fault] = (faults[fault] ?? 0) + count
  }
  context.diagnostic(
    `${seeds} seeds, ${events} events, ${seeds} virtual hours, faults: ${JSON.stringify(faults)}`,
  )
})

for (const [kind, expected] of [
  ['lose', /^G1|^G6/],
  ['double', /^G3/],
  ['lose gap', /^G1|^G2/],
] as const) {
  test(`finds a planted defect: Kafka that would ${kind} a message`, async () => {
    const found: string[] = []
    for (let seed = 1; seed <= 5 && found.length === 0; seed++) {
      const world = new World({ ...HOUR, seed, planted: { kind, oneIn: kind === 'lose gap' ? 2 : 100 } })
      await world.run()
      found.push(...violations(world).filter((violation) => expected.test(violation)))
    }
    assert.ok(found.length > 0)
  })
}
