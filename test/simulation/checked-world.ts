import assert from 'node:assert/strict'
import { CIRCUMSTANCES, type Circumstance } from './circumstances.ts'
import { violations } from './guarantees.ts'
import { World, type WorldOptions } from './world.ts'

/** Runs a world to its end, which must keep every guarantee. */
export async function checkedWorld(
  name: Circumstance,
  seed: number,
  options: Partial<WorldOptions> = {},
): Promise<World> {
  const world = new World({ ...CIRCUMSTANCES[name], seed, ...options })
  await world.run()
  assert.deepEqual(await violations(world), [], `${name} ${seed}`)
  return world
}
