import { fromUnits, toUnits } from '../market/decimals.ts'
import type { FaultOf } from './fault-registry.ts'

/** How a diff differs from that of the matching engine. */
export interface LevelChange {
  readonly side: 'bid' | 'ask'
  readonly price: string
  readonly trueQuantity: string
  readonly sentQuantity: string
}

const LEVELS = /"[ba]":\[\[/

/** Whether a frame is a diff with at least one level. */
export function hasLevels(text: string): boolean {
  return text.includes('"depthUpdate"') && LEVELS.test(text)
}

/** Adds 1 to the quantity of a level. So a removed one stays, and any other is too large. */
export function alterLevel(fault: FaultOf<'alter'>, text: string): { text: string; change: LevelChange } {
  const frame = JSON.parse(text)
  const { b: bids, a: asks }: { b: string[][]; a: string[][] } = frame.data ?? frame
  const sides = [
    { side: 'bid' as const, levels: bids },
    { side: 'ask' as const, levels: asks },
  ]
  const all = sides.flatMap(({ side, levels }) => levels.map((level, index) => ({ side, level, index })))
  const { side, level } = fault.random.pick(
    fault.spec.level === 'best' ? all.filter(({ index }) => index === 0) : all,
  )
  const [price = '', trueQuantity = ''] = level
  const sentQuantity = fromUnits(toUnits(trueQuantity) + toUnits('1'))
  level[1] = sentQuantity
  return { text: JSON.stringify(frame), change: { side, price, trueQuantity, sentQuantity } }
}
