import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { World } from './world.ts'

export interface FaultKind {
  readonly name: string
  /** Relative frequency. */
  readonly weight: number
  readonly act: (world: World, random: Random) => void
}

export function fault(name: string, weight: number, act: FaultKind['act']): FaultKind {
  return { name, weight, act }
}

export const SECOND = 1000
export const MINUTE = 60_000
