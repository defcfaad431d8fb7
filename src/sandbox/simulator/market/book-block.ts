import type { MarketBlock } from './market-block.ts'
import { BLOCK_MS } from './market-plan.ts'
import { hash32, Random } from './random.ts'
import { FARTHEST_LEVEL, RestingLevels, TYPICAL_LEVEL } from './resting-levels.ts'
import { firstIndex } from './trade-history.ts'

/**
 * The changes of one symbol's order book in one minute, apart from its best prices, which the quotes determine.
 * In the order of their update ids, as columns.
 */
export interface BookBlock {
  /** Update id of the change, counted from the first of the block. */
  readonly updateOffset: Int32Array
  readonly ticks: Int32Array
  /** The quantity from then on, in steps; 0 when there is none. */
  readonly steps: Int32Array
}

const CUT_MS = 100
/** Changes per 100 ms; half of them are orders that are cancelled later. Real diffs have 36 levels. */
const FEWEST_CHANGES = 2
const MOST_CHANGES = 26
const NEW_ORDER_SHARE = 0.5
const REMOVED_SHARE = 0.3
/** Typical distance from the best price, relative to the price, and at least in ticks. */
const TYPICAL_DISTANCE = 0.00003
const TYPICAL_DISTANCE_TICKS = 8

/** The newest update id at the end of a millisecond, counted from the first of the block. */
export function updateOffsetAt({ quotes, plan }: MarketBlock, ms: number): number {
  const end = plan.updateIdsPerBlock
  if (ms >= BLOCK_MS - 1) return end - 1
  const count = quotes.eventMs.length
  const next = quoteAfter(quotes, ms)
  const fromOffset = next === 0 ? 0 : (quotes.updateOffset[next - 1] ?? 0)
  const fromMs = next === 0 ? -1 : (quotes.eventMs[next - 1] ?? 0)
  const toOffset = next === count ? end : (quotes.updateOffset[next] ?? 0)
  const spanMs = (next === count ? BLOCK_MS : (quotes.eventMs[next] ?? 0)) - 1 - fromMs
  // The ids between two quotes are evenly distributed over the time between them.
  return spanMs === 0
    ? fromOffset
    : fromOffset + Math.floor(((toOffset - 1 - fromOffset) * (ms - fromMs)) / spanMs)
}

/** The index of the first quote after a millisecond. */
function quoteAfter({ eventMs }: MarketBlock['quotes'], ms: number): number {
  return firstIndex(0, eventMs.length, (index) => (eventMs[index] ?? 0) > ms)
}

/**
 * Creates the changes of a minute. They lead from its resting levels to those of the next one: the last change of
 * each price sets the quantity with which the next minute begins.
 */
export function makeBookBlock(block: MarketBlock): BookBlock {
  const { plan, quotes } = block
  const random = new Random(hash32('book', plan.seed, plan.instrument.symbol, block.block))
  const levels = new RestingLevels(plan, block.block)
  const next = new RestingLevels(plan, block.block + 1)
  const changes = new Changes()
  levels.visitChanges(next, (ticks) => {
    changes.add(random.next() * BLOCK_MS, ticks, next.stepsAt(ticks))
  })
  const typicalSteps = plan.instrument.typicalSteps * TYPICAL_LEVEL
  const typicalDistance = Math.max(TYPICAL_DISTANCE_TICKS, plan.instrument.referenceTicks * TYPICAL_DISTANCE)
  const farthest = plan.instrument.referenceTicks * FARTHEST_LEVEL
  const drawSteps = () => Math.max(1, Math.round(typicalSteps * Math.min(20, random.interval())))
  let before = -1
  for (let fromMs = 0; fromMs < BLOCK_MS; fromMs += CUT_MS) {
    const offset = updateOffsetAt(block, fromMs + CUT_MS - 1)
    if (offset === before) continue
    before = offset
    const quote = Math.max(0, quoteAfter(quotes, fromMs) - 1)
    const [bid, ask] = [quotes.bidTicks[quote] ?? 0, quotes.askTicks[quote] ?? 0]
    for (let left = random.whole(FEWEST_CHANGES, MOST_CHANGES); left > 0; left--) {
      const atMs = fromMs + random.next() * CUT_MS
      const distance = Math.floor(Math.min(farthest, typicalDistance * (random.pareto(1) - 1)))
      const ticks = random.chance(0.5) ? bid - 1 - distance : ask + 1 + distance
      if (ticks < 1) continue
      const resting = levels.near(ticks)
      if (resting === 0 || random.chance(NEW_ORDER_SHARE)) {
        // Most orders are short-lived.
        const untilMs = atMs + (BLOCK_MS - atMs) * random.next() ** 3
        changes.add(atMs, ticks, drawSteps())
        changes.add(untilMs, ticks, 0)
      } else changes.add(atMs, resting, random.chance(REMOVED_SHARE) ? 0 : drawSteps())
    }
  }
  return changes.inOrder(block, next)
}

class Changes {
  readonly #atMs: number[] = []
  readonly #ticks: number[] = []
  readonly #steps: number[] = []

  add(atMs: number, ticks: number, steps: number): void {
    this.#atMs.push(Math.min(BLOCK_MS - 1, Math.floor(atMs)))
    this.#ticks.push(ticks)
    this.#steps.push(steps)
  }

  /** Sorts by time, and sets the last quantity of each price to that of `next`. */
  inOrder(block: MarketBlock, next: RestingLevels): BookBlock {
    const count = this.#atMs.length
    // A numeric sort without a comparator: the time, then the order of adding.
    const keys = Float64Array.from(this.#atMs, (atMs, index) => atMs * count + index).sort()
    const updateOffset = new Int32Array(count)
    const ticks = new Int32Array(count)
    const steps = new Int32Array(count)
    let ms = -1
    let offset = 0
    for (let i = 0; i < count; i++) {
      const key = keys[i] ?? 0
      const added = key % count
      const atMs = (key - added) / count
      // A change has the id after the newest one before its millisecond, so every cut contains whole milliseconds.
      if (atMs !== ms) offset = atMs === 0 ? 0 : updateOffsetAt(block, atMs - 1) + 1
      ms = atMs
      updateOffset[i] = offset
      ticks[i] = this.#ticks[added] ?? 0
      steps[i] = this.#steps[added] ?? 0
    }
    const isSet = new Set<number>()
    for (let i = count - 1; i >= 0; i--) {
      const price = ticks[i] ?? 0
      if (isSet.has(price)) continue
      isSet.add(price)
      steps[i] = next.stepsAt(price)
    }
    return { updateOffset, ticks, steps }
  }
}
