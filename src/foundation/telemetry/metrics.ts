import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { LatencySummary } from './status.ts'
import { VERSION } from './version.ts'

/** The value of a metric without labels, or a value per set of labels; null if unknown. */
export type Reading =
  | number
  | null
  | ReadonlyArray<{ readonly labels: Readonly<Record<string, string>>; readonly value: number }>

export interface MetricSpec<Figures> {
  readonly kind: 'counter' | 'gauge'
  /** Follows Prometheus' conventions: base units, `_total` for counters. */
  readonly name: string
  readonly help: string
  /** Each must have a bounded set of values: never symbols, gaps or error texts. */
  readonly labels?: readonly string[]
  readonly read: (figures: Figures) => Reading
}

/**
 * Each check wakes the process, by default 100 times a second; a relevant lag is longer than this.
 */
const EVENT_LOOP_CHECK_MS = 50

/**
 * Returns a registry of metrics over figures kept elsewhere, with Node's process metrics. Hot paths
 * count in plain numbers; each scrape takes the figures once.
 *
 * @param service the name in `tapeline_build_info`
 */
export function createMetrics<Figures>(
  service: 'ingestion' | 'consumer',
  take: () => Figures,
  specs: ReadonlyArray<MetricSpec<Figures>>,
): () => Promise<string> {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: EVENT_LOOP_CHECK_MS })
  new Gauge({
    name: 'tapeline_build_info',
    help: '1, with service and versions as labels.',
    labelNames: ['service', 'version', 'node'],
    registers: [registry],
  }).set({ service, version: VERSION, node: process.version }, 1)
  let figures: Figures
  for (const { kind, name, help, labels = [], read } of specs) {
    const options = { name, help, labelNames: [...labels], registers: [registry] }
    if (kind === 'counter') {
      new Counter({
        ...options,
        collect() {
          this.reset()
          if (labels.length === 0) this.remove()
          for (const { labels, value } of readings(read(figures))) this.inc(labels, value)
        },
      })
    } else {
      new Gauge({
        ...options,
        collect() {
          this.reset()
          // A reset gauge is 0, which differs from unknown.
          if (labels.length === 0) this.remove()
          for (const { labels, value } of readings(read(figures))) this.set(labels, value)
        },
      })
    }
  }
  return () => {
    figures = take()
    return registry.metrics()
  }
}

/** Returns a value per label, 0 for those not counted yet, so that a counter can rise from 0. */
export function byLabel(
  label: string,
  words: readonly string[],
  counts: Readonly<Record<string, number>>,
): Reading {
  return words.map((word) => ({ labels: { [label]: word }, value: counts[word] ?? 0 }))
}

/**
 * Returns percentiles of the last minute; none if nothing was measured, so that a 0 does not look
 * like a fast minute.
 */
export function quantiles({ count, p50, p90, p99, max }: LatencySummary): Reading {
  if (count === 0) return []
  return Object.entries({ '0.5': p50, '0.9': p90, '0.99': p99, '1': max }).map(([quantile, ms]) => ({
    labels: { quantile },
    value: ms / 1000,
  }))
}

function readings(reading: Reading): ReadonlyArray<{ labels: Record<string, string>; value: number }> {
  if (reading === null) return []
  return typeof reading === 'number'
    ? [{ labels: {}, value: reading }]
    : reading.map(({ labels, value }) => ({ labels: { ...labels }, value }))
}
