import { byEventType, EVENT_TYPES, type EventType } from '../../../foundation/market/event.ts'
import type { ConsumerStatus } from '../../../foundation/telemetry/status.ts'

export type RowCounts = Record<EventType, number>

/** Rows committed since `up` started, including those before restarts of the consumer. */
export interface Totals {
  /** By symbol. */
  readonly rows: ReadonlyMap<string, RowCounts>
  readonly all: RowCounts
  readonly deadLettered: number
  readonly alreadyThere: number
}

/** The period over which rates are calculated. */
const RATE_WINDOW_MS = 5000

/**
 * Adds up the counters of the consumer. They start at 0 with its process, so after a restart the
 * last values of the previous process are added.
 */
export class RunTotals {
  #before: ConsumerStatus[] = []
  #latest: ConsumerStatus | null = null
  #samples: Array<{ atMs: number; rows: Map<string, number> }> = []

  /** @param nowMs of a monotonic clock */
  add(status: ConsumerStatus, nowMs: number): void {
    const latest = this.#latest
    if (latest !== null && status.uptimeMs < latest.uptimeMs) this.#before.push(latest)
    this.#latest = status
    const rows = new Map<string, number>()
    for (const [symbol, counts] of this.totals().rows) rows.set(symbol, sum(counts))
    this.#samples.push({ atMs: nowMs, rows })
    // Keep one sample older than the window, so that the rate covers at least the window.
    while (this.#samples.length > 2 && nowMs - (this.#samples[1]?.atMs ?? nowMs) >= RATE_WINDOW_MS)
      this.#samples.shift()
  }

  totals(): Totals {
    const rows = new Map<string, RowCounts>()
    const all = noRows()
    let deadLettered = 0
    let alreadyThere = 0
    for (const status of this.#latest === null ? this.#before : [...this.#before, this.#latest]) {
      deadLettered += status.counters.deadLettered
      alreadyThere += status.counters.alreadyThere
      for (const type of EVENT_TYPES) {
        for (const [symbol, count] of Object.entries(status.rows[type] ?? {})) {
          const counts = rows.get(symbol) ?? noRows()
          counts[type] += count
          all[type] += count
          rows.set(symbol, counts)
        }
      }
    }
    return { rows, all, deadLettered, alreadyThere }
  }

  /** Rows per second over the last seconds, by symbol. */
  rowsPerSecond(): ReadonlyMap<string, number> {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)]
    const rates = new Map<string, number>()
    if (first === undefined || last === undefined || first === last) return rates
    const seconds = (last.atMs - first.atMs) / 1000
    for (const [symbol, count] of last.rows) {
      rates.set(symbol, seconds > 0 ? (count - (first.rows.get(symbol) ?? 0)) / seconds : 0)
    }
    return rates
  }
}

export function sum(counts: RowCounts): number {
  return Object.values(counts).reduce((total, count) => total + count, 0)
}

function noRows(): RowCounts {
  return byEventType(() => 0)
}
