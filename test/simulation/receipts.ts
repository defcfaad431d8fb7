import { STEP_LIMIT_MS } from '../support/wall-clock.ts'
import type { StoredStream } from './stored-events.ts'
import type { World } from './world.ts'

/** A receipt later than this after the event is wrong: the sum of delays, socket pauses and freezes. */
const LATEST_MS = 12_000

/** P3: every receipt time is the machine's wall clock at the arrival or fetch of the event. */
export function wrongReceipts(world: World): string[] {
  return [...world.stored.streams.values()].flatMap((stream) => wrongOf(world, stream))
}

function wrongOf(world: World, stream: StoredStream): string[] {
  const { symbol, type, epoch, events } = stream
  const happened = timesOf(world, stream)
  const wrong = events.flatMap(({ id, receiptMs, storedMs, isBackfilled }) => {
    const waitMs = isBackfilled ? Number.POSITIVE_INFINITY : LATEST_MS
    const shownMs = world.wall.whenShown(receiptMs)
    const isTrue = happened(id).some((fromMs) => {
      const untilMs = Math.min(storedMs, fromMs + waitMs) + STEP_LIMIT_MS + 1
      return shownMs.some((atMs) => fromMs - 1 <= atMs && atMs <= untilMs)
    })
    return isTrue ? [] : [`${id} of ${happened(id)} at ${receiptMs}`]
  })
  if (wrong.length === 0) return []
  const some = wrong.slice(0, 3).join(', ')
  return [
    `P3 ${symbol} ${type} ${epoch}: receipt times that the clock never showed: ${wrong.length}, ${some}`,
  ]
}

/** The times of the events with an id: several if the ids restarted undetectably. */
function timesOf({ market }: World, { symbol, type }: StoredStream): (id: number) => number[] {
  if (type === 'bookTicker') {
    const times = new Map(market.quotes(symbol).map(({ id, timeMs }) => [id, [timeMs]]))
    return (id) => times.get(id) ?? []
  }
  const sequences = market.sequences.filter((one) => one.symbol === symbol && one.type === type)
  return (id) => sequences.flatMap(({ firstId, timesMs }) => timesMs[id - firstId] ?? [])
}
