import type { Window } from './outages.ts'

/** One measurement of memory. */
export interface Sample {
  readonly pid: number
  readonly atMs: number
  readonly bytes: number
}

/** A sample of one thread; the main thread is 0. */
export interface ThreadSample extends Sample {
  readonly thread: number
}

/** Memory growth of the process that was measured longest. */
export interface Slope {
  readonly mebibytesPerMinute: number
  readonly overMs: number
  readonly samples: number
}

const FEWEST = 5
/** A process grows while it warms up, and while its queue fills. */
const WARM_UP_MS = 60_000
const WARM_UP_SHARE = 1 / 4

/**
 * Fits a least-squares line through the samples of the process that was measured longest; null with
 * too few samples.
 *
 * @param within uses only samples of this period, without its first quarter; null: all but the
 * first minute
 */
export function slopeOf(samples: readonly Sample[], within: Window | null): Slope | null {
  const slopes = [...Map.groupBy(samples, ({ pid }) => pid).values()].flatMap((all) => {
    const firstMs = within === null ? (all[0]?.atMs ?? 0) + WARM_UP_MS : warmSince(within)
    const own = all.filter(({ atMs }) => atMs >= firstMs && atMs <= (within?.toMs ?? atMs))
    const [first, last] = [own[0], own.at(-1)]
    if (first === undefined || last === undefined || own.length < FEWEST) return []
    return [{ mebibytesPerMinute: leastSquares(own), overMs: last.atMs - first.atMs, samples: own.length }]
  })
  return slopes.sort((a, b) => b.overMs - a.overMs)[0] ?? null
}

function warmSince({ fromMs, toMs }: Window): number {
  return fromMs + Math.max(WARM_UP_MS, (toMs - fromMs) * WARM_UP_SHARE)
}

/** Sums the slopes of all threads. */
export function heapSlopeOf(samples: readonly ThreadSample[], within: Window | null): Slope | null {
  const slopes = [...Map.groupBy(samples, ({ thread }) => thread).values()].flatMap(
    (own) => slopeOf(own, within) ?? [],
  )
  const [longest] = slopes.toSorted((a, b) => b.overMs - a.overMs)
  if (longest === undefined) return null
  return {
    ...longest,
    mebibytesPerMinute: slopes.reduce((sum, { mebibytesPerMinute }) => sum + mebibytesPerMinute, 0),
  }
}

function leastSquares(samples: readonly Sample[]): number {
  const points = samples.map(({ atMs, bytes }) => ({ minutes: atMs / 60_000, mebibytes: bytes / 2 ** 20 }))
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const x = mean(points.map(({ minutes }) => minutes))
  const y = mean(points.map(({ mebibytes }) => mebibytes))
  const top = points.reduce((sum, { minutes, mebibytes }) => sum + (minutes - x) * (mebibytes - y), 0)
  return top / points.reduce((sum, { minutes }) => sum + (minutes - x) ** 2, 0)
}
