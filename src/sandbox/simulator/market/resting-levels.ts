import type { SymbolPlan } from './market-plan.ts'
import { relativePriceAt } from './price-path.ts'
import { hash32 } from './random.ts'

/*
 * Prices with orders at the start of a minute, as a function of symbol and minute. A price has one quantity; whether
 * it is a bid or an ask follows from the best prices. Each price has its level for some minutes, and then another.
 */

/** Levels around the price, one per cell of equal width. The far ones change less often. */
interface Zone {
  /** Relative to the price, to each side. */
  readonly reach: number
  /** The most cells to each side; fewer if a cell would be narrower than a tick. */
  readonly cells: number
  /** Blocks after which a cell gets another level. */
  readonly period: number
  /** The probability that a cell has a level. */
  readonly share: number
  /** Whether orders come and go at its levels within a period too. */
  readonly isActive: boolean
}

/**
 * A real book has 1,000 bids of BTCUSDT within 0.3 %, and more than 5,000 in all. Many orders rest for days without a
 * change, so no diff names their levels, also after the price has come near.
 */
const ZONES: readonly Zone[] = [
  { reach: 0.0015, cells: 300, period: 1, share: 0.9, isActive: true },
  { reach: 0.02, cells: 800, period: 16, share: 0.8, isActive: true },
  { reach: 0.2, cells: 8_000, period: 10_080, share: 0.9, isActive: false },
]

/** How far from the price the farthest levels are, relative to it. */
export const FARTHEST_LEVEL = Math.max(...ZONES.map(({ reach }) => reach))

/** Cells of a zone change in this many groups, each at another block of the period. */
const GROUPS = 16

/** The typical quantity of a level, in typical quantities of a trade. */
export const TYPICAL_LEVEL = 20

interface Group {
  /** Determines its levels; differs by period. */
  readonly salt: number
  /** The cell of the price, at the start of the period. */
  readonly middle: number
}

interface PlacedZone {
  readonly share: number
  readonly isActive: boolean
  /** Width of a cell, in ticks. */
  readonly width: number
  /** Cells to each side of the middle. */
  readonly reach: number
  readonly groups: readonly Group[]
}

type Visit = (ticks: number, steps: number) => void

export class RestingLevels {
  readonly #zones: readonly PlacedZone[]
  readonly #typicalSteps: number

  constructor({ seed, instrument }: SymbolPlan, block: number) {
    const { symbol, referenceTicks, typicalSteps } = instrument
    this.#typicalSteps = typicalSteps * TYPICAL_LEVEL
    this.#zones = ZONES.map(({ reach, cells, period, share, isActive }, index) => {
      const width = Math.max(1, Math.floor((referenceTicks * reach) / cells))
      const groups = Array.from({ length: GROUPS }, (_, group) => {
        const shift = Math.floor((group * period) / GROUPS)
        const since = Math.floor((block - shift) / period) * period + shift
        const middle = Math.floor((referenceTicks * relativePriceAt(seed, symbol, since)) / width)
        return { salt: hash32('levels', seed, symbol, index, since), middle }
      })
      return { share, isActive, width, reach: Math.ceil((referenceTicks * reach) / width), groups }
    })
  }

  /** The quantity at a price, in steps; 0 if there is none. */
  stepsAt(ticks: number): number {
    return this.#stepsAt(ticks, this.#zones.length)
  }

  /** The level of the nearest active zone that has one in the same cell as this price; 0 if none has. */
  near(ticks: number): number {
    for (const zone of this.#zones) {
      if (!zone.isActive) continue
      const found = levelIn(zone, Math.floor(ticks / zone.width))
      if (found > 0) return found
    }
    return 0
  }

  visit(visit: Visit): void {
    for (const [index, zone] of this.#zones.entries()) {
      for (let group = 0; group < GROUPS; group++) this.#visitGroup(index, zone, group, visit)
    }
  }

  /** Visits the prices at which these levels may differ from others of the same symbol. */
  visitChanges(next: RestingLevels, visit: (ticks: number) => void): void {
    for (const [index, zone] of this.#zones.entries()) {
      const nextZone = next.#zones[index] ?? zone
      for (let group = 0; group < GROUPS; group++) {
        if (zone.groups[group]?.salt === nextZone.groups[group]?.salt) continue
        this.#visitGroup(index, zone, group, visit)
        next.#visitGroup(index, nextZone, group, visit)
      }
    }
  }

  #visitGroup(index: number, zone: PlacedZone, group: number, visit: Visit): void {
    const { middle } = zone.groups[group] ?? { middle: 0 }
    const first = Math.max(0, middle - zone.reach)
    for (let cell = first + ((group - first) & (GROUPS - 1)); cell <= middle + zone.reach; cell += GROUPS) {
      const ticks = levelIn(zone, cell)
      // A price with levels of two zones has that of the nearer zone.
      if (ticks > 0 && this.#stepsAt(ticks, index) === 0) visit(ticks, this.#stepsAt(ticks, index + 1))
    }
  }

  #stepsAt(ticks: number, zones: number): number {
    for (let index = 0; index < zones; index++) {
      const zone = this.#zones[index]
      if (zone === undefined) return 0
      const cell = Math.floor(ticks / zone.width)
      if (levelIn(zone, cell) !== ticks) continue
      const draw = mix(cell, ~(zone.groups[cell & (GROUPS - 1)]?.salt ?? 0)) / 0x1_0000_0000
      return Math.max(1, Math.round(this.#typicalSteps * (0.05 + 3 * draw ** 3)))
    }
    return 0
  }
}

/** The price of the level in a cell; 0 if it has none. */
function levelIn({ groups, width, reach, share }: PlacedZone, cell: number): number {
  const group = groups[cell & (GROUPS - 1)]
  if (group === undefined || Math.abs(cell - group.middle) > reach) return 0
  const draw = mix(cell, group.salt)
  return (draw & 0xff) < share * 256 ? cell * width + ((draw >>> 8) % width) : 0
}

/** Two whole numbers to 32 bits: the finalizer of murmur3. */
function mix(a: number, b: number): number {
  let hash = Math.imul(a, 0x9e3779b1) ^ b
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
