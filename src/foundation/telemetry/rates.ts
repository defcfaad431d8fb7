interface Sample {
  readonly total: number
  readonly atMs: number
}

/** A rate covers about this long. */
const WINDOW_MS = 5000

/** Calculates how fast counters rise. */
export class Rates {
  readonly #samples = new Map<string, Sample[]>()

  /** @param total of a counter; lower after a restart @returns the rate per second */
  of(name: string, total: number, nowMs: number): number {
    const samples = this.#samples.get(name) ?? []
    this.#samples.set(name, samples)
    if (total < (samples.at(-1)?.total ?? 0)) samples.length = 0
    samples.push({ total, atMs: nowMs })
    while (samples.length > 2 && (samples[1]?.atMs ?? nowMs) <= nowMs - WINDOW_MS) samples.shift()
    const [first] = samples
    if (first === undefined || nowMs <= first.atMs) return 0
    return ((total - first.total) * 1000) / (nowMs - first.atMs)
  }
}
