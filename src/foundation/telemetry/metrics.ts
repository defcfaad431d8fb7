import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { VERSION } from './service.ts'
import type { LatencySummary } from './status.ts'

/** A value per set of labels. */
export type Series = ReadonlyArray<{
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}>

/** A metric: a counter if its name ends in `_total`, otherwise a gauge. Base units, as Prometheus asks. */
export interface Metric<Sources> {
  readonly help: string
  /** Each must have a bounded set of values: never symbols, gaps or error texts. */
  readonly labels?: readonly string[]
  /** Returns the value, or one per set of labels; null or undefined if unknown. */
  readonly read: (sources: Sources) => number | Series | null | undefined
}

export type Metrics<Sources> = Readonly<Record<string, Metric<Sources>>>

export function isCounter(name: string): boolean {
  return name.endsWith('_total')
}

/** Each check wakes the process, by default 100 times a second; a relevant lag is longer than this. */
const EVENT_LOOP_CHECK_MS = 50

/** Returns our and Node's metrics as Prometheus' text. @param service the name in `tapeline_build_info` */
export function createMetrics<Sources>(
  service: 'ingestion' | 'consumer' | 'archive',
  take: () => Sources,
  metrics: Metrics<Sources>,
): () => Promise<string> {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: EVENT_LOOP_CHECK_MS })
  new Gauge({
    name: 'tapeline_build_info',
    help: '1, with service and versions as labels.',
    labelNames: ['service', 'version', 'node'],
    registers: [registry],
  }).set({ service, version: VERSION, node: process.version }, 1)
  const kept = Object.entries(metrics).map(([name, { help, labels = [], read }]) => {
    const Kind = isCounter(name) ? Counter : Gauge
    return { metric: new Kind({ name, help, labelNames: [...labels], registers: [registry] }), read, labels }
  })
  return () => {
    const sources = take()
    for (const { metric, read, labels } of kept) {
      metric.reset()
      // Without labels a reset metric is 0, which differs from unknown.
      if (labels.length === 0) metric.remove()
      const value = read(sources) ?? []
      const series = typeof value === 'number' ? [{ labels: {}, value }] : value
      for (const one of series) metric.inc({ ...one.labels }, one.value)
    }
    return registry.metrics()
  }
}

/** Returns a value per label. @param words are 0 if not counted yet, so that a counter can rise from 0 */
export function byLabel(
  label: string,
  counts: Readonly<Record<string, number>> = {},
  words: readonly string[] = Object.keys(counts),
): Series {
  return words.map((word) => ({ labels: { [label]: word }, value: counts[word] ?? 0 }))
}

export function seconds(ms: number | null | undefined): number | null {
  return ms == null ? null : ms / 1000
}

/** Returns percentiles of the last minute; none if nothing was measured: 0 would look like a fast minute. */
export function quantiles({ count, p50, p90, p99, max }: LatencySummary): Series {
  const values = { '0.5': p50 / 1000, '0.9': p90 / 1000, '0.99': p99 / 1000, '1': max / 1000 }
  return count === 0 ? [] : byLabel('quantile', values, ['0.5', '0.9', '0.99', '1'])
}
