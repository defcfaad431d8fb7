import assert from 'node:assert/strict'
import { test } from 'node:test'
import { violations } from './simulation/guarantees.ts'
import { World, type WorldOptions } from './simulation/world.ts'

/** A day with a fault every quarter of an hour, in a storm, over two busy symbols and one that trades every ten minutes. */
const DAY: Omit<WorldOptions, 'seed'> = {
  virtualMs: 24 * 3_600_000,
  symbols: { BTCUSDT: 8000, ETHUSDT: 9000, RAREUSDT: 600_000 },
  faultEveryMs: 900_000,
  stormOccurrences: 300,
}

const BUDGET_MS = Number(process.env['TAPELINE_SIMULATION_MS'] ?? 120_000)
const FIRST_SEED = Number(process.env['TAPELINE_SIMULATION_SEED'] ?? 1)

test('keeps every guarantee through a day of faults and crashes, whatever the seed', async (context) => {
  const startedMs = performance.now()
  const total = { seeds: 0, events: 0, rollovers: 0, backfilled: 0 }
  const faults: Record<string, number> = {}
  for (let seed = FIRST_SEED; performance.now() - startedMs < BUDGET_MS; seed++) {
    const world = new World({ ...DAY, seed })
    await world.run()
    const found = violations(world)
    assert.deepEqual(found, [], `TAPELINE_SIMULATION_SEED=${seed} npm test -- simulation`)
    total.seeds++
    total.events += world.market.events
    total.rollovers += world.rollovers
    total.backfilled += world.backfilled
    for (const [fault, count] of Object.entries(world.faults)) faults[fault] = (faults[fault] ?? 0) + count
  }
  const struck = Object.values(faults).reduce((sum, count) => sum + count, 0)
  context.diagnostic(
    `${total.seeds} seeds, ${total.events} events, ${struck} faults, ${total.seeds * 24} virtual hours, ${total.rollovers} rollovers, ${total.backfilled} backfilled; ${JSON.stringify(faults)}`,
  )
})
