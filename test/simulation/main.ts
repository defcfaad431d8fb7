/**
 * `npm run simulation`: runs this many seeds of the deterministic simulations. Exit code 0 when
 * every guarantee held, 1 when not, 2 for a wrong command line. `npm test` runs fixed seeds.
 */
import { Argument, Command, Option } from 'commander'
import { World as ArchiveWorld } from '../archive-simulation/world.ts'
import { violations as consumerViolations } from '../consumer-simulation/guarantees.ts'
import { World as ConsumerWorld } from '../consumer-simulation/world.ts'
import { wholeNumber } from '../support/option-parsers.ts'
import { CIRCUMSTANCES, type Circumstance } from './circumstances.ts'
import { violations } from './guarantees.ts'
import { World } from './world.ts'

const NAMES = [...(Object.keys(CIRCUMSTANCES) as Circumstance[]), 'consumer', 'archive'] as const
const CONSUMER_MS = 20 * 60_000
const ARCHIVE_MS = 6 * 3_600_000

interface Lived {
  readonly found: readonly string[]
  readonly events: number
  readonly faults: Readonly<Record<string, number>>
  /** Rollovers and backfilled ids; empty for the consumer. */
  readonly counts: Readonly<Record<string, number>>
}

async function live(name: (typeof NAMES)[number], seed: number): Promise<Lived> {
  if (name === 'consumer') {
    const world = new ConsumerWorld({ seed, virtualMs: CONSUMER_MS })
    await world.run()
    const faults = { ...world.faults, ...world.database.faults }
    return { found: consumerViolations(world), events: world.messages, faults, counts: {} }
  }
  if (name === 'archive') {
    const world = new ArchiveWorld({ seed, virtualMs: ARCHIVE_MS })
    await world.run()
    const { violations: found, events, published, observations } = world
    const faults = { ...world.faults, ...world.disk.faults }
    return { found, events, faults, counts: { published, observations } }
  }
  const world = new World({ ...CIRCUMSTANCES[name], seed })
  await world.run()
  const { rollovers, backfilled, bookCounts, faults, market } = world
  const found = await violations(world)
  return { found, events: market.events, faults, counts: { rollovers, backfilled, ...bookCounts } }
}

const command = new Command('simulation')
  .description('Run seeds of the deterministic simulations, and check every guarantee.')
  .addArgument(new Argument('<circumstances>', 'which').choices(NAMES))
  .addOption(new Option('--from <seed>', 'first seed').argParser(wholeNumber(1, 1e9)).default(1))
  .addOption(new Option('--seeds <number>', 'how many').argParser(wholeNumber(1, 1e6)).default(20))
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
const name = command.processedArgs[0] as (typeof NAMES)[number]
const { from, seeds } = command.opts<{ from: number; seeds: number }>()

const total = new Map<string, number>()
const add = (what: string, count: number) => total.set(what, (total.get(what) ?? 0) + count)
let bad = 0
for (let seed = from; seed < from + seeds; seed++) {
  const { found, events, faults, counts } = await live(name, seed)
  add('events', events)
  for (const [what, count] of Object.entries({ ...counts, ...faults })) add(what, count)
  if (found.length === 0) continue
  bad++
  console.log(`${name} ${seed}: npm run simulation -- '${name}' --from ${seed} --seeds 1`)
  for (const one of found.slice(0, 10)) console.log(`  ${one}`)
}
console.log(JSON.stringify(Object.fromEntries(total)))
console.log(`${name}: seeds ${from} to ${from + seeds - 1}, ${bad} with violations`)
process.exitCode = bad > 0 ? 1 : 0
