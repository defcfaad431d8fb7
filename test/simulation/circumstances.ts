import type { WorldOptions } from './world.ts'

const HALF_AN_HOUR = {
  virtualMs: 1_800_000,
  symbols: { BTCUSDT: 1000, ETHUSDT: 3000, RAREUSDT: 600_000 },
  faultEveryMs: 12_000,
  stormOccurrences: 30,
}
const DAY = {
  virtualMs: 24 * 3_600_000,
  symbols: { BTCUSDT: 8000, ETHUSDT: 9000, RAREUSDT: 600_000 },
  faultEveryMs: 1_500_000,
  stormOccurrences: 200,
}

/** The circumstances of a seed. */
export const CIRCUMSTANCES = {
  /** A fault every half hour, each within a burst; two busy symbols and one that trades every ten minutes. */
  day: DAY,
  /** Half an hour with a fault every twelve seconds: faults overlap with earlier ones. */
  rough: HALF_AN_HOUR,
  /** The same, with faults of the Kafka cluster. */
  cluster: { ...HALF_AN_HOUR, clusterFaults: true },
  /** A day with faults of the Kafka cluster. */
  'cluster day': { ...DAY, clusterFaults: true },
  /** An exchange that lists, halts and delists symbols, has maintenance, and gives unexpected answers. */
  'exchange day': { ...DAY, exchangeFaults: true },
  /** Three hours of rollovers, and faults that lose no frame: nothing may be missing. */
  rollovers: {
    ...HALF_AN_HOUR,
    virtualMs: 3 * 3_600_000,
    faultEveryMs: 300_000,
    isLossless: true,
    depth: true,
  },
} satisfies Record<string, Omit<WorldOptions, 'seed'>>

export type Circumstance = keyof typeof CIRCUMSTANCES
