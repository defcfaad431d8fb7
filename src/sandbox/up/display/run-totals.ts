import { byEventType, EVENT_TYPES, type EventType } from '../../../foundation/market/event.ts'
import { Rates } from '../../../foundation/telemetry/rates.ts'
import type { ArchiveStatus, ConsumerStatus } from '../../../foundation/telemetry/status.ts'

export type RowCounts = Record<EventType, number>

/** Rows committed since `up` started, including those before restarts of the consumer. */
export interface Totals {
  readonly rows: ReadonlyMap<string, RowCounts>
  readonly all: RowCounts
  readonly deadLettered: number
  readonly alreadyThere: number
  /** Over the last seconds, by symbol. */
  readonly rowsPerSecond: ReadonlyMap<string, number>
}

/** Adds up the consumer's counters over its restarts, at which they begin at 0. */
export class RunTotals {
  readonly #before: ConsumerStatus[] = []
  readonly #rates = new Rates()
  readonly #rowsPerSecond = new Map<string, number>()
  #latest: ConsumerStatus | null = null

  /** @param nowMs of a monotonic clock */
  add(status: ConsumerStatus, nowMs: number): void {
    const latest = this.#latest
    if (latest !== null && status.uptimeMs < latest.uptimeMs) this.#before.push(latest)
    this.#latest = status
    for (const [symbol, counts] of this.totals().rows)
      this.#rowsPerSecond.set(symbol, this.#rates.of(symbol, sum(Object.values(counts)), nowMs))
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
    return { rows, all, deadLettered, alreadyThere, rowsPerSecond: this.#rowsPerSecond }
  }
}

/** What was archived since `up` started, including before restarts of the archive. */
export interface Archived {
  /** Rows in files, by table. */
  readonly rows: Readonly<Record<string, number>>
  readonly bytes: number
  /** Messages read that are not in a file yet. */
  readonly waiting: number
  /** Messages read per second, over the last seconds. */
  readonly perSecond: number
}

/** Adds up the archive's counters over its restarts, at which they begin at 0. */
export class ArchiveTotals {
  readonly #rates = new Rates()
  #before: Pick<Archived, 'rows' | 'bytes'> = { rows: {}, bytes: 0 }
  #latest: ArchiveStatus | null = null
  #perSecond = 0

  /** @param nowMs of a monotonic clock */
  add(status: ArchiveStatus, nowMs: number): void {
    const latest = this.#latest
    if (latest !== null && status.uptimeMs < latest.uptimeMs) this.#before = this.totals()
    this.#latest = status
    this.#perSecond = this.#rates.of('consumed', status.consumed, nowMs)
  }

  totals(): Archived {
    const rows: Record<string, number> = { ...this.#before.rows }
    for (const [table, count] of Object.entries(this.#latest?.rows ?? {}))
      rows[table] = (rows[table] ?? 0) + count
    return {
      rows,
      bytes: this.#before.bytes + (this.#latest?.bytes ?? 0),
      waiting: this.#latest?.pending ?? 0,
      perSecond: this.#perSecond,
    }
  }
}

export function sum(counts: Iterable<number>): number {
  return Iterator.from(counts).reduce((total, count) => total + count, 0)
}

export function noRows(): RowCounts {
  return byEventType(() => 0)
}
