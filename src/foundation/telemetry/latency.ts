import type { LatencySummary } from './status.ts'

/** Growth of the buckets: a percentile is off by at most half of it. */
const GROWTH = 1.05
const LOG_GROWTH = Math.log(GROWTH)

/** Smaller latencies, in milliseconds, count as zero. */
const ZERO_MS = 0.1

/** Buckets on each side of zero; the last one has everything beyond 8 hours. */
const SIDE = 400

const SLICES = 6
const SLICE_MS = 10_000

interface Slice {
  /** Counts from the most negative to the most positive latency; the middle one is zero. */
  readonly counts: Uint32Array
  count: number
  max: number
  min: number
}

/** Percentiles over the last minute, in constant memory. If clocks differ, a latency may be negative. */
export class LatencyWindow {
  readonly #slices: Slice[] = Array.from({ length: SLICES }, () => ({
    counts: new Uint32Array(2 * SIDE + 1),
    count: 0,
    max: 0,
    min: 0,
  }))
  #current = 0
  #sliceEndsMs = Number.NEGATIVE_INFINITY

  /** @param nowMs of a monotonic clock */
  record(latencyMs: number, nowMs: number): void {
    this.#moveTo(nowMs)
    const slice = this.#slices[this.#current]
    if (slice === undefined) return
    const bucket = bucketOf(latencyMs)
    slice.counts[bucket] = (slice.counts[bucket] ?? 0) + 1
    slice.max = slice.count === 0 ? latencyMs : Math.max(slice.max, latencyMs)
    slice.min = slice.count === 0 ? latencyMs : Math.min(slice.min, latencyMs)
    slice.count++
  }

  summary(nowMs: number): LatencySummary {
    const filled = this.#filled(nowMs)
    const count = filled.reduce((sum, slice) => sum + slice.count, 0)
    if (count === 0) return { count: 0, p50: 0, p90: 0, p99: 0, max: 0 }
    const max = round(Math.max(...filled.map((slice) => slice.max)))
    const at = (share: number) => Math.min(max, percentile(filled, Math.ceil(count * share)))
    return { count, p50: at(0.5), p90: at(0.9), p99: at(0.99), max }
  }

  /** Returns the minimum of the last minute; null if nothing was measured. */
  min(nowMs: number): number | null {
    const filled = this.#filled(nowMs)
    return filled.length === 0 ? null : Math.min(...filled.map((slice) => slice.min))
  }

  #filled(nowMs: number): Slice[] {
    this.#moveTo(nowMs)
    return this.#slices.filter((slice) => slice.count > 0)
  }

  #moveTo(nowMs: number): void {
    const allPast = nowMs - this.#sliceEndsMs >= SLICES * SLICE_MS
    if (allPast) this.#sliceEndsMs = nowMs - SLICES * SLICE_MS
    while (nowMs >= this.#sliceEndsMs) {
      this.#sliceEndsMs += SLICE_MS
      this.#current = (this.#current + 1) % SLICES
      const slice = this.#slices[this.#current]
      if (slice === undefined) continue
      slice.counts.fill(0)
      slice.count = 0
    }
  }
}

function bucketOf(latencyMs: number): number {
  const size = Math.abs(latencyMs)
  if (size < ZERO_MS) return SIDE
  const steps = Math.min(SIDE, 1 + Math.floor(Math.log(size / ZERO_MS) / LOG_GROWTH))
  return latencyMs > 0 ? SIDE + steps : SIDE - steps
}

/** Returns the latency in the middle of a bucket. */
function latencyOf(bucket: number): number {
  const steps = bucket - SIDE
  return steps === 0 ? 0 : Math.sign(steps) * round(ZERO_MS * GROWTH ** (Math.abs(steps) - 0.5))
}

function percentile(slices: readonly Slice[], rank: number): number {
  let seen = 0
  for (let bucket = 0; bucket <= 2 * SIDE; bucket++) {
    for (const slice of slices) seen += slice.counts[bucket] ?? 0
    if (seen >= rank) return latencyOf(bucket)
  }
  return latencyOf(2 * SIDE)
}

function round(ms: number): number {
  return Math.abs(ms) < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)
}
