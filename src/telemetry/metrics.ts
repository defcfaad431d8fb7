import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'

/** The value of a metric without labels, or the value for each set of labels. */
export type Reading =
  | number
  | ReadonlyArray<{ readonly labels: Readonly<Record<string, string>>; readonly value: number }>

export interface MetricSpec {
  readonly kind: 'counter' | 'gauge'
  /** By Prometheus' conventions: base units, `_total` for counters. */
  readonly name: string
  readonly help: string
  readonly labels?: readonly string[]
  /** Asked at each scrape: hot paths count in plain numbers. */
  readonly read: () => Reading
}

/** A registry over figures that live elsewhere, with Node's own process metrics. */
export function createMetrics(specs: readonly MetricSpec[]): () => Promise<string> {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  for (const { kind, name, help, labels = [], read } of specs) {
    const options = { name, help, labelNames: [...labels], registers: [registry] }
    if (kind === 'counter') {
      new Counter({
        ...options,
        collect() {
          this.reset()
          for (const { labels, value } of readings(read())) this.inc(labels, value)
        },
      })
    } else {
      new Gauge({
        ...options,
        collect() {
          this.reset()
          for (const { labels, value } of readings(read())) this.set(labels, value)
        },
      })
    }
  }
  return () => registry.metrics()
}

function readings(reading: Reading): ReadonlyArray<{ labels: Record<string, string>; value: number }> {
  return typeof reading === 'number'
    ? [{ labels: {}, value: reading }]
    : reading.map(({ labels, value }) => ({ labels: { ...labels }, value }))
}
