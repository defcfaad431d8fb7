import type { Figures } from './run.ts'

/** Summary of one figure over several runs. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

/** Summaries by stage and figure. */
export type Summary = Readonly<Record<string, Readonly<Record<string, Spread>>>>

export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  const median = sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
  return { median, min: sorted[0] ?? Number.NaN, max: sorted.at(-1) ?? Number.NaN }
}

export function summarise(runs: ReadonlyArray<Readonly<Record<string, Figures>>>): Summary {
  const stages = [...new Set(runs.flatMap((run) => Object.keys(run)))]
  return Object.fromEntries(
    stages.map((stage) => {
      const names = [...new Set(runs.flatMap((run) => Object.keys(run[stage] ?? {})))]
      const values = (name: string) => runs.flatMap((run) => run[stage]?.[name] ?? [])
      return [stage, Object.fromEntries(names.map((name) => [name, spreadOf(values(name))]))]
    }),
  )
}
